"""Checkpoint -> `Decoder`: each tensor streams from its shard to its place and dtype, or is drawn there at random; a layer is
packed when it is complete.

At any time there are in memory: what is finished, the parts of the few layers that are not complete yet, and one shard (mapped).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ...kernels.attention.costs import DEFAULT_COSTS, SharingCosts
from ...kernels.gemm.interface import Linear, Rows
from ...kernels.gemm.rows import TableRows
from ...kernels.native import NONE, Native
from ...kernels.table import Kernels, choose
from .check import check_checkpoint
from .checkpoint import Checkpoint, listed
from .config import ModelConfig
from .decoder import Decoder
from .spec import Parameter, Part, parameters

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, after each tensor."""


def load_decoder(
    folder: Path,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    load_format: str = "auto",
    quantization: str | None = None,
    kv_dtype: torch.dtype | None = None,
    costs: SharingCosts = DEFAULT_COSTS,
    tokenizer_size: int | None = None,
    max_positions: int | None = None,
    progress: Progress | None = None,
    native: Native = NONE,
    deterministic: bool = False,
) -> Decoder:
    """Loads a checkpoint folder (see `checkpoint.resolve_checkpoint`) for inference in `dtype` (float32 or bfloat16).

    load_format: dummy draws the weights at random on the device; the folder then needs none.
    quantization: int8 | int4, of linear layers, each as soon as it is complete. tokenizer_size: number of ids that the tokenizer
    knows, checked against the embedding. max_positions: length of the rotary table, by default and at most the model's context.
    native: the C++ kernels that were loaded. kv_dtype, costs and deterministic: see `kernels.table.choose`.
    Raises ModelError for anything wrong with the checkpoint, before weights are read.
    """
    config, checkpoint = check_checkpoint(folder, tokenizer_size, load_format=load_format)
    longest = min(max_positions or config.max_positions, config.max_positions)
    kernels = choose(
        device,
        dtype,
        native,
        quantization,
        kv_dtype=kv_dtype,
        costs=costs,
        deterministic=deterministic,
        max_positions=longest,
    )
    with torch.inference_mode():
        loaded = Assembly(parameters(config), kernels)
        if load_format == "dummy":
            kernels.reasons.append("weights: drawn at random (load_format dummy)")
            draw(checkpoint, loaded, kernels.device, dtype, progress)
        else:
            stream(checkpoint, loaded, progress)
        return loaded.decoder(config, max_positions=longest)


