"""Which shards of a run are done: a file that gets a line after each, so that a killed run goes on behind the last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pocketclip.data.publish import cannot_write, flush_to_disk, publish_file
from pocketclip.data.sample import JsonValue

_VERSION = 1


class DoneList:
    """Done shards by name, each with what became of it; the last line of a name counts.

    Only names and places of lines are in memory.

    Args:
        path: the file; it need not be there.
        digest: of everything that the shards' bytes depend on, apart from their inputs.

    Raises:
        ValueError: the file is of another digest, or none of ours; it is left alone.
        PublishError: it cannot be written.
    """

    def __init__(self, path: Path, *, digest: str) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        if not path.exists():
            start_done_list(path, digest=digest)
        found = _read_digest(path)
        if found != digest:
            raise ValueError(
                f"{path.parent.parent} was begun with another configuration or from other data: choose another "
                f"folder, or delete this one"
            )
        self._index()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def forget(self, name: str) -> None:
        """Takes a shard for not done, in this process."""
        self._places.pop(name, None)

    def get(self, name: str) -> dict[str, JsonValue] | None:
        """What became of a shard, or None while it is not done."""
        if name not in self._places:
            return None
        start, end = self._places[name]
        with self.path.open("rb") as file:
            file.seek(start)
            return json.loads(file.read(end - start))

    def add(self, name: str, facts: Mapping[str, JsonValue]) -> None:
        """Marks a shard done; the line is on the disk when this returns."""
        with cannot_write(self.path), self.path.open("ab") as file:
            start = file.tell()
            file.write(_line({"shard": name, **facts}))
            file.flush()
            flush_to_disk(file.fileno())
            self._places[name] = (start, file.tell())

    def _index(self) -> None:
        """Finds the lines; one that a kill cut short is cut off."""
        at = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                if number:
                    self._places[json.loads(line)["shard"]] = (at, at + len(line))
                at += len(line)
        with cannot_write(self.path), self.path.open("r+b") as file:
            file.truncate(at)


def start_done_list(path: Path, *, digest: str, lines: Iterable[bytes] = ()) -> None:
    """Publishes the file anew.

    Args:
        path: the file.
        digest: as of `DoneList`.
        lines: of shards that are done, as `manifest` gave them.
    """
    with publish_file(path) as file:
        file.write(_line({"version": _VERSION, "digest": digest}))
        file.writelines(lines)


def manifest_line(name: str, facts: Mapping[str, JsonValue]) -> bytes:
    """The line of a shard, as `DoneList` keeps it and as a manifest lists it."""
    return _line({**facts, "shard": name})


def _read_digest(path: Path) -> JsonValue:
    with path.open("rb") as file:
        try:
            first = json.loads(file.readline())
        except ValueError:
            first = None
    if not isinstance(first, dict) or first.get("version") != _VERSION:
        raise ValueError(
            f"{path} is damaged or of another release of pocketclip: delete {path.parent.parent}"
        )
    return first.get("digest")


def _line(content: Mapping[str, JsonValue]) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # file names that are not UTF-8 arrive as lone surrogates; this writes those as JSON escapes
    return f"{text}\n".encode(errors="backslashreplace")
