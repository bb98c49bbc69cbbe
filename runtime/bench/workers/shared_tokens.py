"""Which tokens of several sequences are decoded once for all that share them. Pure, and of no library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Entry:
    """One token to decode: for which sequences, and whether its logits are wanted."""

    token: int
    position: int
    sequences: list[int]
    wanted: bool = False


def merged(tails: list[list[int]], begins: list[int], *, share: bool) -> tuple[list[Entry], list[list[int]]]:
    """Entries for what sequence i still needs (tails[i], from position begins[i] on), a token with the same past in several
    sequences once; and for each sequence the numbers of its entries in order. An entry stands behind those that it sees."""
    entries: list[Entry] = []
    paths: list[list[int]] = []
    seen: dict[tuple[int, int], int] = {}
    for sequence, (tail, begin) in enumerate(zip(tails, begins, strict=True)):
        past, path = -1, []
        for offset, token in enumerate(tail):
            number = seen.get((past, token), -1) if share else -1
            if number >= 0:
                entries[number].sequences.append(sequence)
            else:
                number = len(entries)
                entries.append(Entry(token, begin + offset, [sequence]))
                seen[past, token] = number
            path.append(number)
            past = number
        paths.append(path)
    return entries, paths
