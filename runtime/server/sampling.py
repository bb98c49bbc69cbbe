"""Fields of a body -> sampling parameters, constraint and log-probabilities of the protocol, with every range checked. Pure.

The two OpenAI routes share `Sampling`; /generate has SGLang's names. A value that no model could serve is refused here, with
the field's name; what depends on the model (its vocabulary, its context) is checked by the engine's own `resolve_drawing`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from ...constrained.spec import Choice, Constraint, Ebnf, JsonObject, JsonSchema, Regex
from ..errors import InvalidRequest, ModelNotFound
from ..protocol import SamplingParams
from .fields import REFUSED, Drawn, NativeSampling, ResponseFormat, Sampling, is_said
from .options import ServerOptions
from .parse import decode_part, malformed
from .structural import structural_tags, tags_of_format

INT64 = 2**63
MOST_TOKENS = 2**31 - 1
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def in_range(
    name: str, value: float | None, least: float, most: float, *, code: str = "out_of_range", open_low: bool = False
) -> None:
    """Raises InvalidRequest unless least <= value <= most (least < value if open_low). None is not said."""
    if value is None:
        return
    if not least <= value <= most or (open_low and value == least):
        above = "above" if open_low else "at least"
        shown = f"{value:g}" if abs(value) < 1e300 else "too large"  # an int may be beyond every float
        raise InvalidRequest(f"{name} is {shown}; it must be {above} {least:g} and at most {most:g}.", code=code, param=name)


def refuse_unbuilt(body: msgspec.Struct, refused: dict[str, tuple[Any, ...]]) -> None:
    """Raises InvalidRequest for a field that would change the answer and is not built, ModelNotFound for an adapter."""
    for name, harmless in refused.items():
        value = getattr(body, name)
        if not any(value is allowed or value == allowed for allowed in harmless):
            if name == "lora_path":
                raise ModelNotFound(f"There is no adapter {str(value)[:128]!r} here. Leave lora_path out.", param=name)
            code = "unsupported_modality" if name.endswith(("_data", "embeds")) else "unsupported_parameter"
            raise InvalidRequest(f"{name} is not supported by this server. Leave it out.", code=code, param=name)


def sampling_params(
    body: Sampling, options: ServerOptions, *, max_tokens: int | None, least_tokens: int = 1, n: int | None = None
) -> SamplingParams:
    """The parameters of an OpenAI route. max_tokens: as said or by default; None fills the context."""
    refuse_unbuilt(body, REFUSED)
    in_range("temperature", body.temperature, 0, 2)
    in_range("max_tokens", max_tokens, least_tokens, MOST_TOKENS)
    in_range("top_p", body.top_p, 0, 1, open_low=True)
    count = n if n is not None else (1 if body.n is None else body.n)
    in_range("n", body.n, 1, options.max_n)
    fields = _common(body, options)
    return SamplingParams(
        max_new_tokens=max_tokens,
        min_new_tokens=_min_tokens("min_tokens", body.min_tokens, max_tokens),
        no_stop_trim=bool(body.no_stop_trim or body.include_stop_str_in_output),
        n=count,
        **fields,
    )


def native_params(body: NativeSampling, options: ServerOptions) -> SamplingParams:
    """The parameters of /generate: any temperature from 0 on, max_new_tokens from 0 on."""
    refuse_unbuilt(body, {"custom_params": (None, {})})
    in_range("temperature", body.temperature, 0, 1e6)
    in_range("max_new_tokens", body.max_new_tokens, 0, MOST_TOKENS)
    in_range("top_p", body.top_p, 0, 1, open_low=True)
    in_range("n", body.n, 1, options.max_n)
    limit = 128 if body.max_new_tokens is None else body.max_new_tokens
    seed = body.seed if body.seed is not None else body.sampling_seed
    fields = _common(body, options)
    return SamplingParams(
        max_new_tokens=limit,
        min_new_tokens=_min_tokens("min_new_tokens", body.min_new_tokens, limit),
        no_stop_trim=bool(body.no_stop_trim),
        n=1 if body.n is None else body.n,
        **{**fields, "seed": seed},
    )


def _min_tokens(name: str, value: int | None, most: int | None) -> int:
    in_range(name, value, 0, MOST_TOKENS if most is None else most)
    return value or 0


def _common(body: Drawn, options: ServerOptions) -> dict[str, Any]:
    if body.spaces_between_special_tokens is False:
        raise InvalidRequest(
            "spaces_between_special_tokens can only be true here.",
            code="unsupported_parameter",
            param="spaces_between_special_tokens",
        )
    in_range("top_k", body.top_k, -1, MOST_TOKENS)
    in_range("min_p", body.min_p, 0, 1)
    in_range("frequency_penalty", body.frequency_penalty, -2, 2)
    in_range("presence_penalty", body.presence_penalty, -2, 2)
    in_range("repetition_penalty", body.repetition_penalty, 0, 2, open_low=True)
    if body.seed is not None and not -INT64 <= body.seed < INT64:
        raise InvalidRequest("seed must fit into 64 bits.", code="out_of_range", param="seed")
    return {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "presence_penalty": body.presence_penalty or 0.0,
        "repetition_penalty": body.repetition_penalty,
        "logit_bias": logit_bias(body.logit_bias or {}, options.max_logit_bias),
        "seed": body.seed,
        "stop": stops("stop", body.stop, options),
        "stop_regex": stops("stop_regex", body.stop_regex, options, most_bytes=2048),
        "stop_token_ids": tuple(body.stop_token_ids or ()),
        "ignore_eos": bool(body.ignore_eos),
        "skip_special_tokens": body.skip_special_tokens is not False,
        "canonical_forced": body.canonical_forced is not False,
    }


def stops(
    name: str, said: str | Sequence[str] | None, options: ServerOptions, *, most_bytes: int | None = None
) -> tuple[str, ...]:
    """Stop strings within their caps. Raises InvalidRequest (invalid_stop)."""
    texts = () if said is None else (said,) if isinstance(said, str) else tuple(said)
    limit = most_bytes or options.max_stop_bytes
    reason = None
    if len(texts) > options.max_stop:
        reason = f"has {len(texts)} entries; at most {options.max_stop} are taken"
    elif "" in texts:
        reason = "holds the empty string, which is everywhere"
    elif longest := max((len(text.encode()) for text in texts), default=0):
        reason = f"has an entry of {longest} bytes; at most {limit} are taken" if longest > limit else None
    if reason is not None:
        raise InvalidRequest(f"{name} {reason}. Shorten it.", code="invalid_stop", param=name)
    return texts


def logit_bias(said: dict[str, float], most: int) -> dict[int, float]:
    """OpenAI's object, whose keys are ids written as strings. Raises InvalidRequest (invalid_logit_bias)."""
    if len(said) > most:
        raise InvalidRequest(
            f"logit_bias has {len(said)} entries; at most {most} are taken.", code="invalid_logit_bias", param="logit_bias"
        )
    bias: dict[int, float] = {}
    for key, value in said.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise InvalidRequest(
                f"logit_bias has the key {key[:32]!r}, which is not a token id.", code="invalid_logit_bias", param="logit_bias"
            )
        in_range(f"logit_bias[{key}]", value, -100, 100, code="invalid_logit_bias")
        bias[int(key)] = value
    return bias


