"""Nothing half-written is visible under its final name."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PublishError(OSError):
    """An output that could not be written; the sentence names it and the remedy. `errno` is kept."""


@contextmanager
def publish_file(path: Path) -> Generator[BinaryIO, None, None]:
    """Opens a file for writing that appears under its name whole, or not at all.

    Writes to `.{name}.partial` beside it, flushes it to the disk, then renames it. After an exception the
    partial file is removed; after a kill it stays and the next run overwrites it. Missing parent folders
    are made.

    Args:
        path: the final name; an existing file is replaced.

    Yields:
        The binary file to write to.

    Raises:
        PublishError: disk full, or the place cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with cannot_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder has that name", str(path))
        file = partial.open("wb")
    try:
        with disk_full(path, partial), file:
            yield file
            file.flush()
            flush_to_disk(file.fileno())
        with cannot_write(path):
            partial.replace(path)
            flush_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def publish_folder(path: Path, *, marker: str | None = None) -> Generator[Path, None, None]:
    """Builds a folder that appears under its name whole, or not at all.

    Args:
        path: the final name; an existing folder is replaced.
        marker: name of a file that tells our own folders; when given, an existing folder that is not
            empty and lacks it is left alone (so a mistyped output never eats somebody's files).

    Yields:
        The empty folder `.{name}.partial` to fill.

    Raises:
        PublishError: disk full, or the place cannot be written.
        FileExistsError: the folder is there and lacks `marker`.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    old = path.with_name(f".{path.name}.old")
    with cannot_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file has that name", str(path))
        if old.exists():  # a run was killed between the two renames below
            if path.exists():
                shutil.rmtree(old)
            else:
                old.replace(path)
        if partial.exists():
            shutil.rmtree(partial)
    if marker is not None and path.exists() and any(path.iterdir()) and not (path / marker).exists():
        raise FileExistsError(
            f"{path} is a folder with other files in it (no {marker}): choose another output folder"
        )
    with cannot_write(path):
        partial.mkdir()
    try:
        with disk_full(path, partial):
            yield partial
            _flush_tree(partial)
        with cannot_write(path):
            if path.exists():
                path.replace(old)
            partial.replace(path)
            flush_folder(path.parent)
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not path.exists():
            old.replace(path)
        raise


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def cannot_write(path: Path) -> Generator[None, None, None]:
    """Turns any error of writing `path` into a `PublishError` that names it and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full(path, needed=0, error=error) from error
        remedy = "choose another output or change its permissions"
        raise _as_publish_error(
            f"cannot write {path}: {error.strerror or error} ({remedy})", error=error
        ) from error


@contextmanager
def disk_full(path: Path, partial: Path) -> Generator[None, None, None]:
    """Turns the error of a full disk, and no other, into a `PublishError` about `path`; `partial` tells its size.

    Only a full disk is ours to explain here: the caller may be reading other files in its body.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or isinstance(error, PublishError):
            raise
        raise _full(path, needed=_size(partial), error=error) from error


def _full(path: Path, *, needed: int, error: OSError) -> PublishError:
    megabytes = max(1, -(-needed // 1_000_000))
    return _as_publish_error(
        f"disk full while writing {path}: free some space (more than {megabytes} MB needed) or choose "
        f"another folder; nothing was left under that name",
        error=error,
    )


def _as_publish_error(sentence: str, *, error: OSError) -> PublishError:
    published = PublishError(sentence)
    published.errno = error.errno
    return published


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.exists())


def _flush_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                flush_to_disk(file.fileno())
        elif path.is_dir():
            flush_folder(path)
    flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Makes sure that the names in a folder outlive a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        flush_to_disk(number)
    finally:
        os.close(number)


def flush_to_disk(number: int) -> None:
    """Makes sure that the bytes of an open file outlive a power cut, where the file system can."""
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot flush folders
            raise
