"""Which implementation of each operation is used, and why: by device, dtype and what is installed. Decided once, at load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .activation import reference as activation_reference
from .activation.interface import SiluMul
from .activation.native import NativeSiluMul
from .attention import native as attention_native
from .attention import reference as attention_reference
from .attention.costs import DEFAULT_COSTS, SharingCosts
from .attention.interface import Attention, AttentionSpec
from .attention.selftest import choose_shapes, holds
from .attention.tiles import TILE, Shapes
from .gemm import few_rows
from .gemm import native as gemm_native
from .gemm import reference as gemm_reference
from .gemm.formats import FORMATS, Format
from .gemm.interface import MakeLinear
from .gemm.quantized import LEVELS, QuantizedLinear
from .gemm.quantized_reference import QuantizedTorchLinear
from .gemm.selftest import FORMS, CheckedLinears
from .gemm.slabs import Slabs
from .kv import reference as kv_reference
from .kv.interface import KVCopyPages
from .layers import native as layers_native
from .layers.interface import MakeStack, Stack, StackParts
from .native import NONE, Native
from .norm import reference as norm_reference
from .norm.interface import RmsNorm
from .norm.native import NativeNorm
from .rope import reference as rope_reference
from .rope.interface import RotateAndWrite
from .rope.native import NativeRotateAndWrite
from .sampling.draw import REFERENCE_SAMPLING
from .sampling.interface import Sampling
from .sampling.native import native_sampling

DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Kernels:
    """The operations of one device and dtype. kv_dtype: of K and V in the pools, as dtype or int8. `reasons`: lines for people;
    self-tests at load add to them.

    warm_sampling: compiles what sampling needs for logits like these, [rows, vocab], where it is compiled on the way.
    `packs`: linear layers copy their weight into a layout of their own, so the raw one can be dropped or be a mapped file.
    """

    device: torch.device
    dtype: torch.dtype
    kv_dtype: torch.dtype
    linear: MakeLinear
    attention: Callable[[AttentionSpec], Attention]
    kv_copy_pages: KVCopyPages
    rms_norm: RmsNorm
    rotate_and_write: RotateAndWrite
    silu_mul: SiluMul
    sampling: Sampling
    layers: MakeStack
    packs: bool
    warm_sampling: Callable[[torch.Tensor], None] = lambda logits: None
    reasons: list[str] = field(default_factory=list)


def choose(
    device: torch.device | str,
    dtype: torch.dtype,
    native: Native = NONE,
    quantization: str | None = None,
    *,
    kv_dtype: torch.dtype | None = None,
    costs: SharingCosts = DEFAULT_COSTS,
    deterministic: bool = False,
    max_positions: int | None = None,
) -> Kernels:
    """The kernels for a device and a dtype (fp32 or bf16).

    native: what `native.load` returned; without it the references are taken where there are no others. quantization: of the
    weights of linear layers, a name of `FORMATS`. kv_dtype: of K and V in the pools, int8 or None, as dtype. costs: by which
    attention decides what it reads together. deterministic: on CUDA too, a row's bits are the same in any company, of
    sequences of up to max_positions. Raises ValueError for another dtype, and for a quantization or int8 off the CPU.
    Changes nothing.
    """
    device = torch.device(device)
    if dtype not in DTYPES:
        raise ValueError(f"No kernels for dtype {dtype}. Use float32 or bfloat16.")
    if kv_dtype not in (None, dtype, torch.int8):
        raise ValueError(f"No kernels for K and V in {kv_dtype} beside {dtype}. Use int8, or leave it out.")
    kv_dtype = kv_dtype or dtype
    if kv_dtype == torch.int8 and device.type != "cpu":
        raise ValueError(f"No K and V in int8 on {device.type}. Use the CPU.")
    if device.type == "cuda":
        return _on_cuda(device, dtype, quantization, deterministic, max_positions)
    reasons: list[str] = []
    linear, packs = _linears(device, dtype, native, quantization, reasons)
    rms_norm, rotate_and_write, silu_mul, sampling = _between_linears(device, native, reasons)
    return Kernels(
        device=device,
        dtype=dtype,
        kv_dtype=kv_dtype,
        linear=linear,
        attention=_attentions(device, dtype, kv_dtype, native, costs, reasons),
        kv_copy_pages=kv_reference.copy_pages,
        rms_norm=rms_norm,
        rotate_and_write=rotate_and_write,
        silu_mul=silu_mul,
        sampling=sampling,
        layers=_stacks(device, native, reasons),
        packs=packs,
        reasons=reasons,
    )


def _on_cuda(
    device: torch.device, dtype: torch.dtype, quantization: str | None, deterministic: bool, max_positions: int | None
) -> Kernels:
    """Triton's, which is imported for CUDA alone."""
    from .activation.triton_impl import TritonSiluMul
    from .attention.triton_impl import TritonAttention
    from .gemm.fp8 import Fp8Linear
    from .gemm.triton_impl import InvariantLinear
    from .norm.triton_impl import TritonNorm
    from .rope.triton_impl import TritonRotateAndWrite
    from .sampling.triton_impl import triton_sampling, warm_up

    made: dict[AttentionSpec, Attention] = {}
    sampling = triton_sampling()

    def attention(spec: AttentionSpec) -> Attention:
        if spec not in made:
            made[spec] = TritonAttention(spec, device, deterministic, kv_dtype=dtype, max_positions=max_positions)
        return made[spec]

    if quantization not in (None, "fp8"):
        raise ValueError(f"No {quantization} linears on cuda. Use fp8, or the CPU.")
    if quantization is not None:
        linear, what = Fp8Linear, "cuBLAS in fp8, a scale for each row of weights and of x"
    elif deterministic:
        linear, what = InvariantLinear, "Triton, with blocks of one shape"
    else:
        linear, what = gemm_reference.TorchLinear, "cuBLAS"
    bits = "a row's bits are the same in any company" if deterministic else "a row's bits may depend on its batch"
    return Kernels(
        device=device,
        dtype=dtype,
        kv_dtype=dtype,
        linear=linear,
        attention=attention,
        kv_copy_pages=kv_reference.copy_pages,
        rms_norm=TritonNorm(),
        rotate_and_write=TritonRotateAndWrite(),
        silu_mul=TritonSiluMul(),
        sampling=sampling,
        layers=lambda parts: None,
        packs=False,
        warm_sampling=lambda logits: warm_up(sampling, logits),
        reasons=[
            f"linear: {what}; all else in {str(dtype).removeprefix('torch.')}",
            "attention, norm, rope with KV write, activation, sampling: Triton",
            f"deterministic: {'yes' if deterministic else 'no'}; {bits}",
        ],
    )


