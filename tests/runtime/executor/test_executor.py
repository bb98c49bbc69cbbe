"""The executor over a real small model: transformers as the oracle, and equality of all ways to compute the same thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from executor_steps import Steps, Want

from ramify.runtime.plan import LOGPROB, RowEntry, StepFailed, StepPlan

DTYPES = ("float32", "bfloat16")


def _prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(2, 200, length).tolist()


@pytest.fixture(scope="module")
def oracle(checkpoint: Path) -> Any:
    """The same checkpoint in transformers, fp32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()


def _oracle_tokens(oracle: Any, prompt: list[int], count: int, **options: Any) -> list[int]:
    ids = torch.tensor([prompt])
    options = {"eos_token_id": None, "pad_token_id": 0, **options}
    out = oracle.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, **options)
    return out[0, len(prompt) :].tolist()


def test_greedy_tokens_are_those_of_transformers(steps: Callable, oracle: Any) -> None:
    prompt = _prompt(30)
    assert steps().generate(0, prompt, 24) == _oracle_tokens(oracle, prompt, 24)


def test_the_repetition_penalty_is_that_of_transformers(steps: Callable, oracle: Any) -> None:
    prompt = _prompt(30)
    history = np.array(prompt, np.int32)
    tokens = steps().generate(4, prompt, 24, repetition_penalty=1.7, history=history, num_prompt=30)
    assert tokens == _oracle_tokens(oracle, prompt, 24, repetition_penalty=1.7)
    assert tokens != _oracle_tokens(oracle, prompt, 24)


def test_stop_ids_wait_for_the_minimum_length_as_in_transformers(steps: Callable, oracle: Any) -> None:
    prompt = _prompt(30)
    first = _oracle_tokens(oracle, prompt, 1)[0]
    tokens = steps().generate(0, prompt, 10, stop_ids=(first,), min_new_tokens=6)
    assert tokens[:6] == _oracle_tokens(oracle, prompt, 6, eos_token_id=first, min_new_tokens=6)
    assert first not in tokens[:6]


def test_scored_logprobs_are_log_softmax_of_the_models_logits(steps: Callable, oracle: Any) -> None:
    ids = _prompt(25)
    with torch.inference_mode():
        expected = oracle(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
    run = steps()
    run.enter(0)
    wants = [Want(0, i, kind=LOGPROB, ids=(ids[i + 1], 5), top=3) for i in range(24)]
    wants.append(Want(0, 24, logprob=1))
    found = run.run([(0, 0, ids)], wants)
    pairs = np.array([[expected[i, ids[i + 1]], expected[i, 5]] for i in range(24)])
    assert np.abs(found.id_logprobs.reshape(24, 2) - pairs).max() < 1e-4
    assert np.abs(found.top_logprobs.reshape(24, 3) - np.sort(expected[:24])[:, :-4:-1]).max() < 1e-4
    assert found.top_ids.reshape(24, 3)[:, 0].tolist() == expected[:24].argmax(-1).tolist()
    assert found.tokens.tolist() == [-1] * 24 + [expected[24].argmax()]
    assert found.logprobs[:24].tolist() == [0] * 24 and abs(found.logprobs[24] - expected[24].max()) < 1e-4


def _last(run: Steps, spans: list[tuple[int, int, list[int]]], wanted: int) -> tuple[list[int], list[float]]:
    """The eight most likely ids, with their bits, after the last token of one of the spans."""
    found = run.run(spans, [Want(wanted, len(spans[wanted][2]) - 1, kind=LOGPROB, top=8)])
    return found.top_ids.tolist(), found.top_logprobs.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_chunked_batched_and_paged_otherwise_give_the_same_bits(steps: Callable, dtype: str) -> None:
    ids = _prompt(150)
    run = steps(dtype, 1)
    run.enter(0)
    whole = _last(run, [(0, 0, ids)], 0)
    assert all(np.isfinite(whole[1]))
    for page_size in (1, 16):
        for chunk in (1, 7, 64):
            run = steps(dtype, page_size)
            run.enter(0)
            cut = 120 if chunk == 1 else 0  # the first 120 at once, then token by token
            starts = [*([0] if cut else []), *range(cut, len(ids), chunk)]
            spans = [(0, start, ids[start:end]) for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)]
            for span in spans[:-1]:
                run.run([span], [])
            assert _last(run, spans[-1:], 0) == whole
        run = steps(dtype, page_size)
        others = [(row, 0, _prompt(5 + 9 * row, seed=row)) for row in range(1, 7)]
        for row in range(7):
            run.enter(row)
        assert _last(run, [*others[:3], (0, 0, ids), *others[3:]], 3) == whole


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoding_in_a_batch_gives_the_tokens_of_decoding_alone(steps: Callable, dtype: str) -> None:
    prompts = [_prompt(3 + 5 * row, seed=row) for row in range(12)]
    params = [{"temperature": 0.0 if row % 2 else 0.9, "top_p": 0.9, "seed": row} for row in range(12)]
    alone = [steps(dtype).generate(row, prompt, 12, **params[row]) for row, prompt in enumerate(prompts)]
    run = steps(dtype, 16)
    for row in range(12):
        run.enter(row, **params[row])
    columns = [
        run.run(
            [(row, 0, prompt) for row, prompt in enumerate(prompts)],
            [Want(row, len(prompt) - 1) for row, prompt in enumerate(prompts)],
        ).tokens.tolist()
    ]
    for i in range(1, 12):
        spans = [(row, len(prompt) + i - 1, [-1]) for row, prompt in enumerate(prompts)]
        columns.append(run.run(spans, [Want(row, 0, position=i) for row in range(12)]).tokens.tolist())
    assert [list(column) for column in zip(*columns, strict=True)] == alone


