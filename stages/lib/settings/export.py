"""The shape of the `export` section of params.yaml: which GGUFs are made, and how."""

from dataclasses import dataclass

from stages.lib.core.checks import check, one_of, positive
from stages.lib.settings.verify import Verify

# The types of `llama-quantize --help` that compress a 16-bit Llama without an importance matrix, as this
# project spells them; a test holds them against the build.
QUANT_TYPES = (
    "q2_K", "q3_K_S", "q3_K_M", "q3_K_L", "q4_0", "q4_1", "q4_K_S", "q4_K_M",
    "q5_0", "q5_1", "q5_K_S", "q5_K_M", "q6_K", "q8_0", "iq3_S", "iq3_M", "iq4_NL", "iq4_XS",
)  # fmt: skip
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")  # of each layer of a GGUF
TENSOR_TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "f16")


@dataclass
class Export:
    """Which quant types are made and verified, which matrices get another, and by what errors are weighed."""

    types: list[str]
    tensor_types: dict[str, str]
    verified: list[str]
    imatrix: bool
    imatrix_chunks: int
    verify: Verify

    def __post_init__(self) -> None:
        for kind in self.types:
            one_of("export.types", kind, QUANT_TYPES)
        for matrix, kind in self.tensor_types.items():
            one_of("export.tensor_types", matrix, MATRICES)
            one_of(f"export.tensor_types.{matrix}", kind, TENSOR_TYPES)
        positive("export", self, "imatrix_chunks")
        check("export.types", self.types, 1 <= len(set(self.types)) == len(self.types) <= 8, "one to eight, each once")
