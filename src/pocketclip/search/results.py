"""What was found, for other programs: values, a table, a folder of links."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pocketclip.data.publish import publish_file, publish_folder

if TYPE_CHECKING:
    from pocketclip.search.listings import Group
    from pocketclip.search.question import Hit
    from pocketclip.search.store import IndexReader

COLUMNS = (
    *("rank", "score", "path", "key", "at_s", "caption", "kind", "taken", "modified"),
    *("width", "height", "num_bytes", "latitude", "longitude", "id", "sha256"),
)
"""Of a table of hits."""

LISTING = "hits.json"
"""In a folder of links: what was found. It marks the folder as ours, which a later search may replace."""


def values(hit: Hit) -> dict[str, object]:
    """A hit as plain data, a key for each of `COLUMNS`; the path is absolute, times are ISO 8601, places degrees."""
    picture = hit.picture
    own = {"rank": hit.rank, "score": round(hit.score, 6), "path": str(hit.path)}
    return {name: own[name] if name in own else getattr(picture, name) for name in COLUMNS}


def write_csv(hits: Sequence[Hit], path: Path) -> None:
    """A table of hits: UTF-8, a header, one row each; names that are not UTF-8 keep their bytes.

    Raises:
        OSError: it cannot be written.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(_safe(values(hit)) for hit in hits)
    with publish_file(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def write_json(hits: Sequence[Hit], path: Path, *, about: Mapping[str, object] | None = None) -> None:
    """Hits as JSON, `{"hits": [...]}`.

    Args:
        hits: nearest first.
        path: the file.
        about: more that belongs to the answer, put before the hits.

    Raises:
        OSError: it cannot be written.
    """
    with publish_file(path) as file:
        file.write(_json(hits, about or {}))


def write_links(hits: Sequence[Hit], folder: Path, *, reader: IndexReader) -> int:
    """A folder with a link to each picture that was found, named by rank; relative, so that both may move together.

    Samples of shards are copied, as are files where the file system has no links. A video has a link for each of its
    moments that was found, with the time in its name. The folder appears whole; one that an earlier search wrote is
    replaced.

    Args:
        hits: nearest first.
        folder: to write.
        reader: of the index.

    Returns:
        Files that were copied.

    Raises:
        FileExistsError: a folder with other files is there.
        OSError: it cannot be written, or a picture cannot be read.
        ValueError: a shard has lost its sample.
    """
    with publish_folder(folder, marker=LISTING) as partial:
        num_copied = _fill(partial, hits, reader=reader)
        (partial / LISTING).write_bytes(_json(hits, {}))
    return num_copied


def write_groups(groups: Sequence[Group], folder: Path, *, reader: IndexReader) -> int:
    """As `write_links`, with a folder for each group, named by number and title."""
    digits = len(str(len(groups)))
    num_copied = 0
    with publish_folder(folder, marker=LISTING) as partial:
        for number, group in enumerate(groups, start=1):
            inside = partial / f"{number:0{digits}d} {_plain(group.title)}"
            inside.mkdir()
            num_copied += _fill(inside, group.hits, reader=reader)
        listed = [{"title": group.title, "hits": [values(hit) for hit in group.hits]} for group in groups]
        (partial / LISTING).write_bytes(json.dumps({"groups": listed}, indent=1).encode())
    return num_copied


def _fill(folder: Path, hits: Sequence[Hit], *, reader: IndexReader) -> int:
    """Links or copies hits into a folder; how many were copied."""
    digits = len(str(max((hit.rank for hit in hits), default=1)))
    return sum(
        _put(hit, folder, name=f"{hit.rank:0{digits}d} {_file_name(hit)}", reader=reader) for hit in hits
    )


def _put(hit: Hit, folder: Path, *, name: str, reader: IndexReader) -> bool:
    """Links or copies a picture into a folder; whether it was copied."""
    if hit.key is not None:
        data = reader.data(hit.id)
        (folder / f"{name}{_suffix(data)}").write_bytes(data)
        return True
    try:
        there = hit.path.parent.resolve() / hit.path.name  # ".." is of the real folder, not of a link to it
        (folder / name).symlink_to(os.path.relpath(there, folder.resolve()))
    except (OSError, NotImplementedError, ValueError):  # no links here, no right to make them, another drive
        shutil.copy2(hit.path, folder / name)
        return True
    return False


def _file_name(hit: Hit) -> str:
    """Without the rank; a sample's key may hold what a file's name may not."""
    if hit.key is not None:
        return _plain(hit.key)
    at_s = hit.picture.at_s
    return hit.path.name if at_s is None else f"{clock(at_s).replace(':', '-')} {hit.path.name}"


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_. " else "-" for c in text)


def clock(seconds: float) -> str:
    """A moment of a video: 1:05, or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _suffix(data: bytes) -> str:
    from pocketclip.data.picture import probe

    try:
        extension, _, _ = probe(data, name="a sample")
    except ValueError:
        return ""
    return f".{extension}"


def _safe(row: dict[str, object]) -> dict[str, object]:
    """A spreadsheet takes a text that begins like this for a formula, and runs it."""
    return {
        name: f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
        for name, value in row.items()
    }


def _json(hits: Sequence[Hit], about: Mapping[str, object]) -> bytes:
    return json.dumps({**about, "hits": [values(hit) for hit in hits]}, indent=1).encode()
