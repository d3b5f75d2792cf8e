"""Where the samples of a shard lie: found at once for all of them, kept as numbers."""

# Shape suffixes: M members of a tar, N samples.

from __future__ import annotations

import numpy as np

from pocketclip.data.sample import IMAGE_EXTENSIONS

_BLOCK = 512
_EXTENSIONS = frozenset(extension.encode() for extension in IMAGE_EXTENSIONS)
# Where a ustar header has what: start and end of name, size, checksum and magic; the kind of member.
_NAME, _SIZE, _CHECKSUM, _MAGIC, _KIND = slice(0, 100), slice(124, 135), slice(148, 156), slice(257, 262), 156


def find_places(view: memoryview) -> np.ndarray | None:
    """Where the samples at the head of a shard lie, as `data/shard.py` writes it.

    Args:
        view: of the whole file.

    Returns:
        int64 [N, 4]: first byte of the picture and the one after its last, likewise of the details. None for a shard
        that is damaged or laid out in another way: whoever reads it member by member will know why.
    """
    starts, sizes = _chain(view)
    if starts is None or len(starts) % 3:
        return None
    if not starts:
        return np.zeros((0, 4), np.int64)
    start_M, size_M = np.array(starts), np.array(sizes)
    end = int(start_M[-1] + _BLOCK + -(-size_M[-1] // _BLOCK) * _BLOCK)
    if end > len(view):
        return None
    headers = np.frombuffer(view[:end], np.uint8).reshape(-1, _BLOCK)[start_M // _BLOCK]
    if not _are_whole(headers) or not _are_samples(headers):
        return None
    data_M = start_M + _BLOCK
    return np.stack(
        [data_M[0::3], (data_M + size_M)[0::3], data_M[2::3], (data_M + size_M)[2::3]], axis=1
    ).astype(np.int64)


def end_of_samples(places_N4: np.ndarray) -> int:
    """The byte where what comes after the samples begins."""
    return -(-int(places_N4[-1, 3]) // _BLOCK) * _BLOCK if len(places_N4) else 0


def key_at(view: memoryview, image_start: int) -> tuple[str, str]:
    """Key and extension of the sample whose picture begins there."""
    name = bytes(view[image_start - _BLOCK :][_NAME]).rstrip(b"\0").decode("ascii")
    key, _, extension = name.partition(".")
    return key, extension


def _chain(view: memoryview) -> tuple[list[int] | None, list[int]]:
    """Starts and sizes of the members before the first block or the end."""
    starts: list[int] = []
    sizes: list[int] = []
    at = 0
    while at < len(view) and view[at] and view[at : at + 2] != b"__":
        try:
            size = int(bytes(view[at + _SIZE.start : at + _SIZE.stop]), 8)
        except ValueError:
            return None, sizes
        if size < 0:
            return None, sizes
        starts.append(at)
        sizes.append(size)
        at += _BLOCK + size + -size % _BLOCK
    return starts, sizes


def _are_whole(headers: np.ndarray) -> bool:
    """Whether uint8 [M, 512] are headers of plain files whose checksums are right."""
    written = headers[:, _CHECKSUM].astype(np.int64)
    digits = written[:, :6] - ord("0")
    sums = headers.sum(axis=1, dtype=np.int64) - written.sum(axis=1) + 8 * ord(" ")
    return bool(
        (digits >= 0).all()
        and (digits < 8).all()
        and (digits @ 8 ** np.arange(5, -1, -1) == sums).all()
        and (headers[:, _MAGIC] == np.frombuffer(b"ustar", np.uint8)).all()
        and np.isin(headers[:, _KIND], (0, ord("0"))).all()
    )


def _are_samples(headers: np.ndarray) -> bool:
    """Whether the members come in threes: the picture, its text and its details."""
    names = np.ascontiguousarray(headers[:, _NAME]).view("S100").ravel().tolist()
    for picture, text, details in zip(names[0::3], names[1::3], names[2::3], strict=True):
        key, _, extension = picture.partition(b".")
        if extension not in _EXTENSIONS or text != key + b".txt" or details != key + b".json":
            return False
    return all(name.isascii() for name in names)
