"""A template in a base: markers get ids, no id changes, EOS ends an answer, BOS stands where the base puts it."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf
from tokenizers import Tokenizer

from stages.lib.base.byte_level import LLAMA3, SMOLLM
from stages.lib.base.template import install_template
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, write_json
from stages.lib.model import chat
from stages.lib.model.loading import TRAINED_TOKENS, load_tokenizer, trained_token_ids
from stages.lib.settings.template import Template
from support import settings
from support.pretrained import llama
from support.settings import CHATML, ROOT

OWN = Template(**OmegaConf.to_object(OmegaConf.load(ROOT / "conf/template/own.yaml")))
MESSAGES = [{"role": "user", "content": "a rash"}, {"role": "assistant", "content": "since when?"}]
TEXT = "Fever of 39.5°C, 12345 mg,頭痛.\n\nNo allergies 🤒"
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return {kind: llama(tmp_path_factory.mktemp("base") / kind, kind) for kind in (LLAMA3, SMOLLM)}


@pytest.fixture
def base(published, tmp_path):
    """A copy of a small base of each kind, with changes to its tokenizer_config.json."""

    def copy(kind: str, **described):
        folder = tmp_path / f"{kind}{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for path in published[kind].iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        about = read_json(folder / "tokenizer_config.json") | described
        write_json(folder / "tokenizer_config.json", about)
        return folder

    return copy


def installed(folder, template):
    install_template(folder, template)
    return load_tokenizer(folder)


def vocabulary(folder) -> dict[str, int]:
    return Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()


def test_markers_take_reserved_tokens_of_llama3s_but_the_padding_and_are_trained(base):
    folder, template = base(LLAMA3), replace(CHATML, markers=[*CHATML.markers, "<|tool|>"])
    before = vocabulary(folder)
    tokenizer = installed(folder, template)
    assert read_json(folder / TRAINED_TOKENS) == template.markers
    taken = [f"<|reserved_special_token_{i}|>" for i in (0, 1, 3)]
    assert trained_token_ids(folder) == [before[token] for token in taken]
    renamed = dict(zip(template.markers, taken, strict=True))
    assert {renamed.get(token, token): i for token, i in vocabulary(folder).items()} == before
    assert tokenizer.pad_token == "<|reserved_special_token_2|>"


@pytest.mark.parametrize(("kind", "template"), [(SMOLLM, CHATML), (LLAMA3, settings.LLAMA3)])
def test_a_vocabulary_that_has_the_markers_is_left_as_it_is(base, kind, template):
    folder = base(kind)
    before = vocabulary(folder)
    installed(folder, template)
    assert vocabulary(folder) == before and read_json(folder / TRAINED_TOKENS) == []


def test_a_token_that_only_the_tokenizer_config_names_does_not_grow_the_vocabulary(base):
    folder = base(SMOLLM, unk_token="<unk>", pad_token="<pad>", extra_special_tokens=["<more>"])
    assert len(installed(folder, CHATML)) == read_json(folder / "config.json")["vocab_size"]
    with pytest.raises(UserError, match="'<s>' is no token of the base's"):
        install_template(base(SMOLLM, bos_token="<s>"), CHATML)


@pytest.mark.parametrize("template", [CHATML, settings.LLAMA3])
def test_every_text_keeps_its_ids_and_the_template_is_of_single_tokens(base, template):
    folder = base(LLAMA3)
    before = load_tokenizer(folder)(TEXT).input_ids
    tokenizer = installed(folder, template)
    assert tokenizer(TEXT).input_ids == before
    assert all(len(tokenizer.encode(marker, add_special_tokens=False)) == 1 for marker in template.markers)


def test_markers_that_find_no_reserved_tokens_are_an_error(base):
    with pytest.raises(UserError, match=r"template.llama3 needs <\|start_header_id\|>.*-S template=own"):
        install_template(base(SMOLLM), settings.LLAMA3)


@pytest.mark.parametrize("kind", [LLAMA3, SMOLLM])
def test_bos_stands_in_front_exactly_where_the_bases_tokenizer_puts_it(base, kind):
    tokenizer = installed(base(kind), CHATML)
    ids = chat.prompt_ids(tokenizer, MESSAGES[:1])
    assert tokenizer.decode(ids) == tokenizer.bos_token * (kind == LLAMA3) + (
        "<|im_start|>user\na rash<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer(TEXT).input_ids.count(tokenizer.bos_token_id) == (kind == LLAMA3)


@pytest.mark.parametrize("named", ["GPT2Tokenizer", "CodeLlamaTokenizer"])
def test_the_class_that_a_base_names_for_its_tokenizer_changes_no_id(base, named):
    folder = base(SMOLLM, tokenizer_class=named)  # the first, as SmolLM2 does, though it keeps digits together
    before = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
    assert installed(folder, CHATML)(TEXT).input_ids == before


@pytest.mark.parametrize("bos", [{"content": "<|begin_of_text|>", "lstrip": False}, {"__type": "AddedToken"}])
def test_tokens_that_are_objects_and_no_length_are_read(base, bos):
    folder = base(LLAMA3, bos_token={"content": "<|begin_of_text|>"} | bos, eos_token={"content": "<|end_of_text|>"})
    tokenizer = installed(folder, CHATML)
    assert tokenizer.bos_token == "<|begin_of_text|>" and tokenizer.model_max_length == 16384


@pytest.mark.parametrize(("written", "eos"), [("<|eot_id|>", "<|eot_id|>"), ("{{ eos_token }}", "<|end_of_text|>")])
def test_its_own_template_is_kept_and_what_it_has_behind_an_answer_is_eos(base, written, eos):
    folder = base(LLAMA3, chat_template=PLAIN.replace("{{ eos_token }}", written))
    tokenizer = installed(folder, OWN)
    assert chat.rendered(tokenizer, MESSAGES) == f"[user]a rash{eos}[assistant]since when?{eos}"
    assert tokenizer.eos_token == eos and read_json(folder / TRAINED_TOKENS) == []
    ((ids, labels),) = chat.training_examples(tokenizer, [MESSAGES])
    assert tokenizer.decode(ids[labels == ids]) == f"since when?{eos}"


def test_a_template_in_a_file_of_its_own_is_its_own_too(base):
    folder = base(SMOLLM)
    (folder / "chat_template.jinja").write_text(CHATML.chat_template)
    assert installed(folder, OWN).chat_template == CHATML.chat_template
    folder = base(SMOLLM)
    (folder / "chat_template.jinja").write_text(PLAIN)
    assert installed(folder, CHATML).chat_template == CHATML.chat_template


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({}, "keeps the base's own chat template, and it has none"),
        ({"chat_template": PLAIN.replace("{{ eos_token }}", "\n")}, "puts no special token behind an answer"),
        ({"chat_template": "{{ messages[0].content }}"}, "puts no special token behind an answer"),
        ({"chat_template": PLAIN.replace("{{ eos_token }}", "<|endoftext|>")}, "none of .* but its EOS"),
    ],
)
def test_its_own_template_must_be_there_and_end_an_answer_with_what_is_no_padding(base, described, message):
    with pytest.raises(UserError, match=message) as error:
        install_template(base(SMOLLM, **described), OWN)
    assert "\n" not in str(error.value)


def test_a_template_that_asks_the_clock_renders_the_same_on_every_day(base):
    dated = "{%- if strftime_now is defined %}{%- set today = strftime_now('%d %b %Y') %}{%- endif %}Today: {{ today }}"
    tokenizer = installed(base(SMOLLM, chat_template=dated + CHATML.chat_template), OWN)
    assert chat.rendered(tokenizer, MESSAGES).startswith("Today: 26 Jul 2024<|im_start|>user")


@pytest.mark.parametrize("kind", [LLAMA3, SMOLLM])
@pytest.mark.parametrize("listed", [None, 5, [5, 6]])
def test_an_answer_stops_at_the_bases_own_ends_and_the_templates(base, kind, listed):
    folder = base(kind)
    write_json(folder / "generation_config.json", {} if listed is None else {"eos_token_id": listed})
    own = read_json(folder / "config.json")["eos_token_id"]
    tokenizer = installed(folder, CHATML)
    listed = [] if listed is None else [listed] if isinstance(listed, int) else listed
    stop = sorted({own, tokenizer.convert_tokens_to_ids("<|im_end|>"), *listed})
    for name in ("config.json", "generation_config.json"):
        assert read_json(folder / name)["eos_token_id"] == stop
        assert read_json(folder / name)["pad_token_id"] == tokenizer.pad_token_id != tokenizer.eos_token_id