# ------------------------------------------------------------------------------------------------------- constraints


def constraint_of(body: Sampling) -> Constraint | None:
    """The one constraint that a body asks for. Raises InvalidRequest (invalid_response_format) for two."""
    given: dict[str, Constraint] = {}
    if body.response_format is not None and (found := _from_format(body.response_format)) is not None:
        given["response_format"] = found
    for name, value in (("regex", body.regex), ("guided_regex", body.guided_regex)):
        if value is not None:
            given[name] = Regex(value)
    for name, value in (("ebnf", body.ebnf), ("guided_grammar", body.guided_grammar)):
        if value is not None:
            given[name] = Ebnf(value)
    for name, value in (("json_schema", body.json_schema), ("guided_json", body.guided_json)):
        if value is not None:
            given[name] = JsonSchema(schema_text(value))
    if body.guided_choice is not None:
        given["guided_choice"] = choice_of("guided_choice", body.guided_choice)
    outputs = body.structured_outputs
    if outputs is not None:
        if outputs.structural_tag is not None:
            given["structured_outputs.structural_tag"] = structural_tags(outputs.structural_tag)
        if is_said(outputs.json):
            given["structured_outputs.json"] = JsonSchema(raw_schema(outputs.json))
        if outputs.regex is not None:
            given["structured_outputs.regex"] = Regex(outputs.regex)
        if outputs.choice is not None:
            given["structured_outputs.choice"] = choice_of("structured_outputs.choice", outputs.choice)
        if outputs.grammar is not None:
            given["structured_outputs.grammar"] = Ebnf(outputs.grammar)
        if outputs.json_object:
            given["structured_outputs.json_object"] = JsonObject()
    return _spaced(_one_of(given), body.json_whitespace)


