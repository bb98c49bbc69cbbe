"""The formats of quantised weights: whole numbers with a scale for each group of columns of a row, symmetric around 0."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """w = scale * q with q in `bits` bits; `group` columns share a scale, which is a bf16 number."""

    name: str
    bits: int
    group: int

    @property
    def bits_a_weight(self) -> float:
        """With its share of the scale."""
        return self.bits + 16 / self.group

    @property
    def lowest(self) -> int:
        """The smallest q; the largest is -1 - lowest."""
        return -(1 << self.bits - 1)


FORMATS = {made.name: made for made in (Format("int8", 8, 64), Format("int4", 4, 32))}
