"""People's own pictures and captions to shards, in whichever of the common layouts they come."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from pocketclip.data.index import Dropped, ShardIndex, read_index
from pocketclip.pack.folder import (
    CaptionedFile,
    find_sidecar_pictures,
    is_picture,
    read_candidates,
    read_table,
)
from pocketclip.pack.parquet import read_parquet
from pocketclip.pack.tars import read_tars
from pocketclip.pack.write import Candidate, PackJob, finished, unit_hash, write_folder

LAYOUTS = (
    "pictures with a .txt of the same name beside each; "
    "metadata.jsonl or captions.csv (columns file_name and text) and the pictures it names; "
    "WebDataset .tar files; .parquet with the pictures' bytes in it"
)

_LAYOUT = 1  # raise it when the same source and configuration would give other bytes
_TEXT_SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv")
_TABLE_NAMES = tuple(
    f"{stem}{suffix}" for stem in ("metadata", "captions") for suffix in (".jsonl", ".csv", ".tsv")
)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")

_Items: TypeAlias = Iterator[Candidate | Dropped]


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How to pack a source.

    Attributes:
        validation: fraction of the samples, by a hash of their keys, that become the split "validation".
        shard_samples: most samples a shard.
        salt: other salts draw another validation split and order.
    """

    validation: float = 0.05
    shard_samples: int = 1000
    salt: str = "pocketclip"

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation must be at least 0 and below 1, not {self.validation}")
        if self.shard_samples < 1:
            raise ValueError(f"shard_samples must be at least 1, not {self.shard_samples}")


def pack(source: Path, out: Path, *, config: PackConfig) -> ShardIndex:
    """Packs pictures with captions into shards, with the splits "train" and "validation".

    Every picture is decoded once; what cannot be used is dropped, counted and listed in the index with
    its reason. The same files and configuration give the same bytes; a folder that already holds them is
    left as it is. A folder of pictures is packed in hashed order, tars and tables in their own.

    Args:
        source: a folder, a table, a tar, a parquet file, or tars as a pattern "shards/{000..127}.tar".
            Layouts that are understood: `LAYOUTS`.
        out: the folder to make.
        config: split and size.

    Returns:
        The index of the folder.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: the source holds nothing that can be packed, or `out` holds something else.
        ImportError: the source is parquet and pyarrow is not installed.
        PublishError: `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    files, root = _list_files(source)
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out} lies inside {source}: choose an output folder elsewhere")
    job = PackJob(
        out=out,
        source=str(source),
        config={**asdict(config), "layout": _LAYOUT, "fingerprint": _fingerprint(files, root=root)},
        shard_samples=dict.fromkeys(("train", "validation"), config.shard_samples),
    )
    done = finished(job)
    if done is not None:
        return done

    def split_of(key: str) -> str:
        return "validation" if unit_hash(config.salt, "validation", key) < config.validation else "train"

    items, total = _read(source, files, root=root, split_of=split_of, salt=config.salt)
    return write_folder(job, items, total=total)


def _list_files(source: Path) -> tuple[list[Path], Path]:
    """Files of a source in order, and the folder their names are relative to."""
    if _RANGE.search(str(source)):
        paths = _expand(str(source))
        if not any(path.is_file() for path in paths):
            raise FileNotFoundError(f"{source}: none of its {len(paths)} files is there ({paths[0]}, ...)")
        return paths, Path(os.path.commonpath([path.parent for path in paths]))
    if source.is_file():
        return [source], source.parent
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if _is_packed(source):
        raise ValueError(f"{source} is already a packed folder: use it as it is")
    files: list[Path] = []
    for folder, subfolders, names in os.walk(source, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__MACOSX")))
        files += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return files, source


def _is_packed(folder: Path) -> bool:
    try:
        read_index(folder)
    except (FileNotFoundError, ValueError):  # none, or some other tool's index.json
        return False
    return True


def _expand(pattern: str) -> list[Path]:
    match = _RANGE.search(pattern)
    if match is None:
        return [Path(pattern)]
    first, last = match[1], match[2]
    width = len(first) if len(first) == len(last) else 0
    numbers = range(int(first), int(last) + 1)
    if not numbers:
        raise ValueError(f"{pattern}: the range {match[0]} is empty, write the smaller number first")
    return [
        path
        for number in numbers
        for path in _expand(f"{pattern[: match.start()]}{number:0{width}d}{pattern[match.end() :]}")
    ]


def _fingerprint(files: Sequence[Path], *, root: Path) -> str:
    """SHA-256 over names, sizes and the content of text files: tells whether a source has changed."""
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(root).as_posix()
        try:
            content = (
                hashlib.sha256(path.read_bytes()).hexdigest()
                if path.suffix.casefold() in _TEXT_SUFFIXES
                else ""
            )
            line = f"{name}\0{path.stat().st_size}\0{content}\n"
        except OSError:
            line = f"{name}\0unreadable\n"
        digest.update(line.encode(errors="surrogatepass"))
    return digest.hexdigest()


def _read(
    source: Path, files: Sequence[Path], *, root: Path, split_of: Callable[[str], str], salt: str
) -> tuple[_Items, int | None]:
    """The items of a source in the layout it turns out to have, and how many there are, where known."""
    tables = [path for path in files if path.name.casefold() in _TABLE_NAMES]
    tars = [path for path in files if path.suffix.casefold() == ".tar"]
    parquets = [path for path in files if path.suffix.casefold() == ".parquet"]
    pictures = [path for path in files if is_picture(path)]
    if source.is_file() and not tables and source.suffix.casefold() in (".jsonl", ".csv", ".tsv"):
        tables = [source]
    if not tables and sum(map(bool, (tars, parquets, pictures))) > 1:
        raise ValueError(
            f"{source} holds pictures, tars or parquet side by side: pack one kind at a time, "
            f"each from a folder of its own"
        )
    if tables:
        return _captioned((read_table(path, root=root) for path in tables), split_of=split_of, salt=salt)
    if tars:
        return read_tars(tars, split_of=split_of), None
    if parquets:
        return read_parquet(parquets, root=root, split_of=split_of), None
    if pictures and not source.is_file():
        return _captioned([find_sidecar_pictures(files, root=root)], split_of=split_of, salt=salt)
    raise ValueError(f"{source} holds nothing that can be packed. What is understood: {LAYOUTS}")


def _captioned(
    found: Iterable[tuple[list[CaptionedFile], list[Dropped]]], *, split_of: Callable[[str], str], salt: str
) -> tuple[_Items, int]:
    pictures: list[CaptionedFile] = []
    dropped: list[Dropped] = []
    for some, others in found:
        pictures += some
        dropped += others
    items = chain(dropped, read_candidates(pictures, split_of=split_of, salt=salt))
    return items, len(pictures) + len(dropped)
