"""The bytes of K and V: one pool of pages for all layers. Everyone else holds page numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.kv.interface import KVCopyPages
from ...kernels.upload import upload
from ..errors import InvalidRequest
from ..models.decoder import KVSpec
from ..plan import Int32


class KVPool:
    """K and V of every layer: `KVSpec.pool_shape` each, slot = page * page_size + offset.

    Contents are undefined until written. On the CPU memory is taken page by page as slots are first written, so a pool may
    be sized for the worst case. Behind the last page is one that no sequence ever has: `spare_slot` is where rows write that
    only fill up a batch. Raises InvalidRequest if the address space or the device has no room for the pool.
    """

    def __init__(self, spec: KVSpec, *, num_pages: int, page_size: int, device: torch.device, copy: KVCopyPages):
        self.spec, self.num_pages, self.page_size, self.device = spec, num_pages, page_size, device
        self.spare_slot = num_pages * page_size
        self._copy = copy
        shape = spec.pool_shape(self.spare_slot + page_size)
        try:
            self._layers = [
                (torch.empty(shape, dtype=spec.dtype, device=device), torch.empty(shape, dtype=spec.dtype, device=device))
                for _ in range(spec.num_layers)
            ]
        except (RuntimeError, MemoryError) as error:
            raise InvalidRequest(
                f"A KV pool of {num_pages * page_size} tokens needs {self.num_bytes} bytes, and {device} does not have them. "
                "Give a smaller kv_tokens or mem_fraction.",
                param="kv_tokens",
            ) from error

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole pool when all of it is in use."""
        return self.num_pages * self.page_size * self.spec.bytes_per_token

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """The pools of K and V of a layer, to be read and written in place."""
        return self._layers[number]

    def copy_pages(self, source: Int32, target: Int32) -> None:
        """Copies whole pages, source[i] to target[i], in every layer. No page may be both. Changes the pool."""
        if not len(source):
            return
        sources, targets = upload([source.astype("int64"), target.astype("int64")], self.device)
        for pool in (tensor for layer in self._layers for tensor in layer):
            self._copy(pool, sources, targets, self.page_size)
