"""Models and hardware with names, given to you.

Shapes are those of the config.json of each checkpoint. Hardware is as NVIDIA states it: dense bfloat16 with float32
accumulation, without sparsity (data sheets often print twice that), and memory in GB of 10^9 bytes. The devices in
racks are the SXM versions, the A100 the one with 80 GB.
"""

from functools import partial

from hw3.costs import Hardware, ModelShape


def _decoder(
    vocab_size: int,
    tied: bool,
    qk_norm: bool,
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
) -> ModelShape:
    return ModelShape(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=tied,
        qk_norm=qk_norm,
    )


_llama = partial(_decoder, 128_256, False, False)
_small_qwen3 = partial(_decoder, 151_936, True, True)
_large_qwen3 = partial(_decoder, 151_936, False, True)

MODELS = {  # hidden size, intermediate size, layers, heads of queries
    "Llama-3.1-8B": _llama(4096, 14336, 32, 32),
    "Llama-3.1-70B": _llama(8192, 28672, 80, 64),
    "Llama-3.1-405B": _llama(16384, 53248, 126, 128),
    "Qwen3-0.6B": _small_qwen3(1024, 3072, 28, 16),
    "Qwen3-1.7B": _small_qwen3(2048, 6144, 28, 16),
    "Qwen3-4B": _small_qwen3(2560, 9728, 36, 32),
    "Qwen3-8B": _large_qwen3(4096, 12288, 36, 32),
    "Qwen3-14B": _large_qwen3(5120, 17408, 40, 40),
    "Qwen3-32B": _large_qwen3(5120, 25600, 64, 64),
}

HARDWARE = {
    hardware.name: hardware
    for hardware in (
        Hardware("A100", 312e12, 2.039e12, 80 * 10**9),
        Hardware("H100", 989e12, 3.35e12, 80 * 10**9),
        Hardware("H200", 989e12, 4.8e12, 141 * 10**9),
        Hardware("B200", 2250e12, 8.0e12, 180 * 10**9),
        Hardware("L40S", 362e12, 0.864e12, 48 * 10**9),
        Hardware("RTX 4090", 165.2e12, 1.008e12, 24 * 10**9),
    )
}
