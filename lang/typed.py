"""A Python type becomes a JSON schema, and the JSON text that obeys it becomes a value of that type.

    int, float, bool, str, None      JSON's own; strings with all of JSON's escapes
    Literal, Enum                    one of the values
    Optional, Union                  anyOf, tried in order on the way back
    list, tuple, dict[str, ...]      array, array of fixed length, object
    dataclass, TypedDict             an object with exactly these properties, in order, all required (a TypedDict's as it says)
    pydantic models                  their own schema and validation, wherever in the type they occur

Standard library only; pydantic is imported when a type needs it. Another type is refused, because it could not be enforced.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..runtime.errors import ConstraintError, InvalidRequest

Scalar = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Typed:
    """label: the type's name, for messages. schema: JSON text of its schema. parse: JSON text -> value."""

    label: str
    schema: str
    parse: Callable[[str], Any]

    def value(self, text: str, *, cut_off: bool) -> Any:
        """What `text` spells. cut_off: it ended at max_tokens, so a number may lack digits and is not taken for whole.
        Raises InvalidRequest (`incomplete_output`, `wrong_type`)."""
        if cut_off and text[-1:].isdigit():
            raise _incomplete(self.label, text, "a number may go on")
        return self.parse(text)


def typed(kind: Any) -> Typed:
    """Schema and converter of a type. Raises ConstraintError (`unsupported_type`) for a type that has no exact schema."""
    if _needs_pydantic(kind, set()):
        return _typed_by_pydantic(kind)
    writer = _Writer()
    schema = writer.schema(kind)
    if writer.defs:
        schema = {**schema, "$defs": writer.defs}
    return Typed(label(kind), json.dumps(schema), lambda text: _parse(kind, text))


def schema_text(schema: Any) -> str:
    """JSON text of what `json_schema=` was given: a JSON text, a dict, or a pydantic model. Raises ConstraintError."""
    if isinstance(schema, str):
        try:
            json.loads(schema)
        except ValueError as error:
            message = f"json_schema is not valid JSON: {error}."
            raise ConstraintError(message, code="invalid_json_schema", param="json_schema") from None
        return schema
    if isinstance(schema, (dict, bool)):
        return json.dumps(schema)
    if _is_pydantic(schema):
        return json.dumps(schema.model_json_schema())
    raise ConstraintError(
        f"json_schema is a {type(schema).__name__}. Give a JSON text, a dict or a pydantic model; for other types use type=.",
        code="invalid_json_schema",
        param="json_schema",
    )


