"""The shape of params.yaml's `data`, and what its values may be."""

import re
from dataclasses import dataclass

from stages.lib.core.checks import at_least, check, one_of

RECORDS = ("dialogues", "train_questions", "test_questions")
FIELDS = {  # that a column can be mapped to
    "dialogues": ("messages", "instruction", "input", "output", "system", "history", "context"),
    "train_questions": ("question", "context", "options", "answer_idx", "answer", "meta_info"),
}
FIELDS["test_questions"] = FIELDS["train_questions"]


@dataclass
class Source:
    """Where one raw file comes from, what it holds and what pins it."""

    name: str
    records: str
    kind: str
    repo: str
    revision: str
    path: str
    sha256: str
    columns: dict[str, str]
    first_option: int | None
    licence: str
    count: int

    def __post_init__(self) -> None:
        key = f"data.sources[{self.name}]"
        check(f"{key}.name", self.name, bool(re.fullmatch(r"\w[\w-]*", self.name)), "letters, digits, - and _")
        one_of(f"{key}.records", self.records, RECORDS)
        one_of(f"{key}.kind", self.kind, ("sample", "file", "http", "hub"))
        check(f"{key}.count", self.count, self.count >= 0, "at least 0")
        check(f"{key}.name", self.name, self.name != "sources", "another name: data/raw/sources.json is the manifest")
        check(f"{key}.first_option", self.first_option, self.first_option in (None, 0, 1), "0, 1 or null")
        unknown = sorted(set(self.columns) - set(FIELDS[self.records]))
        check(f"{key}.columns", unknown, not unknown, f"names among {', '.join(FIELDS[self.records])}")
        for field in ("repo", "revision", "path") if self.kind == "hub" else ():
            check(f"{key}.{field}", getattr(self, field), bool(getattr(self, field)), "a value, for a hub source")
        check(
            f"{key}.sha256",
            self.sha256,
            bool(re.fullmatch(r"([0-9a-f]{64})?", self.sha256)),
            "64 hex digits in small letters",
        )


@dataclass
class NearDuplicates:
    """How near-duplicates are found: MinHash LSH proposes pairs, the Jaccard similarity of word n-grams decides."""

    ngram: int
    threshold: float
    bands: int
    band_rows: int

    def __post_init__(self) -> None:
        key = "data.prepare.near_duplicates"
        at_least(key, self, ngram=1, bands=1, band_rows=1)
        check(f"{key}.threshold", self.threshold, 0 < self.threshold <= 1, "above 0, at most 1")


@dataclass
class Prepare:
    """How records are cleaned, de-duplicated, decontaminated and split."""

    keep_system: bool
    reduce_options: bool
    malformed: float
    boilerplate: list[str]
    language: str
    min_words: int
    max_words: int
    near_duplicates: NearDuplicates
    decontaminate: int
    train_questions: int
    validation: float
    test: float

    def __post_init__(self) -> None:
        key = "data.prepare"
        at_least(key, self, min_words=1, max_words=self.min_words, decontaminate=0, train_questions=1)
        check(f"{key}.language", self.language, bool(re.fullmatch("[a-z]{2,3}|any", self.language)), "an ISO 639 code")
        check(f"{key}.malformed", self.malformed, 0 <= self.malformed < 1, "at least 0, below 1")
        check(f"{key}.validation", self.validation, 0 < self.validation < 0.5, "between 0 and 0.5")
        check(f"{key}.test", self.test, 0 < self.test < 0.5, "between 0 and 0.5")
        named = self.boilerplate
        check(f"{key}.boilerplate", named, len(set(named)) == len(named), "each name once")


@dataclass
class Data:
    """The data: raw sources of each kind of records, and how they are prepared."""

    name: str
    synthetic: bool
    chatdoctor: str | None
    medqa_train: str | None
    medqa_test: str | None
    sources: list[Source]
    prepare: Prepare

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        check("data.sources", names, len(set(names)) == len(names), "each name once")
        held = {source.records for source in self.sources}
        check("data.sources", sorted(held), held == set(RECORDS), f"sources of {', '.join(RECORDS)}")
