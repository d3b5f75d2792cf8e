"""How a browser is shown an original: as it is where it is safe and known, as a JPEG of it otherwise.

What the index read once may have been replaced since. A file is served only while its hash is that of what was
indexed; of very large ones, while size and time are.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pocketclip.search.media import read_media
from pocketclip.search.server.problems import Refusal
from pocketclip.search.store import IndexReader, Picture

_PICTURES: Mapping[str, str] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
}
_MAGIC: Mapping[str, tuple[tuple[int, bytes], ...]] = {
    "image/jpeg": ((0, b"\xff\xd8\xff"),),
    "image/png": ((0, b"\x89PNG\r\n\x1a\n"),),
    "image/webp": ((0, b"RIFF"), (8, b"WEBP")),
    "image/gif": ((0, b"GIF8"),),
    "image/avif": ((4, b"ftypavif"),),
    "image/bmp": ((0, b"BM"),),
}
_VIDEOS: Mapping[str, str] = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",  # the same container, and browsers play it under this name
    ".webm": "video/webm",
    ".mkv": "video/webm",  # WebM is a part of Matroska
    ".ogv": "video/ogg",
    ".avi": "video/x-msvideo",
    ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg",
    ".3gp": "video/3gpp",
    ".ts": "video/mp2t",
}
_JPEG_PX = 4096  # longest side of a JPEG that is made for a browser
_KEPT_CHECKS = 4096
_HASHED_BYTES = 2**28  # larger files, films that is, would keep their viewers waiting
_HEAD = 16


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How an item is shown.

    Attributes:
        media_type: of what is sent.
        is_converted: a JPEG is made of it.
    """

    media_type: str
    is_converted: bool


def how_shown(picture: Picture) -> Shown:
    """By its kind and name; a name that lies, or says nothing in a shard, is found out when the file is read."""
    if picture.key is not None:
        return Shown(media_type="image/*", is_converted=False)
    suffix = picture.path.suffix.lower()
    if picture.kind == "video":
        return Shown(media_type=_VIDEOS.get(suffix, "application/octet-stream"), is_converted=False)
    if picture.kind == "picture" and suffix in _PICTURES:
        return Shown(media_type=_PICTURES[suffix], is_converted=False)
    return Shown(media_type="image/jpeg", is_converted=True)


def picture_type(head: bytes) -> str | None:
    """Media type by the first bytes, of what browsers show safely; None for all else."""
    for media_type, marks in _MAGIC.items():
        if all(head[start : start + len(mark)] == mark for start, mark in marks):
            return media_type
    return None


class Originals:
    """The files behind items, as long as they are what was indexed.

    Args:
        reader: of the index.
    """

    def __init__(self, reader: IndexReader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._checked: OrderedDict[tuple[str, int, int, int], bool] = OrderedDict()

    def data(self, picture: Picture) -> bytes:
        """The encoded picture.

        Raises:
            Refusal: it is gone, or not any more what was indexed.
        """
        try:
            data = self._reader.data(picture.id)
        except (OSError, ValueError):
            raise _gone(picture) from None
        if hashlib.sha256(data).hexdigest() != picture.sha256:
            raise _changed(picture)
        return data

    def path(self, picture: Picture) -> tuple[Path, os.stat_result]:
        """The file of an item that is not in a shard, and its state.

        Raises:
            Refusal: it is gone, no plain file, or not any more what was indexed.
        """
        assert picture.key is None
        path = picture.file
        try:
            state = path.stat()
            is_same = stat.S_ISREG(state.st_mode) and (
                self._has_hash(path, state, picture.sha256)
                if state.st_size <= _HASHED_BYTES
                else _is_as_indexed(picture, state)
            )
        except OSError:
            raise _gone(picture) from None
        if not is_same:
            raise _changed(picture)
        return path, state

    def jpeg(self, picture: Picture) -> bytes:
        """A JPEG of a picture that browsers do not show.

        Raises:
            Refusal: as `data`, or it cannot be decoded here.
        """
        data = self.data(picture)
        try:
            image = next(
                iter(read_media(data, name=picture.path.name if picture.key is None else "").frames)
            ).image
        except (ValueError, ImportError) as error:
            raise Refusal(415, f"{picture.name} cannot be made into a JPEG here: {error}") from error
        if max(image.size) > _JPEG_PX:
            image.thumbnail((_JPEG_PX, _JPEG_PX))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        return file.getvalue()

    def _has_hash(self, path: Path, state: os.stat_result, sha256: str) -> bool:
        """Whether a file has the content that was indexed; asked again only when it was touched."""
        key = (sha256, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
        with self._lock:
            if key in self._checked:
                return self._checked[key]
        with path.open("rb") as file:
            is_same = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        with self._lock:
            self._checked[key] = is_same
            while len(self._checked) > _KEPT_CHECKS:
                self._checked.popitem(last=False)
        return is_same


def _is_as_indexed(picture: Picture, state: os.stat_result) -> bool:
    modified = datetime.fromtimestamp(state.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return state.st_size == picture.num_bytes and modified == picture.modified[:19]


def _gone(picture: Picture) -> Refusal:
    return Refusal(410, f"the file of item {picture.id} is not there any more: index its folder again")


def _changed(picture: Picture) -> Refusal:
    return Refusal(
        410, f"the file of item {picture.id} has changed since it was indexed: index its folder again"
    )