def label(kind: Any) -> str:
    """A type's name as a reader writes it."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


# ---------------------------------------------------------------------------------------------------- type -> schema


class _Writer:
    """Writes one schema. `defs` fills with the types that contain themselves."""

    def __init__(self) -> None:
        self.defs: dict[str, Any] = {}
        self._open: list[Any] = []
        self._recursive: set[Any] = set()

    def schema(self, kind: Any) -> dict[str, Any]:
        kind = _plain(kind)
        if kind in _JSON_NAMES:
            return {"type": _JSON_NAMES[kind]}
        origin, args = get_origin(kind), get_args(kind)
        if origin is Literal:
            return {"enum": _scalars(kind, list(args))}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.schema(arg) for arg in args]}
        if origin is list:
            return {"type": "array", "items": self.schema(args[0])}
        if origin is tuple:
            return self._tuple(kind, args)
        if origin is dict:
            if _plain(args[0]) is not str:
                raise _refused(kind, "the keys of a JSON object are strings; use dict[str, ...]")
            return {"type": "object", "additionalProperties": self.schema(args[1])}
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return {"enum": _scalars(kind, [member.value for member in kind])}
        if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
            return self._object(kind)
        raise _refused(kind, "it has no JSON schema that could be enforced exactly")

    def _tuple(self, kind: Any, args: tuple[Any, ...]) -> dict[str, Any]:
        if len(args) == 2 and args[1] is Ellipsis:
            return {"type": "array", "items": self.schema(args[0])}
        if not args or args == ((),):
            raise _refused(kind, "an empty tuple leaves nothing to generate")
        parts = [self.schema(arg) for arg in args]
        return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts), "maxItems": len(parts)}

    def _object(self, kind: Any) -> dict[str, Any]:
        name = kind.__name__
        if kind in self._open:
            self._recursive.add(kind)
            return {"$ref": f"#/$defs/{name}"}
        self._open.append(kind)
        fields = _fields(kind)
        written = {
            "type": "object",
            "properties": {key: self.schema(part) for key, part in fields.items()},
            "required": [key for key in fields if key in getattr(kind, "__required_keys__", fields)],
            "additionalProperties": False,
        }
        self._open.pop()
        if kind not in self._recursive:
            return written
        self.defs[name] = written
        return {"$ref": f"#/$defs/{name}"}


_JSON_NAMES = {int: "integer", float: "number", bool: "boolean", str: "string", type(None): "null"}


def _plain(kind: Any) -> Any:
    """The type behind None, aliases, NewType, bare containers and Annotated with plain text."""
    if kind is None:
        return type(None)
    if hasattr(kind, "__supertype__"):
        return _plain(kind.__supertype__)
    if type(kind).__name__ == "TypeAliasType":
        return _plain(kind.__value__)
    if get_origin(kind) is typing.Annotated:
        if not all(isinstance(note, str) for note in kind.__metadata__):
            raise _refused(kind, "the conditions in Annotated would not be enforced; use a pydantic model for them")
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (typing.Required, typing.NotRequired):
        return _plain(get_args(kind)[0])
    if kind in (list, dict, tuple):
        raise _refused(kind, f"its items have no type; write {kind.__name__}[...]")
    return kind


def _fields(kind: Any) -> dict[str, Any]:
    try:
        hints = get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise _refused(kind, f"{error}; define the types it names at the top of a module") from None
    if typing.is_typeddict(kind):
        return hints
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _scalars(kind: Any, values: list[Any]) -> list[Any]:
    if not values or not all(isinstance(value, Scalar) for value in values):
        raise _refused(kind, "its values must be strings, numbers, booleans or None, at least one")
    return values


def _refused(kind: Any, why: str) -> ConstraintError:
    return ConstraintError(f"gen(type={label(kind)}) is not possible: {why}.", code="unsupported_type", param="type")


# ----------------------------------------------------------------------------------------------------- JSON -> value


def restore(kind: Any, value: Any) -> Any:
    """The parsed JSON `value` as a `kind`. Raises TypeError where they do not fit together."""
    kind = _plain(kind)
    if kind is float:
        _expect(isinstance(value, (int, float)) and not isinstance(value, bool), kind, value)
        return float(value)
    if kind is int:
        whole = value.is_integer() if isinstance(value, float) else isinstance(value, int) and not isinstance(value, bool)
        _expect(whole, kind, value)
        return int(value)
    if kind is str:
        _expect(isinstance(value, str), kind, value)
        return _well_formed(value)
    if kind in (bool, type(None)):
        _expect(isinstance(value, kind), kind, value)
        return value
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _one_of(kind, value, args, lambda arg: arg)
    if origin in (Union, types.UnionType):
        return _first_that_fits(kind, args, value)
    if origin is list or origin is tuple:
        _expect(isinstance(value, list), kind, value)
        if origin is list or args[-1] is Ellipsis:
            return origin(restore(args[0], item) for item in value)
        _expect(len(value) == len(args), kind, value)
        return tuple(restore(part, item) for part, item in zip(args, value, strict=True))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _one_of(kind, value, list(kind), lambda member: member.value)
    _expect(isinstance(value, dict), kind, value)
    if origin is dict:
        return {_well_formed(key): restore(args[1], item) for key, item in value.items()}
    fields = _fields(kind)
    return kind(**{key: restore(fields[key], item) for key, item in value.items()})


def _one_of(kind: Any, value: Any, options: Any, key: Callable[[Any], Any]) -> Any:
    for option in options:
        if key(option) == value and isinstance(key(option), bool) == isinstance(value, bool):
            return option
    raise TypeError(f"{value!r} is not a {label(kind)}")


def _first_that_fits(kind: Any, parts: tuple[Any, ...], value: Any) -> Any:
    for part in parts:
        try:
            return restore(part, value)
        except (TypeError, KeyError):
            continue
    raise TypeError(f"{value!r} is not a {label(kind)}")


def _expect(fits: bool, kind: Any, value: Any) -> None:
    if not fits:
        raise TypeError(f"{value!r} is not a {label(kind)}")


def _well_formed(text: str) -> str:
    """JSON can spell half of a surrogate pair, which no text can hold: such a half becomes U+FFFD."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _parse(kind: Any, text: str) -> Any:
    """The value that `text` spells. Raises InvalidRequest: `incomplete_output` where it is cut off or no JSON, `wrong_type`
    where it is JSON of another type, which only a backend without constraints can produce."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _incomplete(label(kind), text, error) from None
    try:
        return restore(kind, value)
    except (TypeError, KeyError) as error:
        raise InvalidRequest(f"The output is not a {label(kind)}: {error}.", code="wrong_type") from None


def _incomplete(name: str, text: str, why: object) -> InvalidRequest:
    """The error for output that ended before it was a whole value, most often at max_tokens."""
    shown = text if len(text) <= 60 else text[:57] + "..."
    return InvalidRequest(
        f"The output {shown!r} is not a complete {name} ({why}). It was probably cut off: raise max_tokens.",
        code="incomplete_output",
    )


# ---------------------------------------------------------------------------------------------------------- pydantic


def _is_pydantic(kind: Any) -> bool:
    pydantic = sys.modules.get("pydantic")  # a model exists only if pydantic was imported
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _needs_pydantic(kind: Any, seen: set[int]) -> bool:
    if "pydantic" not in sys.modules or id(kind) in seen:
        return False
    seen.add(id(kind))
    if _is_pydantic(kind) or hasattr(kind, "__pydantic_validator__"):
        return True
    parts = list(get_args(kind))
    if get_origin(kind) is typing.Annotated:
        if any(type(note).__module__.split(".")[0] in ("pydantic", "annotated_types") for note in kind.__metadata__):
            return True
    elif isinstance(kind, type) and (dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)):
        parts += _fields(kind).values()
    return any(_needs_pydantic(part, seen) for part in parts)


def _typed_by_pydantic(kind: Any) -> Typed:
    from pydantic import TypeAdapter, ValidationError  # optional: only users who have models of it come here
    from pydantic.errors import PydanticUserError

    try:
        adapter = TypeAdapter(kind)
        schema = json.dumps(_closed(adapter.json_schema()))
    except PydanticUserError as error:
        raise _refused(kind, f"pydantic has no JSON schema for it ({error.message})") from None

    def parse(text: str) -> Any:
        try:
            return adapter.validate_json(text)
        except ValidationError as error:
            raise _incomplete(label(kind), text, error) from None

    return Typed(label(kind), schema, parse)


def _closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` where an object lists its properties and says nothing of others."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    written = {}
    for key, part in schema.items():
        if key in ("properties", "$defs"):  # maps from names to schemas, whatever the names are
            written[key] = {name: _closed(inner) for name, inner in part.items()}
        else:
            written[key] = part if key in ("default", "enum", "const", "examples") else _closed(part)
    if "properties" in written:
        written.setdefault("additionalProperties", False)
    return written
