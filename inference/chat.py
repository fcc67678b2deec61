"""Talk to the finished model: `python -m inference.chat ["one question"] [--model q4_K_M]`."""

import argparse
import io
import sys
from collections.abc import Iterable, Iterator

from transformers import PreTrainedTokenizerBase

from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.evaluation.engines.language_model import open_model
from stages.lib.evaluation.predict.examples import stop_ids_of
from stages.lib.model.chat import prompt_ids
from stages.lib.model.loading import load_tokenizer

DISCLAIMER = (
    "This is a research model, not a medical device. It gives no medical advice; in an emergency call for help."
)
FOLDERS = {"base": paths.BASE, "tuned": paths.MERGED}


def main(arguments: list[str]) -> None:
    """Answer one question given as an argument, or hold a conversation on the terminal."""
    parser = argparse.ArgumentParser(prog="python -m inference.chat", description=DISCLAIMER)
    parser.add_argument("question", nargs="?", help="one question; without it, a conversation (end it with Ctrl-D)")
    parser.add_argument("--model", default="q4_K_M", help="a quant type, f16, tuned or base (default: q4_K_M)")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--context", type=int, default=1024, help="tokens of the whole conversation")
    chosen = parser.parse_args(arguments)
    if not 0 < chosen.max_new_tokens < chosen.context:
        parser.error(
            f"--max-new-tokens is {chosen.max_new_tokens}, expected 1 to {chosen.context - 1} (--context less 1)"
        )
    print(DISCLAIMER, file=sys.stderr)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # as of arguments; `readable` decodes them
    try:
        questions = [chosen.question] if chosen.question else asked()
        converse(questions, chosen.model, chosen.context, chosen.max_new_tokens)
    except UserError as error:
        sys.exit(f"chat: {error}")
    except KeyboardInterrupt:
        print()


def converse(questions: Iterable[str], name: str, context: int, max_new_tokens: int) -> None:
    """Print the model's answer to each question, of which the later ones follow up on the earlier.

    Raises UserError where the model is missing, or a question is no text or exceeds the context.
    """
    # The tokenizer of the base renders the prompt for every model: the same ids as in training.
    tokenizer = load_tokenizer(paths.BASE)
    stop_ids = stop_ids_of(paths.BASE)
    model = open_model(FOLDERS.get(name) or paths.gguf(name), paths.BASE, context)
    messages: list[dict] = []
    for question in questions:
        messages.append({"role": "user", "content": readable(question)})
        ids = fitting(tokenizer, messages, context - max_new_tokens)
        answer = ""
        generated = (token for _, token in model.generate([ids], max_new_tokens, stop_ids))
        for piece in streamed(tokenizer, generated):
            print(piece, end="", flush=True)
            answer += piece
        print()
        messages.append({"role": "assistant", "content": answer})


def asked() -> Iterator[str]:
    """Questions typed on the terminal, until its end."""
    while True:
        try:
            question = input("\n> ").strip()
        except EOFError:
            print()
            return
        if question:
            yield question


def readable(question: str) -> str:
    """The question as text, of what a terminal or an argument gave; raises UserError where that is not UTF-8."""
    data = question.encode(errors="surrogateescape")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()[-20:]
        raise UserError(
            f"the question is not UTF-8 text: byte 0x{data[error.start]:02x} behind {before!r}; "
            "convert it, e.g. `iconv -f LATIN1 -t UTF-8`"
        ) from error


def fitting(tokenizer: PreTrainedTokenizerBase, messages: list[dict], limit: int) -> list[int]:
    """Prompt ids of the conversation, its oldest turns dropped from `messages` where it exceeds `limit` tokens.

    Raises UserError where the last question alone exceeds it.
    """
    while len(ids := prompt_ids(tokenizer, messages)) > limit:
        if len(messages) == 1:
            raise UserError(
                f"the question has {len(ids)} tokens, more than the {limit} that fit; shorten it or raise --context"
            )
        del messages[:2]
    return ids


def streamed(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> Iterator[str]:
    """Text as the ids are decoded; a character of several tokens is held back until it is whole."""
    seen: list[int] = []
    shown = ""
    for token in ids:
        seen.append(token)
        (text,) = tokenizer.batch_decode([seen], skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text


if __name__ == "__main__":
    main(sys.argv[1:])