def native_constraint(body: NativeSampling) -> Constraint | None:
    """The one constraint of /generate's sampling_params."""
    given: dict[str, Constraint] = {}
    if body.json_schema is not None:
        given["json_schema"] = JsonSchema(schema_text(body.json_schema))
    if body.regex is not None:
        given["regex"] = Regex(body.regex)
    if body.ebnf is not None:
        given["ebnf"] = Ebnf(body.ebnf)
    if body.structural_tag is not None:
        given["structural_tag"] = structural_tags(body.structural_tag)
    return _spaced(_one_of(given), body.json_whitespace)


def _spaced(constraint: Constraint | None, whitespace: str | None) -> Constraint | None:
    if whitespace is None:
        return constraint
    if whitespace not in ("compact", "any"):
        text = f"json_whitespace is {whitespace[:64]!r}; it must be compact or any."
        raise InvalidRequest(text, code="invalid_response_format", param="json_whitespace")
    return replace(constraint, whitespace=whitespace) if isinstance(constraint, JsonSchema | JsonObject) else constraint


def _one_of(given: dict[str, Constraint]) -> Constraint | None:
    if len(given) > 1:
        raise _format_error(f"{' and '.join(given)} constrain the same output. Give one of them.")
    return next(iter(given.values()), None)


def _from_format(said: ResponseFormat) -> Constraint | None:
    if said.type == "text":
        return None
    if said.type == "json_object":
        return JsonObject()
    if said.type == "json_schema":
        if said.json_schema is None:
            raise _format_error("response_format of type json_schema needs json_schema: {name, schema}.")
        if not is_said(said.json_schema.schema):
            raise _format_error("response_format.json_schema has no schema. Give one, or use type json_object.")
        return JsonSchema(raw_schema(said.json_schema.schema), strict=said.json_schema.strict is not False)
    if said.type == "structural_tag":
        return tags_of_format(said)
    known = "text, json_object, json_schema or structural_tag"
    raise _format_error(f"response_format.type is {said.type[:64]!r}; it must be {known}.")


def _format_error(text: str) -> InvalidRequest:
    return InvalidRequest(text, code="invalid_response_format", param="response_format")


def raw_schema(raw: msgspec.Raw) -> str:
    """The schema as the text in which it was sent (a string holds its text): property order is its own. Raises
    InvalidRequest for bytes that are no text."""
    if bytes(raw).lstrip().startswith(b'"'):
        return decode_part(raw, "schema")
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise malformed(bytes(raw), str(error)) from None


def schema_text(said: str | dict[str, Any]) -> str:
    """A schema as JSON text."""
    return said if isinstance(said, str) else msgspec.json.encode(said).decode()


def choice_of(name: str, options: Sequence[str]) -> Choice:
    """Raises InvalidRequest where there is nothing to choose from."""
    if not options or "" in options:
        raise InvalidRequest(f"{name} needs at least one option, none of them empty.", code="invalid_response_format", param=name)
    return Choice(tuple(options))


# ----------------------------------------------------------------------------------------------------------- request


def tenant_of(body: Any, tenant: str) -> str:
    """The cache namespace: the caller's own, and within it what cache_salt and extra_key set apart."""
    parts = [tenant]
    for name in ("cache_salt", "extra_key"):
        value = getattr(body, name)
        if value is not None and not 1 <= len(value) <= 1024:
            raise InvalidRequest(
                f"{name} has {len(value)} characters; it must have 1 to 1024.", code="invalid_cache_salt", param=name
            )
        parts.append(value or "")
    return "\x1f".join(parts) if any(parts) else ""


def priority_of(said: int | None) -> int:
    """Rank in the queue. Raises InvalidRequest."""
    in_range("priority", said, -(2**31), 2**31 - 1)
    return said or 0


def rid_of(said: str | None, name: str = "rid") -> str | None:
    """The caller's own label of a request. Raises InvalidRequest (invalid_request_id)."""
    if said is not None and not REQUEST_ID.fullmatch(said):
        text = f"{name} must have 1 to 128 printable ASCII characters without spaces."
        raise InvalidRequest(text, code="invalid_request_id", param=name)
    return said


def deadline_of(said: float | None, options: ServerOptions) -> float:
    """Seconds that a request may take, queue included."""
    in_range("timeout_s", said, 0, 1e6, open_low=True)
    return options.request_timeout_s if said is None else min(said, options.request_timeout_s)
