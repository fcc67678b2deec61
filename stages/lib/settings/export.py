"""The quant types that export.types may name."""

# The types of `llama-quantize --help` that compress a 16-bit Llama without an importance matrix, as this
# project spells them; a test holds them against the build.
QUANT_TYPES = (
    "q2_K", "q3_K_S", "q3_K_M", "q3_K_L", "q4_0", "q4_1", "q4_K_S", "q4_K_M",
    "q5_0", "q5_1", "q5_K_S", "q5_K_M", "q6_K", "q8_0", "iq3_S", "iq3_M", "iq4_NL", "iq4_XS",
)  # fmt: skip
UNWEIGHED = ("q8_0",)  # so fine that the quantizer asks no importance matrix
