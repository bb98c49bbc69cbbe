"""The Triton kernels of attention compile for the GPUs they are meant for, with what these have: no GPU is needed to know."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec

import pytest

from ramify.kernels.attention.interface import AttentionSpec

found = find_spec("triton")
pytestmark = pytest.mark.skipif(
    found is None or found.origin is None or os.environ.get("TRITON_INTERPRET") == "1", reason="needs Triton's compiler"
)
SHARED_MEMORY = 227 << 10
"""Bytes that a program may have."""
POINTERS = {
    "count": "i32", "items": "i32", "tokens": "i32", "positions": "i32", "table": "i32", "part_acc": "fp32", "part_ml": "fp32",
    "merge_token": "i32", "merge_ptr": "i32", "merge_part": "i32",
}  # fmt: skip
NUMBERS = {"table_stride": "i32", "q_stride": "i32", "scale": "fp32", "cap": "fp32"}


def compiled(kernel, dtype: str, constants: dict, warps: int, stages: int):
    """For sm_90. Tensors lie at multiples of 16 bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in NUMBERS:
            signature[name] = NUMBERS[name]
        else:
            signature[name] = "*" + POINTERS.get(name, dtype)
        if name not in constants and name not in ("scale", "cap", "table_stride"):
            attributes[place,] = [["tt.divisibility", 16]]
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, places, attributes)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def constants(spec: AttentionSpec, launch, dtype: str) -> dict:
    from ramify.kernels.attention.triton_configs import padded

    return {
        "CAUSAL": spec.causal, "WINDOW": spec.window or 0, "SOFT_CAP": spec.soft_cap is not None, "PAGE": 16,
        "OPEN": launch.open, "ALIGN": not launch.least,
        "KV_HEADS": spec.num_kv_heads, "GROUP": spec.num_heads // spec.num_kv_heads, "D": spec.head_dim,
        "D_PAD": padded(spec.head_dim), "WIDE": dtype == "fp32", "BLOCK_M": launch.rows, "BLOCK_N": launch.keys,
    }  # fmt: skip


VARIANTS = {
    "16/8/128 small": (AttentionSpec(16, 8, 128, 1.0), "small", "bf16"),
    "32/8/128 large": (AttentionSpec(32, 8, 128, 1.0), "large", "bf16"),
    "14/2/64 small": (AttentionSpec(14, 2, 64, 1.0), "small", "bf16"),
    "8/4/256 large, window, soft cap": (AttentionSpec(8, 4, 256, 1.0, window=4096, soft_cap=50.0), "large", "bf16"),
    "16/8/128 large, fp32": (AttentionSpec(16, 8, 128, 1.0), "large", "fp32"),
    "16/8/128 deterministic": (AttentionSpec(16, 8, 128, 1.0), "fixed", "bf16"),
}


SLOW = {"8/4/256 large, window, soft cap"}


@pytest.mark.parametrize(
    ("spec", "kind", "dtype"),
    [pytest.param(*how, id=name, marks=[pytest.mark.slow] if name in SLOW else []) for name, how in VARIANTS.items()],
)
def test_attention_compiles_for_hopper_and_fits_it(spec: AttentionSpec, kind: str, dtype: str) -> None:
    from ramify.kernels.attention import triton_kernels
    from ramify.kernels.attention.triton_configs import launches, wide

    chosen = launches(spec, kind == "fixed")
    launch = chosen.small if kind == "small" else chosen.large
    if dtype == "fp32":
        launch = wide(launch)
    made = compiled(triton_kernels.attend, dtype, constants(spec, launch, dtype), launch.warps, launch.stages)
    assert made.metadata.shared <= SHARED_MEMORY
    assert launch.per_processor * (made.metadata.shared + 1024) <= SHARED_MEMORY + 1024, "as many as the table says fit"
    ptx = made.asm["ptx"]
    assert "cp.async" in ptx, "K and V come through a pipeline"
    if dtype == "bf16":
        assert re.search(r"wgmma|mma\.sync", ptx), "products are those of tensor cores"


def test_merging_compiles_for_hopper() -> None:
    from ramify.kernels.attention import triton_kernels
    from ramify.kernels.attention.triton_impl import MERGE_WARPS, PARTS_AT_ONCE

    constants = {"HEADS": 16, "D": 128, "D_PAD": 128, "PARTS": PARTS_AT_ONCE}
    assert compiled(triton_kernels.merge, "bf16", constants, MERGE_WARPS, 3).metadata.shared <= SHARED_MEMORY
