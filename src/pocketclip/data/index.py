"""What a packed folder holds: `index.json`, written last, is the sign that the folder is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from pocketclip.data.publish import publish_file
from pocketclip.data.sample import JsonValue
from pocketclip.data.shard import ShardEntry

INDEX_FILE = "index.json"
INDEX_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Something of the source that is not in the shards.

    Attributes:
        source: the file, or "file: member or row".
        reason: why, one sentence.
    """

    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The contents of a packed folder.

    Attributes:
        version: of this layout, `INDEX_VERSION`.
        source: what was packed.
        splits: split name -> its shards in order.
        dropped: what was left out, and why.
        licences: licence -> number of pictures under it (empty when the source does not say).
        config: the resolved configuration of the verb that wrote the folder.
        attribution: sentences that must travel with the pictures.
    """

    version: int = INDEX_VERSION
    source: str
    splits: Mapping[str, tuple[ShardEntry, ...]]
    dropped: tuple[Dropped, ...] = ()
    licences: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, JsonValue] = field(default_factory=dict)
    attribution: tuple[str, ...] = ()

    def num_samples(self, split: str | None = None) -> int:
        """Number of samples of one split, or of all."""
        shards = [self.splits[split]] if split is not None else self.splits.values()
        return sum(entry.num_samples for entries in shards for entry in entries)


def read_index(folder: Path) -> ShardIndex:
    """Reads the index of a packed folder.

    Args:
        folder: what `pocketclip pack` wrote.

    Returns:
        The index.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: the index is damaged or of another version.
    """
    path = Path(folder) / INDEX_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a packed folder (no {INDEX_FILE}): run `pocketclip pack SOURCE {folder}`, "
            f"again if it was interrupted"
        )
    return parse_index(path.read_bytes(), name=str(path))


def parse_index(data: bytes, *, name: str) -> ShardIndex:
    """The index in the bytes of an `index.json`.

    Args:
        data: the file's bytes, wherever it is.
        name: the file's, for messages.

    Raises:
        ValueError: the index is damaged or of another version.
    """
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{name} is damaged ({error}): delete the folder and pack it again") from error
    if not isinstance(content, dict) or "version" not in content:
        raise ValueError(f"{name} is not the index of a packed folder: choose another folder")
    if content["version"] != INDEX_VERSION:
        raise ValueError(
            f"{name} has version {content['version']!r} and this pocketclip reads version {INDEX_VERSION}: "
            f"pack the source again with this pocketclip, or use the one that wrote it"
        )
    return _parse_index(content, path=name)


def write_index(folder: Path, index: ShardIndex) -> None:
    """Publishes the index: from now on the folder counts as whole. Write it after every shard.

    Raises:
        PublishError: it cannot be written.
    """
    with publish_file(Path(folder) / INDEX_FILE) as file:
        file.write(index_bytes(index))


def index_bytes(index: ShardIndex) -> bytes:
    """The bytes of an `index.json`, the same for the same values."""
    text = json.dumps(asdict(index), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # file names that are not UTF-8 arrive as lone surrogates; this writes those as JSON escapes
    return text.encode(errors="backslashreplace")


def split_shards(folder: Path, split: str) -> list[Path]:
    """Paths of the shards of a split, each there and of the size in the index.

    Args:
        folder: a packed folder.
        split: its name, e.g. "train".

    Returns:
        The shards in order.

    Raises:
        ValueError: there is no such split, or a shard is missing or of another size.
        FileNotFoundError: there is no index.
    """
    index = read_index(folder)
    if split not in index.splits:
        raise ValueError(f"{folder} has no split {split!r}; it has {', '.join(index.splits)}")
    paths = []
    for entry in index.splits[split]:
        path = Path(folder) / entry.file
        if not path.is_file():
            raise ValueError(f"{path} is missing, though the index lists it: pack or copy the folder again")
        if path.stat().st_size != entry.num_bytes:
            raise ValueError(
                f"{path} has {path.stat().st_size:,} bytes and the index says {entry.num_bytes:,}: "
                f"it was cut or changed; pack or copy the folder again"
            )
        paths.append(path)
    return paths


def _parse_index(content: dict[str, JsonValue], *, path: str) -> ShardIndex:
    unknown = set(content) - {f.name for f in fields(ShardIndex)}
    if unknown:
        raise ValueError(f"{path} has unknown fields {', '.join(sorted(unknown))}: pack the source again")
    return ShardIndex(
        source=_text(content.get("source"), what="source", path=path),
        splits={
            name: tuple(_entry(row, path=path) for row in _list(rows, what=name, path=path))
            for name, rows in _mapping(content, "splits", path=path).items()
        },
        dropped=tuple(
            _dropped(row, path=path) for row in _list(content.get("dropped"), what="dropped", path=path)
        ),
        licences={
            name: _count(count, what=f"licences of {name}", path=path)
            for name, count in _mapping(content, "licences", path=path).items()
        },
        config=_mapping(content, "config", path=path),
        attribution=tuple(
            _text(text, what="attribution", path=path)
            for text in _list(content.get("attribution"), what="attribution", path=path)
        ),
    )


def _entry(row: JsonValue, *, path: str) -> ShardEntry:
    fields = _row(row, names=("file", "num_bytes", "num_samples", "sha256"), what="splits", path=path)
    return ShardEntry(
        file=_text(fields["file"], what="file", path=path),
        num_samples=_count(fields["num_samples"], what="num_samples", path=path),
        num_bytes=_count(fields["num_bytes"], what="num_bytes", path=path),
        sha256=_text(fields["sha256"], what="sha256", path=path),
    )


def _dropped(row: JsonValue, *, path: str) -> Dropped:
    fields = _row(row, names=("reason", "source"), what="dropped", path=path)
    return Dropped(
        source=_text(fields["source"], what="source", path=path),
        reason=_text(fields["reason"], what="reason", path=path),
    )


def _row(row: JsonValue, *, names: tuple[str, ...], what: str, path: str) -> dict[str, JsonValue]:
    if not isinstance(row, dict) or sorted(row) != list(names):
        raise ValueError(f"{path} is damaged (a row of {what} is {row!r}): pack the source again")
    return row


def _count(value: JsonValue, *, what: str, path: str) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{path} is damaged ({what} is not a count): pack the source again")
    return value


def _mapping(content: dict[str, JsonValue], what: str, *, path: str) -> dict[str, JsonValue]:
    value = content.get(what)
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged ({what} is not a mapping): pack the source again")
    return value


def _list(value: JsonValue, *, what: str, path: str) -> list[JsonValue]:
    if not isinstance(value, list):
        raise ValueError(f"{path} is damaged ({what} is not a list): pack the source again")
    return value


def _text(value: JsonValue, *, what: str, path: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{path} is damaged ({what} is not a text): pack the source again")
    return value
