"""Config records to JSON and back, strictly: what does not fit is named with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import cattrs
import cattrs.errors


def structure(value: object, kind: Any) -> Any:  # noqa: ANN401
    """JSON values to a record of type `kind`.

    Raises:
        ValueError: unknown fields, missing fields, wrong types and values, each named with its place.
    """
    try:
        return _converter.structure(value, kind)
    except (cattrs.errors.BaseValidationError, *_MISTAKES) as error:
        problems = (
            cattrs.transform_error(error, path="", format_exception=_sentence)
            if isinstance(error, cattrs.errors.BaseValidationError)
            else [_sentence(error, kind)]
        )
        raise ValueError(
            "; ".join(problem.removesuffix(" @ ").replace(" @ .", " at ") for problem in problems)
        ) from None


def unstructure(config: object) -> Any:  # noqa: ANN401
    """A config record to plain JSON values."""
    return _converter.unstructure(config)


_MISTAKES = (ValueError, TypeError, KeyError, AttributeError, cattrs.errors.StructureHandlerNotFoundError)


def _sentence(error: BaseException, kind: type | None) -> str:
    match error:
        case KeyError():
            return f"field {error} is missing"
        case cattrs.errors.ForbiddenExtraKeysError():
            return f"unknown field {', '.join(sorted(error.extra_fields))}"
        case ValueError():
            return str(error)
    return f"expected {getattr(kind, '__name__', kind)}, got something else"


def _scalar(value: object, kind: type) -> Any:  # noqa: ANN401
    """`value` when it is a `kind` already: no text becomes a number, no number is cut, no truth value counted."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, got {value!r}")
    return value


def _choice(value: object, kind: Any) -> Any:  # noqa: ANN401
    if value not in get_args(kind):
        raise ValueError(f"expected one of {', '.join(map(repr, get_args(kind)))}, got {value!r}")
    return value


def _is_tagged(kind: Any) -> bool:  # noqa: ANN401
    """Whether `kind` is a union of records that a field `kind` of one word each tells apart."""
    records = get_args(kind) if get_origin(kind) in (Union, UnionType) else ()
    return bool(records) and all(is_dataclass(one) and "kind" in get_type_hints(one) for one in records)


def _by_tag(value: object, kind: Any) -> Any:  # noqa: ANN401
    records = {get_args(get_type_hints(one)["kind"])[0]: one for one in get_args(kind)}
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping with a kind ({', '.join(map(repr, records))}), got {value!r}")
    tag = value.get("kind")
    if tag not in records:
        raise ValueError(f"expected a kind among {', '.join(map(repr, records))}, got {tag!r}")
    return _converter.structure(value, records[tag])


_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook_func(_is_tagged, _by_tag)
for _kind in (int, float, str, bool):
    _converter.register_structure_hook(_kind, _scalar)
_converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _choice)
