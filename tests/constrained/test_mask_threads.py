"""Masks filled by several threads are those of one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ramify.constrained.engines import ENGINES, ConstraintCompiler
from ramify.constrained.masks import Masks, allowed_tokens
from ramify.constrained.spec import JsonSchema
from ramify.constrained.store import GrammarStore
from ramify.constrained.vocabulary import Vocabulary

SCHEMA = {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}}


@pytest.mark.parametrize("engine", ENGINES)
def test_masks_do_not_depend_on_the_number_of_threads(engine: str) -> None:
    vocabulary = Vocabulary.from_tokens([bytes([b]) for b in range(256)] + [b""], stop_ids=[256])
    data = vocabulary.to_bytes()
    grammar = ConstraintCompiler(data).only(engine).compile(JsonSchema(json.dumps(SCHEMA)))
    stores = [GrammarStore(data, threads=threads) for threads in (1, 3)]
    rows = [[store.matcher(grammar) for _ in range(9)] for store in stores]
    masks, rng = Masks(257), np.random.default_rng(0)
    for _ in range(40):
        one, several = (masks.fill(matchers) for matchers in rows)
        assert one is not None and several is not None
        np.testing.assert_array_equal(one, several)
        for row, pair in enumerate(zip(*rows, strict=True)):
            token = int(rng.choice(allowed_tokens(one[row], 257)))
            for matcher in pair:
                if not matcher.is_terminated:
                    assert matcher.accept(token)
