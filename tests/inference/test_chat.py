"""What is typed at a model."""

import pytest

from inference.chat import readable
from stages.lib.core.errors import UserError


def test_a_question_is_utf8_whatever_the_terminal_says():
    assert readable("café") == "café"
    assert readable("café".encode().decode("ascii", "surrogateescape")) == "café"  # as Python reads it in the C locale
    with pytest.raises(UserError, match="not UTF-8 text: byte 0xe9 behind 'caf'"):
        readable("café".encode("latin1").decode(errors="surrogateescape"))
