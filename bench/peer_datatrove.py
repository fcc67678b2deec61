"""datatrove's MinHash de-duplication: `python -P peer_datatrove.py TEXTS WORK OUT SPLITTER`, with datatrove 0.10.1.

TEXTS holds JSON lines {id, text}, a file a task; WORK is scratch; OUT gets the ids removed. SPLITTER is `spacy`, its
own tokenizer for English, or `spaces`, a tokenizer of ours that only splits. (-P: the modules beside this one must not
shadow the standard library's.)

Tried on 112,000 dialogues with 8 % planted copies (similarity 0.85 to 0.95) and 2 % lookalikes (0.5 to 0.7), as
n-grams, buckets x hashes: recall, precision.
  5, 14 x  8: 0.960, 0.990    3, 14 x  8: 0.998, 0.936    3, 20 x  6: 1.000, 0.862    3, 20 x 10: 0.999, 0.962
  5, 30 x  8: 0.996, 0.978    3, 14 x 10: 0.992, 0.969    3, 20 x 12: 0.995, 0.981    3, 50 x 15: 0.999, 0.986
spaCy finds nothing more than spaces do: `simplify_text` has left only words and single spaces by then.
"""

import json
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer
from loguru import logger

N_GRAMS = 3  # words, as the similarity is defined
BUCKETS, HASHES = 20, 12  # half of the pairs at (1/20)^(1/12) = 0.78 and 97 % of those at 0.86 share a bucket
WORKERS = 2


class SpaceTokenizer(WordTokenizer):
    """Words as datatrove's `simplify_text` leaves them: small letters, no punctuation, one space between two."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return text.split(" ")

    def sent_tokenize(self, text: str) -> list[str]:
        """Not asked for."""
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Not asked for."""
        raise NotImplementedError


def deduplicate(texts: Path, work: Path, language: str | WordTokenizer) -> list[str]:
    """Run the four stages and return the ids of the removed texts."""
    config = MinhashConfig(N_GRAMS, BUCKETS, HASHES, hash_config=HashConfig(precision=64))
    tasks = len(list(texts.glob("*.jsonl")))
    reader = JsonlReader(str(texts))
    signatures, pairs, removals, removed = (str(work / name) for name in ("signatures", "pairs", "removals", "removed"))
    exclusions = JsonlWriter(removed, compression=None)
    kept = JsonlWriter(str(work / "kept"), compression=None)
    stages = (
        ([reader, MinhashDedupSignature(signatures, config, language=language)], tasks),
        ([MinhashDedupBuckets(signatures, pairs, config=config)], BUCKETS),
        ([MinhashDedupCluster(pairs, removals, config=config)], 1),
        ([reader, MinhashDedupFilter(removals, exclusion_writer=exclusions), kept], tasks),
    )
    for number, (pipeline, count) in enumerate(stages):
        logs = str(work / f"logs{number}")
        LocalPipelineExecutor(pipeline, count, min(WORKERS, count), logs, start_method="fork").run()
    lines = (line for path in Path(removed).glob("*.jsonl") for line in path.read_text(encoding="utf-8").splitlines())
    return [json.loads(line)["id"] for line in lines]


if __name__ == "__main__":
    logger.disable("datatrove")
    texts, work, out = map(Path, sys.argv[1:4])
    removed_ids = deduplicate(texts, work, {"spacy": "eng", "spaces": SpaceTokenizer()}[sys.argv[4]])
    out.write_text(json.dumps(removed_ids), encoding="utf-8")
