"""The Triton kernels of the layer and of sampling compile for an H100, without one, and keep what they hold in registers."""

from __future__ import annotations

import os
import re
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

found = find_spec("triton")
if found is None or found.origin is None or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("triton's compiler is not here", allow_module_level=True)

F32, I32, I64, U8 = "*fp32", "*i32", "*i64", "*u8"
SOURCE = {"copies": F32, "masks": I32, "integers": I32}
PARTS = {"part_max": F32, "part_id": I32}
CASES = {
    "norm": ("norm.triton_impl:_add_norm", {"rows": "i32", "size": "i32"}, {"ADD": True, "ROWS": 1, "BLOCK": 4096}, 16),
    "norm of small rows": ("norm.triton_impl:_add_norm", {}, {"ADD": False, "ROWS": 4, "BLOCK": 128}, 2),
    "rope": (
        "rope.triton_impl:_rotate_and_write",
        {"slots": I64},
        {"NORM": True, "HEADS": 16, "KV_HEADS": 8, "HEAD_DIM": 128, "TOGETHER": 8, "HALF": 64},
        2,
    ),
    "activation": ("activation.triton_impl:_silu_mul", {}, {"BLOCK": 1024}, 4),
    "fp8": ("gemm.fp8:_quantize", {"q": "*fp8e4nv", "scales": F32}, {"MOST": 448.0, "BLOCK": 4096}, 16),
    "scan": ("sampling.triton_draw:scan", SOURCE | PARTS | {"block_max": F32}, {"WORDS": 64}, 4),
    "sums": (
        "sampling.triton_draw:sum_blocks",
        SOURCE | PARTS | {"numbers": F32, "thresholds": I32, "drawn": I32, "sums": F32},
        {"WORDS": 64, "SPLITS": 128},
        4,
    ),
    "choice": (
        "sampling.triton_draw:choose",
        SOURCE | PARTS | {"numbers": F32, "thresholds": I32, "drawn": I32, "sums": F32, "tokens": I64, "bads": U8},
        {"SPLITS": 128, "BLOCKS": 2048},
        4,
    ),
    "selection": (
        "sampling.triton_select:select",
        SOURCE | PARTS | {"numbers": F32, "block_max": F32, "sums": F32, "few": I32, "thresholds": I32, "drawn": I32},
        {"WORDS": 128, "SPLITS": 128, "BLOCKS": 2048, "FEW": 64},
        16,
    ),
    "edits": (
        "sampling.triton_edits:edit",
        SOURCE
        | {"lists": I32, "strengths": F32, "bias_ids": I32, "bias_values": F32, "banned_ids": I32}
        | {"counts": I32, "in_prompt": U8},
        {"TILE": 2048},
        4,
    ),
    "normalizer's parts": ("sampling.triton_norm:add_parts", {"rows": I64, "part_max": F32, "part_sum": F32}, {"TILE": 2048}, 4),
    "normalizer": ("sampling.triton_norm:add_up", {"part_max": F32, "part_sum": F32, "out": "*fp64"}, {"SPLITS": 128}, 1),
}
TENSORS = {"x", "delta", "weight", "out", "qkv", "turns", "norm", "q", "k_pool", "v_pool", "gate_up", "logits"}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_kernel_compiles_for_sm_90_without_spilling(case: str, dtype: str, tmp_path: Path) -> None:
    if dtype == "fp32" and case != "scan":
        pytest.skip("one kernel for each way of reading is enough")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    where, types, constants, num_warps = CASES[case]
    module, name = where.split(":")
    kernel = getattr(import_module(f"ramify.kernels.{module}"), name)
    signature, aligned = {}, {}
    for place, argument in enumerate(kernel.arg_names):
        plain = f"*{dtype}" if argument in TENSORS else "fp32" if argument == "eps" else "i32"
        signature[argument] = "constexpr" if argument in constants else types.get(argument, plain)
        if signature[argument].startswith("*") or argument in ("size", "vocab", "stride"):
            aligned[(place,)] = [["tt.divisibility", 16]]
    made = triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": num_warps, "enable_fp_fusion": False},
    )
    assert made.metadata.shared < 48 * 1024
    registers, spilled = _resources(made.asm["cubin"], tmp_path)
    assert spilled == 0 and registers * num_warps * 32 <= 65536, (registers, spilled)


def _resources(cubin: bytes, folder: Path) -> tuple[int, int]:
    """Registers a thread, and bytes that did not fit them."""
    from triton import knobs

    binary = folder / "kernel.cubin"
    binary.write_bytes(cubin)
    command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(binary)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return tuple(int(re.findall(rf"{what}:(\d+)", report)[-1]) for what in ("REG", "STACK"))
