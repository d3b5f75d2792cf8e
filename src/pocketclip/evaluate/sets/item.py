"""What a set is to the evaluation: items in a fixed order, whose pictures are read one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pocketclip.data.index import Dropped


class SetError(ValueError):
    """A set lacks what is needed to measure on it."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture's facts.

    Attributes:
        source: names it to a person, "0.tar: s0000012.webp".
        label: its class, from 0; None in sets without classes.
        captions: texts that are right for it; of a choice the right one, then the wrong one; of an association the cue.
        metadata: numbers by which groups are told apart; of an association the number of the instance and whether the
            picture belongs to the cue.
        key: of a sample of our own.
    """

    source: str
    label: int | None = None
    captions: tuple[str, ...] = ()
    metadata: tuple[int, ...] = ()
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """A set that is open for reading.

    Attributes:
        items: every picture's facts.
        picture: row of `items` -> encoded picture; safe to call from several threads.
        digest: sha256 of what the set is made of (names and sizes of its files), to know it again.
        class_names: by label, from a file of the set's own; None where there is none.
        folder_names: what its folders or its table call the classes; None where they say nothing.
        templates: prompts that came with it, `{c}` for the class; None where there are none.
        shared_captions: equal captions are one text, which is right for all pictures that have it. Public retrieval
            sets count every caption for itself.
        dropped: what cannot be used, and why.
    """

    items: tuple[Item, ...]
    picture: Callable[[int], bytes]
    digest: str
    class_names: tuple[str, ...] | None = None
    folder_names: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    shared_captions: bool = False
    dropped: tuple[Dropped, ...] = ()


def digest_of(files: Iterable[tuple[str, int]], *facts: str) -> str:
    """sha256 of names and sizes in bytes, and of texts besides."""
    digest = hashlib.sha256()
    for name, num_bytes in files:
        digest.update(f"{name}\0{num_bytes}\0".encode(errors="surrogateescape"))
    for fact in facts:
        digest.update(f"{fact}\0".encode())
    return digest.hexdigest()


def sized(paths: Iterable[Path], *, root: Path) -> list[tuple[str, int]]:
    """Names within a folder and sizes, for `digest_of`."""
    return [(path.relative_to(root).as_posix(), path.stat().st_size) for path in paths]


def read_lines(path: Path) -> tuple[str, ...] | None:
    """The lines of a text file, stripped; None where there is no such file."""
    if not path.is_file():
        return None
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