def _between_linears(
    device: torch.device, native: Native, reasons: list[str]
) -> tuple[RmsNorm, RotateAndWrite, SiluMul, Sampling]:
    names = "norm, rope with KV write, activation, sampling"
    if device.type != "cpu" or not native.available:
        why = native.reason if device.type == "cpu" else f"no others for {device.type}"
        reasons.append(f"{names}: torch ({why})")
        return norm_reference.rms_norm, rope_reference.rotate_and_write, activation_reference.silu_mul, REFERENCE_SAMPLING
    level = torch.ops.ramify.best_level()
    reasons.append(f"{names}: C++, {attention_native.LEVELS[level]}")
    return NativeNorm(level), NativeRotateAndWrite(level), NativeSiluMul(level), native_sampling(level)


def _linears(
    device: torch.device, dtype: torch.dtype, native: Native, quantization: str | None, reasons: list[str]
) -> tuple[MakeLinear, bool]:
    """What makes linear layers, and whether they copy their weight."""
    name = str(dtype).removeprefix("torch.")
    if quantization is not None:
        return _quantized(device, FORMATS[quantization], native, reasons), True
    if device.type != "cpu":
        reasons.append(f"linear: torch on {device.type} in {name}; rows are computed as they come, without the invariance test")
        return gemm_reference.TorchLinear, False
    if gemm_native.available(dtype):
        few = native.available and dtype == torch.bfloat16 and bool(torch.ops.ramify.linear_has_bf16())
        reasons.append(f"linear: oneDNN in {name}, weights packed at load")
        if few:
            reasons.append("linear: computed in C++ in oneDNN's layout, where oneDNN has the same bits (it has not with AMX)")
        return CheckedLinears(gemm_native.PackedLinear, "linear", reasons, few_rows.forms() if few else FORMS), True
    reasons.append(f"linear: torch in {name}, unpacked, because this CPU or torch build has no packed {name} product")
    return CheckedLinears(gemm_reference.TorchLinear, "linear", reasons), False


