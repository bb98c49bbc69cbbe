"""What the C++ needs to know of a linear layer to multiply with it where no Python runs (`kernels/layers`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Bf16Product:
    """packed: int32 [blocks of 64 outputs, pairs of columns, 64], see `rows`; valid while the layer lives. chain: see `few_rows`.

    most_rows: of x, above which another implementation has the layer's rows; None: all are the C++'s.
    """

    packed: Tensor
    bias: Tensor | None
    columns: int
    outputs: int
    chain: int
    most_rows: int | None


@dataclass(frozen=True)
class QuantizedProduct:
    """blocks: uint8 [bytes], see `linear.h`, in `bits` bits, a scale each `group` columns. level: of `quantized.LEVELS`."""

    blocks: Tensor
    bias: Tensor | None
    columns: int
    outputs: int
    bits: int
    group: int
    level: int
    most_rows: None = None


Product = Bf16Product | QuantizedProduct


@runtime_checkable
class HasProduct(Protocol):
    """A linear layer whose product the C++ computes."""

    def product(self) -> Product:
        """The same bits as the layer's own call, for up to `most_rows` rows. Changes nothing."""
        ...
