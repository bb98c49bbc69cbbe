"""How `select` decides: the three documented methods, on numbers small enough to check by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ramify as sgl
from ramify.runtime.choosing import RULES, greedy_pick, greedy_rows, mean


def decide(method, logprobs, alone=None):
    """The index of the choice that a method takes, and its meta info."""
    choices = [f"choice {i}" for i in range(len(logprobs))]
    decision = method(
        choices=choices,
        normalized_prompt_logprobs=[mean(row) for row in logprobs],
        input_token_logprobs=[[(lp, 7, "t") for lp in row] for row in logprobs],
        output_token_logprobs=[[] for _ in logprobs],
        unconditional_token_logprobs=None if alone is None else [[(lp, 7, "t") for lp in row] for row in alone],
    )
    return choices.index(decision.decision), decision.meta_info


def test_token_length_normalized_takes_the_highest_mean():
    assert decide(sgl.token_length_normalized, [[-1.0], [-0.1, -1.5], [-3.0, -0.1, -0.1]])[0] == 1


def test_token_length_normalized_falls_for_long_words_that_complete_themselves():
    """The documented weakness: later tokens of a long choice are certain, so its mean is high."""
    assert decide(sgl.token_length_normalized, [[-0.5], [-4.0, -0.01, -0.01, -0.01, -0.01, -0.01, -0.01, -0.01, -0.01]])[0] == 1


def test_greedy_takes_the_likeliest_first_token():
    assert decide(sgl.greedy_token_selection, [[-1.0, -0.1], [-0.9, -9.0]])[0] == 1


def test_greedy_extends_a_choice_that_another_continues_by_its_own_mean():
    assert greedy_rows([[-1.0], [-1.0, -0.5]]) == [[-1.0, -1.0], [-1.0, -0.5]]
    assert decide(sgl.greedy_token_selection, [[-1.0], [-1.0, -0.5]])[0] == 1
    assert decide(sgl.greedy_token_selection, [[-1.0], [-1.0, -1.5]])[0] == 0


def test_unconditional_takes_the_choice_that_the_prompt_helps_most():
    given_, alone = [[-1.0, -1.0], [-2.0, -2.0]], [[None, -1.0], [None, -4.0]]
    index, meta = decide(sgl.unconditional_likelihood_normalized, given_, alone)
    assert index == 1
    assert meta["normalized_unconditional_prompt_logprobs"] == [-0.5, 0.0]


def test_unconditional_needs_the_unconditional_logprobs():
    assert sgl.unconditional_likelihood_normalized.requires_unconditional_logprobs
    with pytest.raises(ValueError, match="without the prompt"):
        decide(sgl.unconditional_likelihood_normalized, [[-1.0]])


@given(st.lists(st.lists(st.floats(-20, 0), min_size=1, max_size=4), min_size=1, max_size=5))
def test_greedy_equals_sorting_by_the_extended_rows(rows):
    """Comparing position by position is comparing lists; of equals the first."""
    extended = greedy_rows(rows)
    assert greedy_pick(extended) == extended.index(max(extended))
    index, _ = decide(sgl.greedy_token_selection, rows)
    assert index == greedy_pick(extended)


@pytest.mark.parametrize(
    "method", [sgl.token_length_normalized, sgl.greedy_token_selection, sgl.unconditional_likelihood_normalized]
)
@given(data=st.data())
def test_a_methods_rule_takes_the_same_choice_as_the_method(method, data):
    """So the branch that the engine keeps is the one from which the program goes on."""
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    rows, alone = (
        [data.draw(st.lists(st.sampled_from([-3.0, -2.0, -0.5]), min_size=n, max_size=n)) for n in lengths] for _ in range(2)
    )
    unknown_first = [[None, *row[1:]] for row in alone]
    index, _ = decide(method, rows, unknown_first)
    assert RULES[method.rule](rows, [[0.0, *row[1:]] for row in alone]) == index
