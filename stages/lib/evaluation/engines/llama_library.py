"""llama.cpp's own library, and why it could not do what it was asked."""

import os
from collections import deque
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from stages.lib.core.errors import UserError
from stages.lib.export import llamacpp

ERROR = 4  # the level of its log lines that say what failed
SAID: deque[str] = deque(maxlen=3)  # the last of them


@cache
def binding() -> Any:
    """llama-cpp-python's low-level module with the libraries of our own build; of its log, errors alone are kept."""
    os.environ["LLAMA_CPP_LIB_PATH"] = str(llamacpp.library_path())
    module: Any = import_module("llama_cpp.llama_cpp")
    module.note = module.llama_log_callback(note)
    module.llama_log_set(module.note, None)  # C holds no reference: the module must
    module.llama_backend_init()
    return module


def note(level: int, text: bytes, _: Any) -> None:
    """Keep a line of its log where it says what failed."""
    if level == ERROR:
        SAID.append(text.decode(errors="replace").strip())


def failure(path: Path, what: str, fix: str, more_memory: str) -> UserError:
    """What it could not do with a file, why as it says itself, and the fix: `more_memory` where it lacks some."""
    said = " / ".join(SAID) or "no reason given"
    SAID.clear()
    short = "alloc" in said or "memory" in said
    return UserError(f"{path}: llama.cpp cannot {what} ({said}); {more_memory if short else fix}")
