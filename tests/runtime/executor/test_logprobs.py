"""Log-probabilities of a step against log_softmax in float64."""

import numpy as np
import pytest
import torch

from ramify.kernels.native import load
from ramify.kernels.sampling.draw import REFERENCE_SAMPLING
from ramify.kernels.sampling.interface import Sampling
from ramify.kernels.table import choose
from ramify.runtime.config import kernel_cache
from ramify.runtime.executor.logprobs import report
from ramify.runtime.plan import LOGPROB, SAMPLE, StepPlan


@pytest.fixture(params=["torch", "as chosen"])
def ops(request: pytest.FixtureRequest) -> Sampling:
    return REFERENCE_SAMPLING if request.param == "torch" else choose("cpu", torch.float32, load(kernel_cache())).sampling


def _plan(wants: list[dict]) -> StepPlan:
    """Wanted outputs with the fields that log-probabilities depend on."""

    def column(name: str) -> np.ndarray:
        return np.array([want.get(name, 0) for want in wants], np.int32)

    ids = [want.get("ids", []) for want in wants]
    return StepPlan(
        0,
        want_kind=column("kind"),
        want_top=column("top"),
        want_logprob=column("logprob"),
        want_ids=np.array([i for part in ids for i in part], np.int32),
        want_ids_ptr=np.cumsum([0, *map(len, ids)]).astype(np.int32),
    )


@pytest.mark.parametrize("at_once", [1 << 24, 1000])
def test_drawn_given_and_most_likely_ids_have_the_values_of_log_softmax(ops: Sampling, at_once: int) -> None:
    logits = torch.randn(4, 500) * 5
    wants = [
        {"kind": SAMPLE, "logprob": 1, "top": 3, "ids": [7]},
        {"kind": LOGPROB, "ids": [1, 2, 499], "top": 2},
        {"kind": SAMPLE},
        {"kind": LOGPROB, "ids": [5]},
        {"kind": SAMPLE, "top": 500},
    ]
    which, tokens = np.array([2, 0, 1, 0, 3]), torch.tensor([9, -1, 4, -1, 0])
    found = report(logits, which, _plan(wants), tokens, ops, values_at_once=at_once)
    assert found is not None
    expected = logits.double().log_softmax(-1)
    assert torch.allclose(found.drawn.double(), torch.tensor([expected[2, 9], 0, 0, 0, 0]), atol=1e-6)
    assert torch.allclose(found.ids.double(), expected[[2, 0, 0, 0, 0], [7, 1, 2, 499, 5]], atol=1e-6)
    tops = [expected[row].topk(k) for row, k in ((2, 3), (0, 2), (3, 500))]
    assert torch.allclose(found.top.double(), torch.cat([top.values for top in tops]), atol=1e-6)
    assert found.top_ids.tolist() == torch.cat([top.indices for top in tops]).tolist()
    assert not found.bad.any()


def test_a_step_that_wants_none_computes_none(ops: Sampling) -> None:
    assert report(torch.randn(2, 9), np.array([0, 1]), _plan([{"kind": SAMPLE}] * 2), torch.tensor([1, 2]), ops) is None


def test_the_first_of_the_most_likely_is_the_greedy_token_also_among_equals(ops: Sampling) -> None:
    logits = torch.zeros(1, 300)
    logits[0, [50, 60, 70]] = 1.0
    found = report(logits, np.array([0]), _plan([{"kind": LOGPROB, "top": 2}]), torch.tensor([-1]), ops)
    assert found is not None and found.top_ids.tolist() == [50, 60]


def test_a_rows_values_have_the_same_bits_alone_and_among_others(ops: Sampling) -> None:
    logits = torch.randn(40, 777) * 4
    wants = [{"kind": LOGPROB, "ids": [3, 700], "top": 5}] * 40
    together = report(logits, np.arange(40), _plan(wants), torch.full((40,), -1), ops)
    assert together is not None
    for row in range(40):
        alone = report(logits[row : row + 1], np.array([0]), _plan(wants[:1]), torch.tensor([-1]), ops)
        assert alone is not None
        assert torch.equal(alone.ids, together.ids[2 * row : 2 * row + 2])
        assert torch.equal(alone.top, together.top[5 * row : 5 * row + 5])


def test_a_row_that_is_not_numbers_is_bad_and_the_others_are_not(ops: Sampling) -> None:
    logits = torch.randn(3, 50)
    logits[1, 4] = float("nan")
    found = report(logits, np.arange(3), _plan([{"kind": LOGPROB, "ids": [0]}] * 3), torch.full((3,), -1), ops)
    assert found is not None and found.bad.tolist() == [False, True, False]
    assert torch.isfinite(found.ids[[0, 2]]).all()
