"""The marker of a unit that is done: one line of the manifest, written after the output, read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, cast

from pocketclip.data.index import Dropped
from pocketclip.data.objects import Store
from pocketclip.data.sample import JsonValue
from pocketclip.engine.task import Facts

DONE = ".done"
VERSION = 1

_OWN = ("more", "seconds")  # of the facts: those that are no field of the same name in the line
_FACTS = tuple(field.name for field in fields(Facts) if field.name not in _OWN)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A unit that is done.

    Attributes:
        shard: its output's name, `SPLIT/NAME.tar`.
        input: the input's name; empty for pictures of a folder.
        input_bytes: the input's size.
        facts: what became of the unit.
        config_digest: of the whole configuration.
        engine: where it was made.
        device: what the networks ran on.
        seconds: from the first to the last byte.
        earlier_failures: why it took more than one try.
    """

    shard: str
    input: str
    input_bytes: int
    facts: Facts
    config_digest: str
    engine: str
    device: str
    seconds: float
    earlier_failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        """As the manifest has it."""
        content = asdict(self)
        facts = content.pop("facts")
        more, cost = facts.pop("more"), facts.pop("seconds")
        content |= facts
        content |= {
            "version": VERSION,
            "seconds": round(self.seconds, 3),
            "cost": {name: round(seconds, 3) for name, seconds in cost.items()},
        }
        clash = content.keys() & more.keys()
        assert not clash, f"facts of the engine's own names: {clash}"
        return {**content, **more}

    @classmethod
    def from_json(cls, content: object) -> Marker:
        """The inverse of `to_json`; fields that are not the engine's are the verb's.

        Raises:
            ValueError: it is none, or of another version.
        """
        line = _Line(content)
        if line.take("version", int) != VERSION:
            raise ValueError("it is of another version")
        own = {
            "shard": line.take("shard", str),
            "input": line.take("input", str),
            "input_bytes": line.take("input_bytes", int),
            "config_digest": line.take("config_digest", str),
            "engine": line.take("engine", str),
            "device": line.take("device", str),
            "seconds": line.take("seconds", float),
            "earlier_failures": tuple(line.take_list("earlier_failures", str)),
        }
        facts = {
            "num_samples": line.take("num_samples", int),
            "num_bytes": line.take("num_bytes", int),
            "sha256": line.take("sha256", str),
            "input_sha256": line.take("input_sha256", str),
            "dropped": tuple(_dropped(one) for one in line.take_list("dropped", dict)),
            "licences": line.take_mapping("licences", int),
        }
        assert facts.keys() == set(_FACTS)
        return cls(**own, facts=Facts(**facts, seconds=line.take_mapping("cost", float), more=line.rest))


def mark(out: Store, marker: Marker) -> None:
    """Marks a unit done; the first of two markers stays."""
    with suppress(FileExistsError):
        out.put_once(marker_file(marker.shard), json_line(marker.to_json()))


def marker_file(shard: str) -> str:
    """Name of the marker of an output."""
    return f"{DONE}/{shard}.json"


def json_line(content: Mapping[str, JsonValue]) -> bytes:
    """The same bytes for the same values, on one line."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # file names that are not UTF-8 arrive as lone surrogates; this writes those as JSON escapes
    return f"{text}\n".encode(errors="backslashreplace")


class _Line:
    """Takes fields from a JSON object, each of the kind that it must be; ValueError where it is not."""

    def __init__(self, content: object) -> None:
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got {content!r}")
        self.rest: dict[str, Any] = dict(content)

    def take(self, name: str, kind: type[T]) -> T:
        if name not in self.rest:
            raise ValueError(f"field {name!r} is missing")
        return _checked(self.rest.pop(name), kind, name=name)

    def take_list(self, name: str, kind: type[T]) -> list[T]:
        return [_checked(one, kind, name=name) for one in self.take(name, list)]

    def take_mapping(self, name: str, kind: type[T]) -> dict[str, T]:
        return {key: _checked(value, kind, name=name) for key, value in self.take(name, dict).items()}


def _checked(value: object, kind: type[T], *, name: str) -> T:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{name}: expected {kind.__name__}, got {value!r}")
    return cast("T", value)


def _dropped(content: dict[str, object]) -> Dropped:
    line = _Line(content)
    dropped = Dropped(source=line.take("source", str), reason=line.take("reason", str))
    if line.rest:
        raise ValueError(f"dropped: unknown field {min(line.rest)!r}")
    return dropped
