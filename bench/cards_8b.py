"""Which card trains Llama-3-8B how, by the estimate of memory and by counted operations: `python -m bench.cards_8b`.

Prints the tables of docs/8b.md. Nothing is measured: sizes are memory.needed's, with its margin; hours are the
recipe's operations at a share of what the card's data sheet promises.
"""

from typing import NamedTuple

from bench.flops import of_training
from bench.memory import LLAMA_3_8B
from bench.steps import chosen, section
from bench.training_8b import PEAKS, RECIPE, RECIPE_TOKENS
from stages.lib.settings.train import Train
from stages.lib.training import preflight, shapes
from stages.lib.training.memory import GIB, needed

LABELLED, CONTEXT = 0.5, 150  # share of tokens with a label, tokens that one attends to: a dialogue has about 300
CONTEXT_GIB = 0.5  # of a card's memory that CUDA itself takes
SHARES = (0.40, 0.25)  # of the data sheet's operations: hoped for; reached on an H200, where the host was too slow
METHODS = ("lora", "lora-8bit", "qlora")
BATCHES = ((2, 2048), (1, 2048), (1, 1024), (1, 512))  # sequences of tokens at a time


class Card(NamedTuple):
    """A card, whose last word PEAKS knows, and its GiB of memory."""

    name: str
    gib: float


CARDS = (
    Card("RTX 4090", 24),
    Card("RTX 3090", 24),
    Card("A10G", 22.5),
    Card("RTX 4080", 16),
    Card("A100", 80),
    Card("H100", 80),
)


def main() -> None:
    """Print both tables and the disk that the stages need."""
    print("| sequences at a time | " + " | ".join(METHODS) + " |\n|---|---|---|---|")
    for batch in BATCHES:
        sizes = [f"{gib(method, batch):.1f} GiB" for method in METHODS]
        print(f"| {batch[0]} × {batch[1]:,} | {' | '.join(sizes)} |")
    print("\n| card | " + " | ".join(METHODS) + " | hours for three epochs |\n|---|---|---|---|---|")
    for card in CARDS:
        print(f"| {card.name}, {card.gib:g} GiB | {' | '.join(largest(card, m) for m in METHODS)} | {hours(card)} |")
    disk = preflight.disk(LLAMA_3_8B, training("lora-8bit", BATCHES[0]))
    print("\n" + ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in disk.items()))
    print(f"in all {sum(disk.values()) / 1e9:.1f} GB, the base {2 * shapes.parameters(LLAMA_3_8B) / 1e9:.1f} GB")


def training(method: str, batch: tuple[int, int]) -> Train:
    """The recipe with another way to hold the base, and other batches."""
    settings = section(method, max_length=batch[1], precision="bf16", attention="documents") | RECIPE
    sizes = {"per_device_train_batch_size": batch[0], "gradient_accumulation_steps": 32 // batch[0]}
    return chosen(settings | sizes)


def gib(method: str, batch: tuple[int, int]) -> float:
    """What a training takes of a GPU, with the margin."""
    return needed(LLAMA_3_8B, training(method, batch), gpu=True)["total"] / GIB


def largest(card: Card, method: str) -> str:
    """The largest batch that fits into a card."""
    fitting = [batch for batch in BATCHES if gib(method, batch) <= card.gib - CONTEXT_GIB]
    return f"{fitting[0][0]} × {fitting[0][1]:,}" if fitting else "no"


def hours(card: Card) -> str:
    """The recipe's hours on a card, at either share of its operations."""
    operations = RECIPE_TOKENS * of_training(LLAMA_3_8B, RECIPE["lora"]["r"], LABELLED, CONTEXT)
    peak = PEAKS[card.name.split()[-1]]
    few, many = (operations / (peak * share) / 3600 for share in SHARES)
    return f"{few:.0f} to {many:.0f}" if few >= 5 else f"{few:.1f} to {many:.1f}"


if __name__ == "__main__":
    main()
