"""How the Triton kernels of attention are launched: sizes of blocks, warps, depth of the pipeline. A table, because nothing is
tried at run time; `ramify bench gpu_attention --configs` says what else there is to choose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .costs import SharingCosts
from .interface import AttentionSpec
from .work_lists import Cutting, Kind
from .work_tree import Weighing

MOST_GROUP = 128
"""Query heads of a KV head, which are rows of one program."""


@dataclass(frozen=True)
class Launch:
    """rows, keys: of a block; rows hold all heads of a group, keys are read at once. stages: of the pipeline that brings K and V.
    per_processor: programs that one multiprocessor holds at the same time, as far as work is cut for it. least, overhead: see
    `Kind`. open: keys that all queries see have a loop of their own, without a mask; it pays where products count."""

    rows: int
    keys: int
    warps: int
    stages: int
    per_processor: int
    least: int
    overhead: int
    open: bool = False


SMALL = {64: Launch(16, 64, 4, 4, 3, 128, 96), 128: Launch(16, 64, 4, 4, 2, 128, 96), 256: Launch(16, 32, 4, 4, 2, 128, 96)}
LARGE = {
    64: Launch(128, 64, 8, 3, 1, 512, 192, True),
    128: Launch(128, 64, 8, 3, 1, 512, 192, True),
    256: Launch(64, 64, 8, 2, 1, 512, 192, True),
}
FIXED = {64: Launch(64, 64, 4, 3, 2, 0, 0), 128: Launch(64, 64, 4, 3, 2, 0, 0), 256: Launch(64, 32, 4, 3, 1, 0, 0)}
"""By the head size up to which they hold. FIXED: of everything, where a row's bits must not depend on its company."""

TILE = 512
"""Where keys are cut then: at its multiples."""
WIDE_KEYS, WIDE_STAGES, WIDE_ROWS_OF_A_WARP = 16, 2, 4
"""With fp32 in pools or queries: elements are twice as large, and tensor cores do not take them, so that the operands of a
product are in registers."""


@dataclass(frozen=True)
class Launches:
    """Of the small items of a plan, and of the large ones."""

    small: Launch
    large: Launch


def launches(spec: AttentionSpec, deterministic: bool) -> Launches:
    """For K, V and queries in two bytes. Pure."""
    least = padded(spec.num_heads // spec.num_kv_heads)

    def of(table: dict[int, Launch]) -> Launch:
        one = next(launch for head_dim, launch in table.items() if spec.head_dim <= head_dim)
        return replace(one, rows=max(one.rows, least), warps=8 if least >= 128 else one.warps)

    return Launches(of(FIXED), of(FIXED)) if deterministic else Launches(of(SMALL), of(LARGE))


def wide(launch: Launch) -> Launch:
    """The same blocks of rows for K, V or queries in four bytes. Pure."""
    warps = max(launch.warps, min(launch.rows // WIDE_ROWS_OF_A_WARP, 16))
    return replace(launch, keys=WIDE_KEYS, stages=min(launch.stages, WIDE_STAGES), warps=warps, open=False)


def cutting(
    spec: AttentionSpec, chosen: Launches, deterministic: bool, multiprocessors: int, kv_itemsize: int, costs: SharingCosts
) -> Cutting:
    """The rules by which work is cut for these launches on a device of so many multiprocessors. Pure."""
    group = spec.num_heads // spec.num_kv_heads

    def kind(launch: Launch) -> Kind:
        slots = max(1, multiprocessors * launch.per_processor // spec.num_kv_heads)
        return Kind(launch.rows // group, launch.keys, slots, launch.least, launch.overhead)

    small, large = kind(chosen.small), kind(chosen.large)
    if deterministic:
        small = replace(small, queries=0)
    tile = TILE if deterministic else None
    key_bytes = 2 * spec.num_kv_heads * spec.head_dim * kv_itemsize
    weighing = Weighing(key_bytes, spec.num_heads * spec.head_dim, large.queries, costs, tile or 1)
    return Cutting(small, large, weighing, spec.causal, spec.window, tile)


def padded(size: int) -> int:
    """The next power of two, at least 16, which is what a product on tensor cores takes. Pure."""
    return max(16, 1 << (size - 1).bit_length())


def refusal(spec: AttentionSpec) -> str | None:
    """Why this spec cannot be computed; None if it can."""
    if not 16 <= spec.head_dim <= 256 or spec.head_dim % 8:
        return f"head_dim {spec.head_dim} is not a multiple of 8 from 16 to 256"
    if spec.num_heads % spec.num_kv_heads or spec.num_heads // spec.num_kv_heads > MOST_GROUP:
        return f"{spec.num_heads} heads are not up to {MOST_GROUP} for each of {spec.num_kv_heads} KV heads"
    return None