def test_several_rows_draw_from_one_logits_row_as_if_each_had_its_own(steps: Callable) -> None:
    prompt = _prompt(20)
    params = [{"temperature": 2.0, "seed": 5, "sample_index": row} for row in range(6)]
    run = steps()
    for row in range(6):
        run.enter(row, **params[row])
    found = run.run([(0, 0, prompt)], [Want(0, 19, row=row, logprob=1) for row in range(6)])
    assert len(set(found.tokens.tolist())) > 1
    for row in range(6):
        single = steps()
        single.enter(row, **params[row])
        own = single.run([(row, 0, prompt)], [Want(0, 19, logprob=1)])
        assert (own.tokens[0], own.logprobs[0]) == (found.tokens[row], found.logprobs[row])


def test_tokens_that_only_the_device_knows_are_the_ones_it_drew(steps: Callable) -> None:
    prompt = _prompt(12)
    run = steps()
    tokens = run.generate(0, prompt, 8)
    told = steps()
    told.enter(0)
    again = told.run([(0, 0, prompt)], [Want(0, 11)]).tokens.tolist()
    for i in range(7):
        again += told.run([(0, 12 + i, [again[-1]])], [Want(0, 0)]).tokens.tolist()
    assert again == tokens
    both = steps()
    for row in (2, 3):
        both.enter(row)
    both.run([(2, 0, prompt)], [Want(0, 11)])
    mixed = both.run([(3, 0, prompt), (2, 12, [-1])], [Want(0, 11), Want(1, 0)])
    assert mixed.tokens.tolist() == tokens[:2]


def test_a_step_may_be_launched_before_the_one_before_it_is_read(steps: Callable) -> None:
    prompt = _prompt(12)
    expected = steps().generate(0, prompt, 5)
    run = steps()
    run.enter(0)
    launched = [run.forward([(0, 0, prompt)], [Want(0, 11)])]
    for i in range(4):
        launched[-1].sample(None)
        launched.append(run.forward([(0, 12 + i, [-1])], [Want(0, 0)]))
    assert [int(step.result().tokens[0]) for step in launched] == expected


