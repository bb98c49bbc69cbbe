"""Quantised linear layers in plain torch: the oracle of `quantized`, bit for bit, and the choice where there is no compiler.

    q_w, scale_w   by group of a row of the weight, once; the scale with the least sum of squares of those that are tried
    q_x, scale_x   by group of a row of x, in each call: 8 bits, largest value / 127
    y            = bias + sum over groups, in order, of (sum of q_w q_x) * (scale_w * scale_x)

The inner sum is exact. Everything else is rounded to fp32 after each operation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .formats import Format
from .interface import Rows

_LANES = 16
_SMALLEST = 1e-30
"""A group without a larger number is zeros."""


class QuantizedTorchLinear:
    """y = x W^T + b. Holds a byte for each weight. x, bias: fp32 or bf16."""

    def __init__(self, weight: Tensor, bias: Tensor | None, form: Format):
        self.out_features, self.in_features = weight.shape
        self.form = form
        self.bias = bias
        self.q, self.scales = quantize_weight(weight, form)
        self._dtype = weight.dtype

    def __call__(self, x: Tensor) -> Tensor:
        q, scales = quantize_rows(x, self.form.group)
        total = torch.zeros(x.shape[0], self.out_features)
        for group in range(q.shape[1]):
            exact = (q[:, group].double() @ self.q[:, group].double().T).float()
            total += exact * (scales[:, group, None] * self.scales[:, group])
        return (total if self.bias is None else total + self.bias.float()).to(x.dtype)

    def rows_of(self, weight: Tensor) -> Rows:
        """See `Linear.rows_of`: rows of what became of the weight."""

        def rows(ids: Tensor) -> Tensor:
            if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.out_features:
                raise IndexError(f"row out of range: the weight has {self.out_features} rows")
            whole = (self.q[ids].float() * self.scales[ids, :, None]).flatten(1)
            return whole[:, : self.in_features].to(self._dtype)

        return rows


def quantize_rows(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """x: [rows, columns]. Returns q, int8 [rows, groups, group], and scales, fp32 [rows, groups]; x is about q * scale."""
    x = _groups(x, group)
    largest = x.abs().amax(-1)
    fine = largest.isfinite() & (largest > _SMALLEST)
    inverse = torch.where(fine, torch.tensor(127.0) / largest, 0.0)  # a number / a tensor would be rounded twice
    q = torch.where(fine[..., None], x * inverse[..., None], 0.0).clamp(-127, 127).round().to(torch.int8)
    return q, torch.where(fine, largest / 127.0, _nothing(largest))


def quantize_weight(weight: Tensor, form: Format) -> tuple[Tensor, Tensor]:
    """weight: [outputs, columns]. Returns q, int8 [outputs, groups, group], and scales, fp32 [outputs, groups]."""
    w = _groups(weight, form.group)
    largest = w.abs().amax(-1)
    fine = largest.isfinite() & (largest > _SMALLEST)
    w = torch.where(fine[..., None], w, 1.0)
    top = torch.where(fine, largest, 1.0)
    best = _Best(w, form)
    nearest, steps = (126.75, 6) if form.bits == 8 else (5.5, 13)
    for step in range(steps):
        best.attempt(-top / (nearest + 0.25 * step))
        best.attempt(top / (nearest + 0.25 * step))
    best.attempt(best.better)
    best.attempt(best.better)
    q = torch.where(fine[..., None], best.q, 0.0).to(torch.int8)
    return q, torch.where(fine, best.scale, _nothing(largest))


class _Best:
    """For each group, the scale that was the best so far."""

    def __init__(self, w: Tensor, form: Format):
        self._w, self._lowest = w, form.lowest
        self.error = torch.full(w.shape[:-1], torch.inf)
        self.scale, self.better, self.q = torch.zeros_like(self.error), torch.zeros_like(self.error), torch.zeros_like(w)

    def attempt(self, scale: Tensor) -> None:
        """Takes the scale, as bf16, where it is better than the best; finds out which would be the best for these q."""
        w = self._w
        scale = scale.bfloat16().float()
        q = (w * (1.0 / scale)[..., None]).clamp(self._lowest, -1 - self._lowest).round()
        error = _sum((w - scale[..., None] * q).square())
        taken = error < self.error
        better = _sum(w * q) / _sum(q * q)
        self.error = torch.where(taken, error, self.error)
        self.scale, self.better = torch.where(taken, scale, self.scale), torch.where(taken, better, self.better)
        self.q = torch.where(taken[..., None], q, self.q)


def _groups(table: Tensor, group: int) -> Tensor:
    """[rows, columns] -> fp32 [rows, groups, group], filled up with zeros."""
    return F.pad(table.float(), (0, -table.shape[1] % group)).unflatten(1, (-1, group))


def _nothing(largest: Tensor) -> Tensor:
    """The scale of a group without numbers to scale: 0, or NaN where one of them is not finite."""
    return torch.where(largest.isfinite(), 0.0, torch.nan)


def _sum(parts: Tensor) -> Tensor:
    """Over the last dimension, in the order of the kernels: 16 lanes, each from first to last, then halves on halves."""
    lanes = parts.unflatten(-1, (-1, _LANES)).unbind(-2)
    total = lanes[0] + 0.0
    for lane in lanes[1:]:
        total = total + lane
    while total.shape[-1] > 1:
        half = total.shape[-1] // 2
        total = total[..., :half] + total[..., half:]
    return total.squeeze(-1)
