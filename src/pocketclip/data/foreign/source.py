"""People's own pictures and captions, in whichever of the common layouts they come."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.foreign.folder import (
    CaptionedFile,
    find_sidecar_pictures,
    in_order,
    is_picture,
    read_candidates,
    read_table,
)
from pocketclip.data.foreign.parquet import read_parquet
from pocketclip.data.foreign.tars import read_tars
from pocketclip.data.index import Dropped, read_index

LAYOUTS = (
    "pictures with a .txt of the same name beside each; "
    "metadata.jsonl or captions.csv (columns file_name and text) and the pictures it names; "
    "WebDataset .tar files; .parquet with the pictures' bytes in it"
)

_TABLE_NAMES = tuple(
    f"{stem}{suffix}" for stem in ("metadata", "captions") for suffix in (".jsonl", ".csv", ".tsv")
)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")

_Items: TypeAlias = Iterator[Candidate | Dropped]


def list_files(source: Path) -> tuple[list[Path], Path]:
    """Files of a source in order, and the folder their names are relative to."""
    if is_pattern(str(source)):
        paths = [Path(name) for name in expand(str(source))]
        if not any(path.is_file() for path in paths):
            raise FileNotFoundError(f"{source}: none of its {len(paths)} files is there ({paths[0]}, ...)")
        return paths, Path(os.path.commonpath([path.parent for path in paths]))
    if source.is_file():
        return [source], source.parent
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if is_packed(source):
        raise ValueError(f"{source} is already a packed folder: use it as it is")
    files: list[Path] = []
    for folder, subfolders, names in os.walk(source, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__MACOSX")))
        files += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return files, source


def is_packed(folder: Path) -> bool:
    """Whether a folder is one that `pack` or `reinforce` finished."""
    try:
        read_index(folder)
    except (FileNotFoundError, ValueError):  # none, or some other tool's index.json
        return False
    return True


def is_pattern(name: str) -> bool:
    """Whether a name has a range in braces."""
    return _RANGE.search(name) is not None


def expand(pattern: str) -> list[str]:
    """The names that a pattern with ranges in braces stands for: `{000..127}`; any number of ranges."""
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match[1], match[2]
    width = len(first) if len(first) == len(last) else 0
    numbers = range(int(first), int(last) + 1)
    if not numbers:
        raise ValueError(f"{pattern}: the range {match[0]} is empty, write the smaller number first")
    return [
        path
        for number in numbers
        for path in expand(f"{pattern[: match.start()]}{number:0{width}d}{pattern[match.end() :]}")
    ]


def read_source(
    source: Path, files: Sequence[Path], *, root: Path, split_of: Callable[[str], str], salt: str
) -> tuple[_Items, int | None]:
    """The items of a source in the layout it turns out to have, and how many there are, where known."""
    tables = _tables(source, files)
    tars = [path for path in files if path.suffix.casefold() == ".tar"]
    parquets = [path for path in files if path.suffix.casefold() == ".parquet"]
    pictures = [path for path in files if is_picture(path)]
    if not tables and sum(map(bool, (tars, parquets, pictures))) > 1:
        raise ValueError(
            f"{source} holds pictures, tars or parquet side by side: pack one kind at a time, "
            f"each from a folder of its own"
        )
    if not tables and tars:
        return read_tars(tars, split_of=split_of), None
    if not tables and parquets:
        return read_parquet(parquets, root=root, split_of=split_of), None
    found = find_pictures(source, files, root=root)
    if found is not None:
        captioned, dropped = found
        items = chain(dropped, read_candidates(in_order(captioned, salt=salt), split_of=split_of))
        return items, len(captioned) + len(dropped)
    raise ValueError(f"{source} holds nothing that can be packed. What is understood: {LAYOUTS}")


def find_pictures(
    source: Path, files: Sequence[Path], *, root: Path
) -> tuple[list[CaptionedFile], list[Dropped]] | None:
    """Captioned picture files among the files of a source, and what cannot be used; None where there are none."""
    tables = _tables(source, files)
    if tables:
        found = [read_table(path, root=root) for path in tables]
    elif not source.is_file() and any(is_picture(path) for path in files):
        found = [find_sidecar_pictures(files, root=root)]
    else:
        return None
    pictures, dropped = zip(*found, strict=True)
    return list(chain.from_iterable(pictures)), list(chain.from_iterable(dropped))


def _tables(source: Path, files: Sequence[Path]) -> list[Path]:
    """Tables of captions: those of the usual names, or a file that was given by its own."""
    tables = [path for path in files if path.name.casefold() in _TABLE_NAMES]
    if source.is_file() and not tables and source.suffix.casefold() in (".jsonl", ".csv", ".tsv"):
        return [source]
    return tables