@pytest.mark.parametrize("page_size", [1, 16])
def test_a_copied_page_serves_its_new_row_after_the_source_has_gone(steps: Callable, page_size: int) -> None:
    prompt, rest = _prompt(41), _prompt(6, seed=9)
    run = steps(page_size=page_size)
    run.enter(0)
    whole = _last(run, [(0, 0, prompt + rest)], 0)
    run.enter(1)
    run.run([(1, 0, prompt)], [])
    run.enter(2)
    run.grow(2, len(prompt))
    copies = list(zip(run.pages[1], run.pages[2], strict=True))
    run.executor.table.write_pages(
        np.full(len(copies), 2, np.int32), np.arange(len(copies), dtype=np.int32), np.array(run.pages[2], np.int32)
    )
    run.run([(0, 47, [3])], [], copies=copies)
    slots = [page * page_size + offset for page in run.pages[1] for offset in range(page_size)]
    for number in range(3):
        for pool in run.executor.pool.layer(number):
            pool[slots] = float("nan")
    assert _last(run, [(2, len(prompt), rest)], 0) == whole


def test_a_row_whose_logits_are_not_numbers_ends_alone(steps: Callable) -> None:
    prompts = [_prompt(10 + row, seed=row) for row in range(3)]
    expected = [steps().generate(row, prompt, 3) for row, prompt in enumerate(prompts)]
    run = steps()
    for row in range(3):
        run.enter(row)
    wants = [Want(row, 9 + row) for row in range(3)]
    first = run.run([(row, 0, prompt) for row, prompt in enumerate(prompts)], wants)
    run.executor.pool.layer(1)[0][run.pages[1][4]] = float("nan")
    found = [run.run([(row, 10 + row + i, [-1]) for row in range(3)], [Want(row, 0) for row in range(3)]) for i in range(2)]
    for i, step in enumerate(found):
        assert step.bad.tolist() == [False, True, False]
        assert step.tokens.tolist() == [expected[0][i + 1], -1, expected[2][i + 1]]
    assert first.tokens.tolist() == [tokens[0] for tokens in expected]


def test_a_grammar_mask_belongs_to_the_entries_that_wait_for_one(steps: Callable) -> None:
    prompts = [_prompt(8, seed=row) for row in range(3)]
    free = [steps().generate(0, prompt, 1)[0] for prompt in prompts]
    run = steps()
    for row in range(3):
        run.enter(row)
    wants = [Want(0, 7, mask=1), Want(1, 7), Want(2, 7, mask=1)]
    launched = run.forward([(row, 0, prompt) for row, prompt in enumerate(prompts)], wants)
    masks = np.zeros((2, -(-200 // 32)), np.int32)
    masks[0, 1], masks[1, 6] = 1 << 5, 1 << 3
    launched.sample(masks)
    assert launched.result().tokens.tolist() == [37, free[1], 195]


def test_a_failed_step_says_so_at_its_result_and_the_next_one_is_unharmed(steps: Callable) -> None:
    prompt = _prompt(10)
    expected = steps().generate(0, prompt, 4)
    run = steps()
    run.enter(0)
    tokens = run.run([(0, 0, prompt)], [Want(0, 9)]).tokens.tolist()
    broken = run.forward([(0, 10, [10**6])], [Want(0, 0)])
    broken.sample(None)
    with pytest.raises(StepFailed, match=f"Step {broken.step} failed"):
        broken.result()
    tokens += run.run([(0, 10, [tokens[-1]])], [Want(0, 0)]).tokens.tolist()
    tokens += run.run([(0, 11, [-1])], [Want(0, 0)]).tokens.tolist()
    assert tokens == expected[:3]


def test_a_step_without_spans_enters_rows_and_answers_nothing(steps: Callable) -> None:
    run = steps()
    launched = run.executor.forward(StepPlan(7, entering=(RowEntry(row=1, temperature=0.5),)))
    launched.sample(None)
    found = launched.result()
    assert found.step == 7 and len(found.tokens) == len(found.bad) == 0
    assert run.executor.table.temperature[1] == 0.5


def test_a_prefill_chunk_without_wanted_outputs_answers_nothing(steps: Callable) -> None:
    run = steps()
    run.enter(0)
    found = run.run([(0, 0, _prompt(20))], [])
    assert len(found.tokens) == 0 and found.forward_s > 0
