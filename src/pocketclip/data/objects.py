"""Where files are kept: a folder or an object store, behind one small protocol.

A name in a store is a path with `/` between its parts, relative to the store's place. What is written appears under its
name whole or not at all, and `put_once` never replaces anything: of two writers of one name the first wins, on a folder
by a hard link, in an object store by a conditional put.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from pocketclip.data.publish import cannot_write, disk_full, flush_folder, flush_to_disk

PARTIAL = ".partial"
"""Folder of a store for what is not whole yet; whatever is in it may be deleted while nobody writes."""

OTHER_BYTES = (
    "is there already and holds other bytes, made with another configuration or input: choose another output or "
    "delete it"
)
"""What `put_once` says of a name that is taken."""

_CHUNK = 1 << 20
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """One file of a store."""

    name: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a store is, as plain data: a worker elsewhere opens it for itself.

    Attributes:
        url: a folder, or `s3://bucket/path`, `gs://...`, `az://...`.
        options: of an object store's client, `endpoint` or `region` say; credentials come from the environment.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of this machine."""
        return "://" not in self.url


class Store(Protocol):
    """Files by name. Errors are of the OSError family, one sentence each."""

    place: Place

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """All files in the folder `prefix` and below, in a fixed order; none where there is no such folder."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None where there is none of that name."""
        ...

    def read(self, name: str) -> bytes:
        """All bytes of a file. FileNotFoundError where there is none."""
        ...

    def fetch(self, name: str) -> AbstractContextManager[Path]:
        """A file as a path of this machine: itself, or a copy that goes when the context ends."""
        ...

    def scratch(self) -> AbstractContextManager[IO[bytes]]:
        """An empty file to write and read, where `put` and `put_once` can take it from; it goes with the context."""
        ...

    def put(self, name: str, data: bytes | IO[bytes]) -> None:
        """Writes a file whole, in place of one that is there. `data` is bytes or a file of `scratch`."""
        ...

    def put_once(self, name: str, data: bytes | IO[bytes]) -> bool:
        """Writes a file whole unless there is one.

        Returns:
            True when it is new, False when one of the same bytes was there.

        Raises:
            FileExistsError: one of other bytes is there; it is untouched.
        """
        ...

    def delete(self, name: str) -> None:
        """Removes a file, if it is there."""
        ...

    def delete_folder(self, prefix: str) -> None:
        """Removes a folder and all that is in it, if it is there."""
        ...

    def local(self, name: str) -> Path | None:
        """The file's path on this machine, where the store is a folder."""
        ...


def open_store(place: Place) -> Store:
    """The store at a place.

    Raises:
        ValueError: no such kind of store, or an option that it does not have.
        ImportError: an object store, and the extra `stores` is not installed.
    """
    if place.is_folder:
        return FolderStore(place)
    from pocketclip.data.remote import ObjectStore

    return ObjectStore(place)


class FolderStore:
    """A folder of this machine, or of a file system that several machines share.

    Args:
        place: its path; the folder need not be there.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._root = Path(place.url)

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """See `Store`."""
        for folder, subfolders, names in os.walk(self._root / prefix, followlinks=True):
            subfolders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                with suppress(FileNotFoundError):  # gone since the folder was read
                    size = path.stat().st_size
                    yield Stored(name=path.relative_to(self._root).as_posix(), num_bytes=size)

    def size(self, name: str) -> int | None:
        """See `Store`."""
        path = self._root / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str) -> bytes:
        """See `Store`."""
        return (self._root / name).read_bytes()

    @contextmanager
    def fetch(self, name: str) -> Generator[Path, None, None]:
        """See `Store`."""
        yield self._root / name

    @contextmanager
    def scratch(self) -> Generator[IO[bytes], None, None]:
        """See `Store`."""
        folder = self._root / PARTIAL
        with cannot_write(self._root):
            folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115 - closed below, where it may fail otherwise
        with disk_full(self._root, Path(file.name)), file:
            yield file

    def put(self, name: str, data: bytes | IO[bytes]) -> None:
        """See `Store`."""
        path = self._root / name
        with self._written(data) as written, cannot_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _second_name(written).replace(path)
            flush_folder(path.parent)

    def put_once(self, name: str, data: bytes | IO[bytes]) -> bool:
        """See `Store`."""
        path = self._root / name
        with self._written(data) as written:
            with cannot_write(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                is_new = _link_new(written, path)
                flush_folder(path.parent)
            if not is_new and not _same(written, path):
                raise FileExistsError(f"{path} {OTHER_BYTES}")
            return is_new

    def delete(self, name: str) -> None:
        """See `Store`."""
        (self._root / name).unlink(missing_ok=True)

    def delete_folder(self, prefix: str) -> None:
        """See `Store`."""
        shutil.rmtree(self._root / prefix, ignore_errors=True)

    def local(self, name: str) -> Path:
        """See `Store`."""
        return self._root / name

    @contextmanager
    def _written(self, data: bytes | IO[bytes]) -> Generator[Path, None, None]:
        """The data as a file of this file system that is on the disk."""
        if not isinstance(data, bytes):
            data.flush()
            flush_to_disk(data.fileno())
            yield Path(data.name)
            return
        with self.scratch() as file:
            file.write(data)
            file.flush()
            flush_to_disk(file.fileno())
            yield Path(file.name)


def _link_new(written: Path, path: Path) -> bool:
    """Gives a file a second name unless that is taken; False when it is."""
    try:
        os.link(written, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        _second_name(written).replace(path)  # without links the last of two writers wins, by the same bytes
    return True


def _second_name(written: Path) -> Path:
    """Another name of a temporary file, which outlives the first."""
    spare = written.with_name(f"{written.name}.whole")
    spare.unlink(missing_ok=True)
    try:
        os.link(written, spare)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(written, spare)
        with spare.open("rb") as file:
            flush_to_disk(file.fileno())
    return spare


def _same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(_CHUNK):
            if chunk != second.read(_CHUNK):
                return False
    return True
