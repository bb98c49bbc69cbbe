"""Names and forms in which users say sampling parameters, brought to those of `SamplingParams`. Pure.

SGLang has two sets of names: `gen` and `run` (max_tokens, min_tokens) and its engine (max_new_tokens, sampling_seed, ...).
Ranges are checked where they are known, at admission; here only what has the wrong form is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ..constrained.spec import Constraint, Ebnf, JsonSchema, Regex
from ..runtime.errors import InvalidRequest
from ..runtime.protocol import SamplingParams
from .typed import schema_text

ALIASES = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens", "sampling_seed": "seed"}
FIELDS = frozenset(SamplingParams.__struct_fields__)
CONSTRAINTS = frozenset({"json_schema", "regex", "ebnf"})
# Accepted because SGLang's programs send them; the value that changes nothing is the only one accepted.
NEUTRAL = {"spaces_between_special_tokens": True, "custom_params": None, "stream_interval": None, "structural_tag": None}


def sampling_fields(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of SamplingParams that were said (None is not said), by its names and in its forms.

    Raises InvalidRequest for an unknown name (with the nearest known one) or a value of the wrong form."""
    fields: dict[str, Any] = {}
    for name, value in said.items():
        field = ALIASES.get(name, name)
        if field not in FIELDS:
            raise InvalidRequest(f"{name!r} is not a sampling parameter.{nearest(name, FIELDS | set(ALIASES))}", param=name)
        if value is not None:
            fields[field] = _FORMS.get(field, lambda _, same: same)(name, value)
    return fields


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the known word most like `name`, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(f"{name} is {value!r}; give a string or a list of strings.", param=name)
    return tuple(text for text in texts if text)


def _ids(name: str, value: Any) -> tuple[int, ...]:
    return tuple(_whole(name, token) for token in ([value] if isinstance(value, int) else value))


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        if not (isinstance(value, float) and value.is_integer()):
            raise InvalidRequest(f"{name} is {value!r}; give a whole number.", param=name)
    return int(value)


def _count(name: str, value: Any) -> int:
    if (count := _whole(name, value)) < 0:
        raise InvalidRequest(f"{name} is {count}; it must be 0 or more.", param=name)
    return count


def _at_least_one(name: str, value: Any) -> int:
    if (count := _whole(name, value)) < 1:
        raise InvalidRequest(f"{name} is {count}; it must be at least 1.", param=name)
    return count


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidRequest(f"{name} is {value!r}; give a number.", param=name)
    return float(value)


def _bias(name: str, value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{name} is {value!r}; give a dict from token id to the number added to its logit.", param=name)
    return {int(token): float(bias) for token, bias in value.items()}


_FORMS: dict[str, Any] = {
    "max_new_tokens": _count,
    "min_new_tokens": _count,
    "top_k": _whole,
    "seed": _whole,
    "n": _at_least_one,
    "stop": _texts,
    "stop_regex": _texts,
    "stop_token_ids": _ids,
    "logit_bias": _bias,
    "temperature": _number,
    "top_p": _number,
    "min_p": _number,
    "presence_penalty": _number,
    "frequency_penalty": _number,
    "repetition_penalty": _number,
}


def constraint_of(said: Mapping[str, Any]) -> Constraint | None:
    """The constraint among json_schema, regex and ebnf, at most one of which may be said. Raises InvalidRequest."""
    given = {name: value for name, value in said.items() if value is not None}
    if len(given) > 1:
        raise InvalidRequest(f"{' and '.join(given)} constrain the same output. Give one of them.", param=next(iter(given)))
    if "json_schema" in given:
        return JsonSchema(schema_text(given["json_schema"]))
    for name, kind in (("regex", Regex), ("ebnf", Ebnf)):
        if name in given:
            if not isinstance(given[name], str):
                raise InvalidRequest(f"{name} is a {type(given[name]).__name__}; give a string.", param=name)
            return kind(given[name])
    return None


def engine_params(said: SamplingParams | Mapping[str, Any] | None) -> tuple[SamplingParams, Constraint | None]:
    """SGLang's `sampling_params` of its engine: sampling fields, one of the constraints, and neutral extras."""
    if said is None:
        return SamplingParams(), None
    if isinstance(said, SamplingParams):
        return said, None
    sampling: dict[str, Any] = {}
    constraints: dict[str, Any] = {}
    for name, value in said.items():
        if name in CONSTRAINTS:
            constraints[name] = value
        elif name in NEUTRAL:
            if value is not None and value != NEUTRAL[name]:
                raise InvalidRequest(f"{name}={value!r} is not supported here. Leave it out.", param=name)
        else:
            sampling[name] = value
    return SamplingParams(**sampling_fields(sampling)), constraint_of(constraints)