class Assembly:
    """Collects the parts of each parameter in any order; a complete one becomes a tensor or a packed linear at once."""

    def __init__(self, wanted: list[Parameter], kernels: Kernels):
        self.tensors: dict[str, Tensor] = {}
        self.linears: dict[str, Linear] = {}
        self.embedding: Rows | None = None
        self._kernels = kernels
        self._user = {part.name: parameter for parameter in wanted for part in (*parameter.weights, *parameter.biases)}
        self._held: dict[str, dict[str, Tensor]] = {parameter.target: {} for parameter in wanted}

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes one tensor of the checkpoint, which may be a view of a mapped file. Unknown names are passed over."""
        parameter = self._user.get(name)
        if parameter is None:
            return
        self._put(parameter, name, tensor)
        if all(part.name in self._held[parameter.target] for part in (*parameter.weights, *parameter.biases)):
            self._finish(parameter, self._held.pop(parameter.target))

    def decoder(self, config: ModelConfig, *, max_positions: int) -> Decoder:
        """The decoder of these weights, when all of them have been added. max_positions: length of the rotary table."""
        assert self.embedding is not None and not self._held, f"not added: {listed(list(self._held))}"
        return Decoder(
            config,
            self._kernels,
            embedding=self.embedding,
            tensors=self.tensors,
            linears=self.linears,
            max_positions=max_positions,
        )

    def _put(self, parameter: Parameter, name: str, tensor: Tensor) -> None:
        """Copies a part into its rows of the parameter's buffer; a weight that is the whole layer may need no copy."""
        held = self._held[parameter.target]
        whole = parameter.linear and len(parameter.weights) == 1 and not parameter.biases
        if whole and tensor.dtype == self._kernels.dtype and self._kernels.packs:
            held[name] = tensor
            return
        group = parameter.weights if any(part.name == name for part in parameter.weights) else parameter.biases
        buffer = next((held[part.name] for part in group if part.name in held), None)
        if buffer is None:
            rows = sum(part.shape[0] for part in group)
            buffer = _buffer((rows, *group[0].shape[1:]), self._kernels.dtype, self._kernels.device)
        first = _first_row(group, name)
        buffer[first : first + tensor.shape[0]].copy_(tensor)
        held[name] = buffer

    def _finish(self, parameter: Parameter, held: dict[str, Tensor]) -> None:
        weight = held[parameter.weights[0].name]
        if parameter.linear:
            bias = held[parameter.biases[0].name] if parameter.biases else None
            linear = self.linears[parameter.target] = self._kernels.linear(weight, bias)
            if parameter.embeds:
                self.embedding = linear.rows_of(weight) or self._table(weight)
        elif parameter.embeds:
            self.embedding = TableRows(weight)
        else:
            self.tensors[parameter.target] = weight

    def _table(self, weight: Tensor) -> Rows:
        """A copy of the embedding, for a head that cannot read its rows; the weight may be a view of a mapped file."""
        self._kernels.reasons.append("embedding: kept beside the head, whose packed weight cannot be read row by row here")
        copy = _buffer(tuple(weight.shape), self._kernels.dtype, self._kernels.device)
        return TableRows(copy.copy_(weight))


def _buffer(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor; on the CPU in pages of its own, which go back to the system at once when it is dropped.

    From malloc, the buffers that layers are assembled in would leave holes between the packed weights: a tenth of the model.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    size = torch.Size(shape).numel() * dtype.itemsize
    return torch.frombuffer(mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS), dtype=dtype).view(shape)


def _first_row(group: tuple[Part, ...], name: str) -> int:
    row = 0
    for part in group:
        if part.name == name:
            return row
        row += part.shape[0]
    raise AssertionError(f"{name} is not a part of this group")


def stream(checkpoint: Checkpoint, assembly: Assembly, progress: Progress | None) -> None:
    """Gives every tensor of the checkpoint to the assembly, shard by shard."""
    total = sum(shard.stat().st_size for shard in checkpoint.shards)
    done = 0
    for shard in checkpoint.shards:
        for name, tensor in _tensors(shard):
            assembly.add(name, tensor)
            done += tensor.numel() * tensor.element_size()
            if progress is not None:
                progress(done, total)
    if progress is not None:
        progress(total, total)


def draw(
    checkpoint: Checkpoint, assembly: Assembly, device: torch.device, dtype: torch.dtype, progress: Progress | None
) -> None:
    """Gives the assembly random tensors in place of the checkpoint's: normal with a deviation of 0.02, norms around 1. Each is
    drawn on the device from a seed of its own name: the same on every start there, and not the same on another device."""
    total = sum(torch.Size(entry.shape).numel() for entry in checkpoint.tensors.values()) * dtype.itemsize
    done = 0
    for name, entry in checkpoint.tensors.items():
        generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
        tensor = torch.empty(entry.shape, dtype=dtype, device=device).normal_(0.0, 0.02, generator=generator)
        assembly.add(name, tensor.add_(1.0) if "norm" in name else tensor)
        done += tensor.numel() * dtype.itemsize
        if progress is not None:
            progress(done, total)


def _tensors(shard: Path) -> Iterator[tuple[str, Tensor]]:
    """The shard's tensors one by one, as views of the mapped file, which is unmapped at the end."""
    with safe_open(shard, framework="pt") as file:
        for name in file.keys():
            yield name, file.get_tensor(name)
