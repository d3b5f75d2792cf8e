"""Folders of files: one for each class, pictures with captions beside them, SugarCrepe's tables, our own shards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketclip.data.foreign.folder import is_picture
from pocketclip.data.index import read_index, split_shards
from pocketclip.data.shard import ShardReader
from pocketclip.evaluate.prompts import class_names, wordnet_ids
from pocketclip.evaluate.sets.item import Item, PictureSet, digest_of, read_lines, sized
from pocketclip.evaluate.tasks import Task

SPLITS = ("test", "val", "validation")
"""Folders within a set's that hold what is evaluated, the first that is there."""


def open_classes(folder: Path, *, task: Task) -> PictureSet:
    """A folder for each class, as torchvision's ImageFolder reads it.

    Labels are those of the task where the folders are called by WordNet id, by number or by the task's class names;
    otherwise folders are numbered in the order of their names, which then are the class names, "_" read as a space.

    Raises:
        ValueError: there is no picture, or folders that the task does not know beside some that it does.
        OSError: the folder cannot be read.
    """
    root = Path(folder)
    inside = next((root / name for name in SPLITS if _class_folders(root / name)), root)
    folders = _class_folders(inside)
    labels, names = _labels([path.name for path in folders], task=task, where=inside)
    files = [
        (path, label)
        for folder, label in zip(folders, labels, strict=True)
        for path in sorted(folder.rglob("*"))
        if is_picture(path) and path.is_file()
    ]
    if not files:
        raise ValueError(f"{inside} has folders for classes and no picture in them: fetch the set again")
    paths = [path for path, _ in files]
    return PictureSet(
        items=tuple(Item(source=path.relative_to(root).as_posix(), label=label) for path, label in files),
        picture=lambda row: paths[row].read_bytes(),
        digest=digest_of(sized(paths, root=root)),
        class_names=read_lines(root / "classnames.txt"),
        folder_names=names,
        templates=read_lines(root / "zeroshot_classification_templates.txt"),
    )


def has_classes(folder: Path) -> bool:
    """Whether there are folders with pictures, here or in one of `SPLITS`."""
    return any(_class_folders(place) for place in (*(folder / name for name in SPLITS), folder))


def open_captioned(folder: Path) -> PictureSet:
    """Pictures with a .txt of the same name beside them, one caption a line, or `image/` and `caption/` side by side.

    Raises:
        ValueError: no picture has a caption.
        OSError: the folder cannot be read.
    """
    root = Path(folder)
    pairs = _captioned(root)
    if not pairs:
        raise ValueError(f"{root} holds no picture with a .txt of its name: fetch the set again")
    paths = [path for path, _ in pairs]
    items = [Item(source=path.relative_to(root).as_posix(), captions=_captions(text)) for path, text in pairs]
    return PictureSet(
        items=tuple(items),
        picture=lambda row: paths[row].read_bytes(),
        digest=digest_of(sized([*paths, *(text for _, text in pairs)], root=root)),
    )


def has_captions(folder: Path) -> bool:
    """Whether `open_captioned` would find something."""
    return bool(_captioned(folder))


def open_sugarcrepe(table: Path) -> PictureSet:
    """One table of SugarCrepe, with COCO's val2017 beside it: each row a picture, its caption and a wrong one.

    Raises:
        ValueError: the table is damaged, or pictures are missing.
        OSError: it cannot be read.
    """
    table = Path(table)
    try:
        rows: Mapping[str, Mapping[str, str]] = json.loads(table.read_text(encoding="utf-8"))
        named = [(row["filename"], row["caption"], row["negative_caption"]) for row in rows.values()]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{table} is no table of SugarCrepe ({error}): fetch it again") from None
    places = [
        place for place in (table.parent / "val2017", table.parent / "images", table.parent) if place.is_dir()
    ]
    paths = [next((p for place in places if (p := place / name).is_file()), None) for name, _, _ in named]
    found = [path for path in paths if path is not None]
    if len(found) < len(paths):
        lost = named[paths.index(None)][0]
        raise ValueError(
            f"{table} names {len(paths) - len(found)} pictures that are not there, {lost} the first: unpack COCO's "
            f"http://images.cocodataset.org/zips/val2017.zip into {table.parent}"
        )
    return PictureSet(
        items=tuple(Item(source=name, captions=(right, wrong)) for name, right, wrong in named),
        picture=lambda row: found[row].read_bytes(),
        digest=digest_of([(table.name, table.stat().st_size)], *(name for name, _, _ in named)),
    )


def open_packed(folder: Path, *, split: str) -> PictureSet:
    """A split of a folder that `pocketclip pack` wrote, for retrieval by its main captions.

    Raises:
        ValueError: no such split, or nothing in it.
        OSError: the folder cannot be read.
    """
    paths = split_shards(folder, split)
    shards = [ShardReader(path) for path in paths]
    rows = [(shard, row) for shard in shards for row in range(len(shard))]
    if not rows:
        raise ValueError(
            f"split {split!r} of {folder} is empty: pack more pictures, or leave it out of `splits`"
        )
    return PictureSet(
        items=tuple(
            _packed_item(shard, row, file=f"{split}/{path.name}")
            for path, shard in zip(paths, shards, strict=True)
            for row in range(len(shard))
        ),
        picture=lambda row: rows[row][0][rows[row][1]].image,
        digest=digest_of([], *(entry.sha256 for entry in read_index(folder).splits[split])),
        shared_captions=True,
    )


def _packed_item(shard: ShardReader, row: int, *, file: str) -> Item:
    sample = shard[row]
    return Item(
        source=f"{file}: {sample.key}.{sample.extension}", captions=(sample.captions[0],), key=sample.key
    )


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [path for path in inside if any(is_picture(file) for file in path.iterdir())]


def _labels(folders: Sequence[str], *, task: Task, where: Path) -> tuple[list[int], tuple[str, ...] | None]:
    """The label of each folder, and what the folders call the classes where the task does not know better."""
    known = class_names(task) or ()
    for table in (wordnet_ids(task), [_plain(name) for name in known]):
        by_name = {name: label for label, name in enumerate(table)}
        labels = [by_name.get(name if name in by_name else _plain(name)) for name in folders]
        if labels and all(label is not None for label in labels):
            return [label for label in labels if label is not None], None
        if any(label is not None for label in labels):
            stranger = folders[labels.index(None)]
            raise ValueError(
                f"{where} has a folder {stranger} that is no class of {task.name} among others that are: remove it"
            )
    if all(name.isdecimal() for name in folders):
        first = min(int(name) for name in folders)
        return [int(name) - first for name in folders], None if known else tuple(folders)
    return list(range(len(folders))), tuple(name.replace("_", " ") for name in folders)


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()


def _captioned(root: Path) -> list[tuple[Path, Path]]:
    images, captions = root / "image", root / "caption"
    if images.is_dir() and captions.is_dir():
        pairs = [(path, captions / f"{path.stem}.txt") for path in images.iterdir() if is_picture(path)]
    else:
        pairs = [(path, path.with_suffix(".txt")) for path in root.rglob("*") if is_picture(path)]
    return sorted((path, text) for path, text in pairs if text.is_file())


def _captions(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
