"""In which order waiting sequences are admitted: pure keys, and the table of policies.

`prefix` is depth-first order over the tree that the waiting prompts form: the lexicographic order of their ids *is* that
order, so it is kept by bisection, and neighbours share the longest prefixes. (SGLang, Zheng et al. 2024, section 3.2,
shows that depth-first order reaches the optimal hit rate when the cache holds the longest request.)
"""

from __future__ import annotations

from .sequence import Sequence


def prefix_key(sequence: Sequence) -> tuple:
    """Depth-first: tenant, then ids compared as big-endian unsigned integers, then arrival."""
    space = sequence.namespace
    return (space.tenant, space.adapter, space.weights, sequence.ids.astype(">u4", copy=False).tobytes(), sequence.arrival)


def fcfs_key(sequence: Sequence) -> tuple:
    """By arrival."""
    return (sequence.arrival,)


def priority_key(sequence: Sequence) -> tuple:
    """Highest priority first, then by arrival."""
    return (-sequence.priority, sequence.arrival)


KEYS = {"prefix": prefix_key, "fcfs": fcfs_key, "priority": priority_key}


def overdue(admissions_since: int, ahead_at_arrival: int, patience: int) -> bool:
    """Ageing: whoever was overtaken by `patience` others goes first, so nothing starves at any queue length.

    Under first come, first served it would have been admitted after `ahead_at_arrival` others.
    """
    return admissions_since >= ahead_at_arrival + patience
