"""Talk to the finished model: `python -m inference.chat ["one question"] [--model q4_K_M]`."""

import argparse
import sys
from collections.abc import Iterator

from stages.lib import paths
from stages.lib.chat import prompt_ids
from stages.lib.errors import UserError
from stages.lib.models import load_tokenizer
from stages.lib.scoring import open_model, stop_ids_of

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
    try:
        path = FOLDERS.get(chosen.model) or paths.gguf(chosen.model)
        # The tokenizer of the base renders the prompt for every model: the same ids as in training.
        tokenizer, stop_ids = load_tokenizer(paths.BASE), stop_ids_of(paths.BASE)
        model = open_model(path, paths.BASE, chosen.context)
        messages: list[dict] = []
        for question in [chosen.question] if chosen.question else asked():
            messages.append({"role": "user", "content": question})
            ids = fitting(tokenizer, messages, chosen.context - chosen.max_new_tokens)
            answer = ""
            told = (token for _, token in model.generate([ids], chosen.max_new_tokens, stop_ids))
            for piece in streamed(tokenizer, told):
                print(piece, end="", flush=True)
                answer += piece
            print()
            messages.append({"role": "assistant", "content": answer})
    except UserError as error:
        sys.exit(f"chat: {error}")
    except KeyboardInterrupt:
        print()


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


def fitting(tokenizer, messages: list[dict], limit: int) -> list[int]:
    """Prompt ids of the conversation, its oldest turns forgotten where it exceeds `limit` tokens.

    Raises UserError where the last question alone exceeds it.
    """
    while len(ids := prompt_ids(tokenizer, messages)) > limit:
        if len(messages) == 1:
            raise UserError(
                f"the question has {len(ids)} tokens, more than the {limit} that fit; shorten it or raise --context"
            )
        del messages[:2]
    return ids


def streamed(tokenizer, ids: Iterator[int]) -> Iterator[str]:
    """Text as the ids come; a character of several tokens is held back until it is whole."""
    seen, shown = [], ""
    for token in ids:
        seen.append(token)
        text = tokenizer.decode(seen, skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text


if __name__ == "__main__":
    main(sys.argv[1:])
