"""What a reinforcement block says of itself, as the texts in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TypeVar

from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.codec import CODECS, Codec
from pocketclip.data.codec_error import CodecError
from pocketclip.data.sample import JsonValue

FORMAT = "pocketclip-reinforcement"
VERSION = 1

_LARGEST = 1e300

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """Who made a table of embeddings.

    Attributes:
        name: the teacher's name in this ensemble.
        embed_dim: width of its embeddings.
        logit_scale: the inverse temperature to distil it at.
        digest: sha256 of its weights.
    """

    name: str
    embed_dim: int
    logit_scale: float
    digest: str


@dataclass(frozen=True, kw_only=True)
class ReinforcementHeader:
    """What a block says of itself.

    Attributes:
        config_digest: of the reinforcement's whole configuration.
        input_sha256: of the shard that was reinforced.
        augment: what the views were drawn from.
        codec: how embeddings are stored.
        teachers: in the order of the configuration.
        errors: by table (`image/NAME`, `text/NAME`), what the codec cost.
        dropped: samples of the input that are not in the output, key -> reason.
    """

    config_digest: str
    input_sha256: str
    augment: AugmentSpec
    codec: Codec
    teachers: tuple[TeacherRecord, ...]
    errors: Mapping[str, CodecError]
    dropped: Mapping[str, str]


def header_texts(header: ReinforcementHeader) -> dict[str, str]:
    """A header as the file's metadata, the same texts for the same values."""
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "config_digest": header.config_digest,
        "input_sha256": header.input_sha256,
        "augment": _dump(header.augment.to_json()),
        "codec": header.codec,
        "teachers": _dump([asdict(record) for record in header.teachers]),
        "errors": _dump({table: asdict(error) for table, error in header.errors.items()}),
        "dropped": _dump(dict(header.dropped)),
    }


def read_header(texts: Mapping[str, str]) -> ReinforcementHeader:
    """The header in a file's metadata.

    Raises:
        ValueError: it is damaged; says what is wrong. Format and version are the caller's to check.
    """
    names = {"format", "version", *(field.name for field in fields(ReinforcementHeader))}
    _check_names(texts, names, what="the header")
    if texts["codec"] not in CODECS:
        raise ValueError(f"codec {texts['codec']!r} is unknown, this program reads {', '.join(CODECS)}")
    teachers = tuple(_teacher(record) for record in _load(texts, "teachers", list))
    if not teachers or len({teacher.name for teacher in teachers}) < len(teachers):
        raise ValueError("the header names no teacher, or one twice")
    errors = _load(texts, "errors", dict)
    _check_names(
        errors,
        {f"{side}/{teacher.name}" for teacher in teachers for side in ("image", "text")},
        what="errors",
    )
    dropped = _load(texts, "dropped", dict)
    if not all(isinstance(reason, str) for reason in dropped.values()):
        raise ValueError("dropped does not say why")
    return ReinforcementHeader(
        config_digest=texts["config_digest"],
        input_sha256=texts["input_sha256"],
        augment=AugmentSpec.from_json(_load(texts, "augment", dict)),
        codec=texts["codec"],
        teachers=teachers,
        errors={table: _error(error) for table, error in errors.items()},
        dropped=dropped,
    )


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _load(texts: Mapping[str, str], name: str, kind: type[T]) -> T:
    try:
        value = json.loads(texts[name])
    except (ValueError, RecursionError):
        raise ValueError(f"{name} is not JSON") from None
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {value!r}")
    return value


def _teacher(record: JsonValue) -> TeacherRecord:
    if not isinstance(record, dict):
        raise ValueError(f"a teacher is {record!r}")
    _check_names(record, {field.name for field in fields(TeacherRecord)}, what="a teacher")
    name, embed_dim, digest = record["name"], record["embed_dim"], record["digest"]
    if not isinstance(name, str) or not isinstance(digest, str):
        raise ValueError(f"a teacher is {record!r}")
    if type(embed_dim) is not int or embed_dim < 1:
        raise ValueError(f"embed_dim of teacher {name} is {embed_dim!r}")
    logit_scale = _number(record["logit_scale"], what=f"logit_scale of teacher {name}")
    if logit_scale <= 0:
        raise ValueError(f"logit_scale of teacher {name} is {logit_scale!r}")
    return TeacherRecord(name=name, embed_dim=embed_dim, logit_scale=logit_scale, digest=digest)


def _error(record: JsonValue) -> CodecError:
    if not isinstance(record, dict):
        raise ValueError(f"an error is {record!r}")
    names = [field.name for field in fields(CodecError)]
    _check_names(record, set(names), what="an error")
    return CodecError(**{name: _number(record[name], what=name) for name in names})


def _number(value: JsonValue, *, what: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -_LARGEST < value < _LARGEST:
        raise ValueError(f"{what} is {value!r}")
    return float(value)


def _check_names(found: Mapping[str, object] | Sequence[str], known: set[str], *, what: str) -> None:
    for problem, names in (("lacks", known - set(found)), ("has unknown", set(found) - known)):
        if names:
            raise ValueError(f"{what} {problem} {', '.join(sorted(names))}")