def _quantized(device: torch.device, form: Format, native: Native, reasons: list[str]) -> MakeLinear:
    """Row-invariant by construction: what is summed are whole numbers, and their order is fixed."""
    if device.type != "cpu":
        raise ValueError(f"No {form.name} linears on {device.type}. Use the CPU.")
    what = f"linear: {form.name}, groups of {form.group}, {form.bits_a_weight:g} bits a weight, x in 8 bits"
    if not native.available:
        reasons.append(f"{what}; torch, slow, because there are no native kernels ({native.reason})")
        return lambda weight, bias=None: QuantizedTorchLinear(weight, bias, form)
    reasons.append(f"{what}; C++, {LEVELS[torch.ops.ramify.linear_best_level()]}")
    pages = Slabs()
    return lambda weight, bias=None: QuantizedLinear(weight, bias, form, pages=pages)


def _stacks(device: torch.device, native: Native, reasons: list[str]) -> MakeStack:
    """What runs all layers in one call. Only when it is given the parts, a line says what became of it."""

    def stack(parts: StackParts) -> Stack | None:
        refused = layers_native.refusal(parts) if device.type == "cpu" and native.available else "there are no native kernels"
        if refused is not None:
            reasons.append(f"layers: operation by operation, because {refused}")
            return None
        made = layers_native.NativeStack(parts, torch.ops.ramify.best_level())
        limit = "" if made.most_rows is None else f" up to {made.most_rows} rows, with more operation by operation"
        reasons.append(f"layers: all in one call of C++{limit}")
        return made

    return stack


def _attentions(
    device: torch.device,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    native: Native,
    costs: SharingCosts,
    reasons: list[str],
) -> Callable[[AttentionSpec], Attention]:
    made: dict[AttentionSpec, Attention] = {}
    if kv_dtype == torch.int8:
        reasons.append("K and V: int8, a bf16 scale for each vector of a token and head")

    def attention(spec: AttentionSpec) -> Attention:
        if spec not in made:
            own = None
            if device.type == "cpu":
                own = _native_attention(spec, dtype, kv_dtype, native, costs, reasons)
            made[spec] = own or attention_reference.TorchAttention(spec, device, _shapes(spec, device, dtype, kv_dtype, reasons))
        return made[spec]

    return attention


def _native_attention(
    spec: AttentionSpec,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    native: Native,
    costs: SharingCosts,
    reasons: list[str],
) -> Attention | None:
    """The C++ one, where it can be had, takes this spec, and keeps a row's bits."""
    refused = attention_native.refusal(spec) if native.available else native.reason
    if refused is None:
        attention = attention_native.NativeAttention(spec, costs=costs)
        level = attention_native.LEVELS[attention.level]
        if holds(attention, torch.device("cpu"), dtype, kv_dtype):
            reasons.append(f"attention: C++ over pages, {level}: a row's bits are the same in any company (tested)")
            return attention
        refused = f"a row's bits depend on the other rows ({level})"
    reasons.append(f"attention: not in C++: {refused}")
    return None


def _shapes(
    spec: AttentionSpec, device: torch.device, dtype: torch.dtype, kv_dtype: torch.dtype, reasons: list[str]
) -> Shapes:
    where = f"attention: torch over pages in tiles of {TILE} positions"
    if device.type != "cpu":
        reasons.append(f"{where} on {device.type}, without the invariance test")
        return Shapes()
    shapes, same = choose_shapes(spec, device, dtype, kv_dtype)
    how = f"rows padded to {shapes.row_multiple}, tiles cut to {'/'.join(map(str, shapes.widths))}"
    if same:
        reasons.append(f"{where}, {how}: a row's bits are the same in any company (tested)")
    else:
        reasons.append(f"{where}, {how}: a row's bits depend on the other rows in all shapes tried: a batch may differ")
    return shapes
