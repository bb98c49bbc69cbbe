"""The bits of a batch: which tokens each row may take next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .matcher import MaskFiller, Matcher


class Masks:
    """Fills masks for batches of rows over a vocabulary of `size` logits."""

    def __init__(self, size: int):
        self.size = size
        self.words = (size + 31) // 32

    def fill(self, matchers: Sequence[Matcher | None]) -> NDArray[np.int32] | None:
        """The mask of one step: int32 [len(matchers), ceil(size / 32)], bit t % 32 of word t // 32 is 1 when token t is allowed.

        A row without matcher is all ones, and so may be the bits past `size`; None when no row has a matcher. A terminated
        matcher allows every token: its sequence is over. The matchers do not change. The
        array is the caller's own.
        """
        groups: dict[int, tuple[MaskFiller, list[Matcher], list[int]]] = {}
        for row, matcher in enumerate(matchers):
            if matcher is not None and not matcher.is_terminated:
                _, members, rows = groups.setdefault(id(matcher.filler), (matcher.filler, [], []))
                members.append(matcher)
                rows.append(row)
        if all(matcher is None for matcher in matchers):
            return None
        mask = np.full((len(matchers), self.words), -1, dtype=np.int32)
        for filler, members, rows in groups.values():
            filler.fill(members, mask, rows)
        return mask


    def fill_tree(
        self, matcher: Matcher, tokens: Sequence[int], parents: Sequence[int]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Masks of a tree of drafted tokens. tokens[i] follows tokens[parents[i]], and -1 stands for where `matcher` is;
        a parent comes before its children.

        Returns the masks, int32 [1 + len(tokens), words], of the matcher's own place and of the place behind each token, and
        which tokens the grammar allows where they are, bool [len(tokens)]: behind one that it does not, the row is 0. `matcher`
        does not change. Raises ValueError for a parent that does not come before its child.
        """
        places: list[Matcher | None] = [matcher]
        for at, (token, parent) in enumerate(zip(tokens, parents, strict=True)):
            if not -1 <= parent < at:
                raise ValueError(f"drafted token {at} has parent {parent}; a parent comes before its children")
            place = places[parent + 1]
            ahead = None if place is None else place.fork()
            places.append(ahead if ahead is not None and ahead.accept(token) else None)
        allowed = np.array([place is not None for place in places], np.bool_)
        masks = np.zeros((len(places), self.words), np.int32)
        filled = self.fill([place for place in places if place is not None])
        assert filled is not None
        masks[allowed] = filled
        return masks, allowed[1:]


def allows(mask_row: NDArray[np.int32], token: int) -> bool:
    """True when `token` is allowed in one row of a mask."""
    return bool((int(mask_row[token >> 5]) >> (token & 31)) & 1)


def allowed_tokens(mask_row: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """The ids below `size` that one row of a mask allows, ascending."""
    bits = np.unpackbits(np.ascontiguousarray(mask_row, dtype="<i4").view(np.uint8), bitorder="little")
    return np.flatnonzero(bits[:size])
