"""What reading together costs is found from times, or not at all; and it changes no bit."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from attention_harness import SPECS
from test_attention_tree import make_step

from ramify.kernels import native
from ramify.kernels.attention.calibrate import DECODES, JOINING_BYTES, PIECE_BYTES, Sample, agreed, calibrate, fit, samples, step
from ramify.kernels.attention.costs import DEFAULT_COSTS, SharingCosts
from ramify.kernels.attention.interface import AttentionSpec
from ramify.kernels.attention.native import NativeAttention, bytes_read
from ramify.runtime.config import kernel_cache

LOADED = native.load(kernel_cache())
needs_native = pytest.mark.skipif(not LOADED.available, reason=LOADED.reason)
SPEC = AttentionSpec(14, 2, 64, 0.125)


def times(piece_s: float, number_s: float, byte_s: float, noise: float = 0.0) -> list[Sample]:
    """Of a machine with these costs."""
    draw, key_bytes = Random(0), 512
    made = []
    for rows, keys in DECODES:
        numbers, saved = rows * 14 * 64, (rows - 1) * keys * key_bytes
        made.append(Sample(numbers, saved, piece_s + number_s * numbers - saved * byte_s + draw.gauss(0, noise)))
    return made


@pytest.mark.parametrize(("piece", "joining"), [(8192, 16), (2048, 100), (100_000, 4)])
def test_the_costs_of_a_quiet_machine_are_found(piece: int, joining: int) -> None:
    rate = 20e9
    found = fit(times(piece / rate, joining / rate, 1 / rate))
    assert found is not None and abs(found.piece_bytes - piece) < 2 and abs(found.joining_bytes - joining) <= 1


def test_what_cannot_be_is_brought_to_the_border() -> None:
    assert fit(times(-1e-6, 1e-15, 1e-10)) == SharingCosts(PIECE_BYTES[0], JOINING_BYTES[0])
    assert fit(times(1.0, 1e-6, 1e-10)) == SharingCosts(PIECE_BYTES[1], JOINING_BYTES[1])


def test_a_rate_that_no_memory_has_says_nothing() -> None:
    assert fit(times(1e-6, 1e-10, -1e-10)) is None
    assert fit(times(1e-6, 1e-10, 1e-6)) is None


def test_halves_that_disagree_say_nothing() -> None:
    one, other = times(1e-6, 1e-9, 5e-11), times(1e-6, 4e-9, 5e-11)
    assert agreed(one, one, one) == fit(one)
    assert agreed(one, other, one) is None and agreed(other, one, one) is None
    assert agreed(one, times(1e-6, 1e-9, -1.0), one) is None


def test_the_shortest_of_each_counts() -> None:
    measured = np.full((5, len(DECODES), 2), 9.0)
    measured[3, :, 0], measured[1, :, 1] = 2.0, 0.5
    found = samples(SPEC, torch.bfloat16, measured)
    assert [one.seconds for one in found] == [1.5] * len(DECODES)
    assert found[0].numbers == 2 * 14 * 64 and found[0].saved == 64 * 512


def test_the_made_up_rows_share_what_they_are_said_to_share() -> None:
    index, used = step(4, 10)
    table = index.page_table
    assert (table[:, :10] == table[0, :10]).all() and len(table[:, 10:].unique()) == table[:, 10:].numel()
    assert int(table.max()) == used - 1 and index.start[0] + 1 == table.shape[1]


@needs_native
@pytest.mark.parametrize("kv_dtype", [torch.bfloat16, torch.int8])
def test_a_measurement_is_short_believable_and_leaves_the_threads_as_they_were(kv_dtype: torch.dtype) -> None:
    before = torch.get_num_threads()
    costs, line = calibrate(SPECS["seven heads a group"], torch.bfloat16, kv_dtype)
    assert torch.get_num_threads() == before and "to read together costs" in line
    assert costs == DEFAULT_COSTS or (
        PIECE_BYTES[0] <= costs.piece_bytes <= PIECE_BYTES[1] and JOINING_BYTES[0] <= costs.joining_bytes <= JOINING_BYTES[1]
    )


@needs_native
def test_costs_decide_what_is_read_together_and_change_no_bit() -> None:
    spec = SPECS["seven heads a group"]
    paths = [[(0, 300), (row // 2, 40), (row, 9)] for row in range(6)]
    for dtype in (torch.float32, torch.bfloat16):
        made = make_step(spec, paths, [1] * 6, dtype)
        results, read = [], []
        for costs in (SharingCosts(1, 1), DEFAULT_COSTS, SharingCosts(1 << 40, 1 << 20)):
            before = bytes_read()
            results.append(made.run(NativeAttention(spec, costs=costs), made.sharing))
            read.append(bytes_read() - before)
        assert all(torch.equal(results[0], other) for other in results[1:])
        assert read[0] < read[2] and read[0] <= read[1] <= read[2]
