"""Folders of WebDataset shards in the public mirror's layout.

    wds_vtab-pets_test/
      classnames.txt, zeroshot_classification_templates.txt     one a line; `{c}` stands for the class
      dataset_type.txt                                          "retrieval" where captions take the place of classes
      test/nshards.txt, test/0.tar, test/1.tar, ...

A sample is a picture (`.webp`, `.jpg`, `.png`), a label (`.cls`) or captions (`.txt`, one a line), and where there are
groups its metadata (`.npy` or `.json`, numbers in a fixed order).
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pocketclip.data.foreign.tars import Group, picture_of, read_group, read_groups
from pocketclip.data.index import Dropped
from pocketclip.evaluate.sets.item import Item, PictureSet, digest_of, read_lines, sized

_FACTS = ("cls", "txt", "npy", "json")


def open_webdataset(folder: Path, *, fields: Sequence[str] = ()) -> PictureSet:
    """Reads the facts of every sample; pictures are read when they are asked for.

    Args:
        folder: of the layout above, or one with tars right in it.
        fields: names of the metadata's numbers, for metadata in JSON.

    Raises:
        ValueError: shards are missing, or nothing can be used; the sentence names the folder.
        OSError: it cannot be read.
    """
    folder = Path(folder)
    tars = _tars(folder)
    kind = (read_lines(folder / "dataset_type.txt") or ("",))[0].lower()
    if kind == "multilabel":
        raise ValueError(f"{folder} has several labels a picture: use its single-label form")
    items: list[Item] = []
    places: list[tuple[Path, int, int]] = []
    dropped: list[Dropped] = []
    for path in tars:
        for group in read_groups(path, only=_FACTS):
            found = group if isinstance(group, Dropped) else _item(group, fields=fields)
            if isinstance(found, Dropped):
                dropped.append(found)
                continue
            assert not isinstance(group, Dropped)
            items.append(found)
            places.append((path, group.members[0].start, group.members[-1].end))
    if not items:
        first = f" (the first: {dropped[0].source}: {dropped[0].reason})" if dropped else ""
        raise ValueError(f"{folder} holds no sample that can be used{first}: fetch it again")

    def picture(row: int) -> bytes:
        path, start, end = places[row]
        member = picture_of(read_group(path, start=start, end=end).members)
        assert member is not None, "seen when the facts were read"
        return member.data

    names, templates = (
        read_lines(folder / f"{name}.txt") for name in ("classnames", "zeroshot_classification_templates")
    )
    return PictureSet(
        items=tuple(items),
        picture=picture,
        digest=digest_of(sized(tars, root=folder), *(names or ()), *(templates or ())),
        class_names=names,
        templates=templates,
        dropped=tuple(dropped),
    )


def is_webdataset(folder: Path) -> bool:
    """Whether a folder has tars where this layout has them."""
    return (
        (folder / "test/nshards.txt").is_file() or any(folder.glob("test/*.tar")) or any(folder.glob("*.tar"))
    )


def _tars(folder: Path) -> list[Path]:
    inside = folder / "test" if (folder / "test").is_dir() else folder
    count = read_lines(inside / "nshards.txt")
    if count is None:
        return sorted(inside.glob("*.tar"), key=lambda path: (len(path.name), path.name))
    try:
        tars = [inside / f"{number}.tar" for number in range(int(count[0]))]
    except (ValueError, IndexError):
        raise ValueError(f"{inside / 'nshards.txt'} holds no number: fetch the folder again") from None
    lost = [path for path in tars if not path.is_file()]
    if lost:
        raise ValueError(
            f"{lost[0]} is missing ({len(lost)} of {len(tars)} shards are): fetch the folder again"
        )
    return tars


def _item(group: Group, *, fields: Sequence[str]) -> Item | Dropped:
    member = picture_of(group.members)
    if member is None:
        return Dropped(source=group.source, reason="it has no picture")
    source = f"{group.source}.{member.extension}"
    try:
        label, text = group.data("cls"), group.data("txt")
        return Item(
            source=source,
            label=None if label is None else int(label.decode()),
            captions=() if text is None else tuple(text.decode().splitlines()),
            metadata=_metadata(group, fields=fields),
        )
    except (ValueError, KeyError, EOFError) as error:
        return Dropped(source=source, reason=f"its label, captions or metadata are damaged ({error})")


def _metadata(group: Group, *, fields: Sequence[str]) -> tuple[int, ...]:
    numbers, text = group.data("npy"), group.data("json")
    if numbers is not None:
        return tuple(int(value) for value in np.load(io.BytesIO(numbers), allow_pickle=False).reshape(-1))
    if text is None or not fields:
        return ()
    found = json.loads(text)
    return tuple(
        int(value) for value in (found if isinstance(found, list) else [found[name] for name in fields])
    )
