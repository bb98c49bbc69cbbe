"""Linear layers: a weight that was packed once, and rows that do not influence each other."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Rows(Protocol):
    """A matrix [rows, columns] whose rows are read by their number."""

    def __call__(self, ids: Tensor) -> Tensor:
        """ids: int64 [n]. Returns [n, columns]. An id that has no row raises IndexError on the CPU."""
        ...


class Linear(Protocol):
    """y = x W^T + b. A row's bits do not depend on how many rows come with it, nor on its place among them."""

    in_features: int
    out_features: int

    def __call__(self, x: Tensor) -> Tensor:
        """x: [rows, in_features], any number of rows. Returns [rows, out_features] in x's dtype."""
        ...

    def rows_of(self, weight: Tensor) -> Rows | None:
        """Reads rows of the weight that this layer was made of, out of the layer's own memory; None if it cannot.

        weight: that weight, to compare with. What is returned does not need it.
        """
        ...


class MakeLinear(Protocol):
    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """weight: [out_features, in_features]. The packed form is a copy: drop the raw weight afterwards.

        An implementation that does not pack keeps the weight that it is given.
        """
        ...
