"""Where the sets are: what was asked for is found in the folders given, or told with the command that fetches it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketclip.data.index import INDEX_FILE, read_index
from pocketclip.evaluate.sets.folders import (
    has_captions,
    has_classes,
    open_captioned,
    open_classes,
    open_packed,
    open_sugarcrepe,
)
from pocketclip.evaluate.sets.item import PictureSet
from pocketclip.evaluate.sets.tables import open_hub, open_parquet, open_saved
from pocketclip.evaluate.sets.webdataset import is_webdataset, open_webdataset
from pocketclip.evaluate.tasks import SUITES, Kind, Task, find_tasks, nearest

HUB = "hf:"
EMOJI = "emoji"
"""The set of the demo, by which everything can be tried without a download."""

Layout = Literal["packed", "webdataset", "saved", "parquet", "sugarcrepe", "captioned", "classes", "hub"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a set is.

    Attributes:
        layout: how it is stored.
        path: folder, table or name on the hub.
        split: of a packed folder.
    """

    layout: Layout
    path: str
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A task and the set it is to be measured on."""

    task: Task
    place: Place


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A task that cannot be measured.

    Attributes:
        key: of the task.
        name: for people.
        reason: why, one sentence.
        command: what would fetch the set, a line; empty where nothing is known to.
    """

    key: str
    name: str
    reason: str
    command: str = ""


def locate(asked: Sequence[str], *, roots: Sequence[Path]) -> tuple[tuple[Wanted, ...], tuple[Missing, ...]]:
    """Finds sets.

    Args:
        asked: each the name of a task or suite (`cifar10`, `vtab/pets`, `datacomp`), of a folder in one of the roots,
            NAME=FOLDER, NAME=hf:ORG/NAME or hf:ORG/NAME.
        roots: folders with a folder for each set; the first that has it counts.

    Returns:
        What can be opened, and what is missing, both in the order asked, each task once.

    Raises:
        ValueError: a name that is neither in the table nor in a root, or a folder that holds no set.
        OSError: a folder that cannot be read.
    """
    wanted: dict[str, Wanted] = {}
    missing: dict[str, Missing] = {}
    for name in asked:
        for found in _look(name, roots=roots):
            if isinstance(found, Wanted):
                wanted.setdefault(found.task.key, found)
            else:
                missing.setdefault(found.key, found)
    return tuple(wanted.values()), tuple(missing.values())


def open_set(wanted: Wanted) -> PictureSet:
    """Opens a set for reading.

    Raises:
        ValueError: it is damaged, or not what the task needs.
        OSError: it cannot be read.
    """
    found = _open(wanted.place, task=wanted.task)
    lacks = _lacks(found, kind=wanted.task.kind)
    if lacks:
        raise ValueError(f"{wanted.place.path} cannot be used for {wanted.task.name}: {lacks}")
    return found


def _open(place: Place, *, task: Task) -> PictureSet:
    path = Path(place.path)
    match place.layout:
        case "packed":
            assert place.split is not None
            return open_packed(path, split=place.split)
        case "webdataset":
            return open_webdataset(path, fields=task.groups.fields if task.groups else ())
        case "saved":
            return open_saved(path, task=task)
        case "parquet":
            return open_parquet(path, task=task)
        case "sugarcrepe":
            return open_sugarcrepe(path)
        case "captioned":
            return open_captioned(path)
        case "classes":
            return open_classes(path, task=task)
        case "hub":
            return open_hub(place.path, task=task)


def _look(name: str, *, roots: Sequence[Path]) -> Iterator[Wanted | Missing]:
    called, separator, path = name.partition("=")
    if name.startswith(HUB) or (separator and path.startswith(HUB)):
        reference = (path if separator else name).removeprefix(HUB)
        yield from _own_or_known(called if separator else name, Place(layout="hub", path=reference))
        return
    if separator:
        if not called or not Path(path).is_dir():
            raise ValueError(f"{name!r} is not NAME=FOLDER with a folder that is there, nor NAME=hf:ORG/NAME")
        yield from _in_folder(called, Path(path))
        return
    tasks = find_tasks(name)
    if not tasks:
        yield from _not_in_table(name, roots=roots)
    for task in tasks:
        place = next(
            (p for root in roots for folder in _names(task) if (p := _place(root / folder, task))), None
        )
        yield Wanted(task=task, place=place) if place else _not_there(task, roots=roots)


def _not_in_table(name: str, *, roots: Sequence[Path]) -> Iterator[Wanted | Missing]:
    folder = next((root / name for root in roots if (root / name).is_dir()), None)
    if folder is not None:
        yield from _in_folder(name, folder)
    elif name == EMOJI:
        yield Missing(
            key=EMOJI,
            name="Emoji",
            reason=f"it is not in {_listed(roots)}",
            command=f"pocketclip pack emoji {roots[0]}/emoji",
        )
    else:
        close = nearest(name)
        raise ValueError(
            f"there is no task {name!r}, and no folder of that name in {_listed(roots)}"
            + (f": did you mean {', '.join(close)}?" if close else f": suites are {', '.join(SUITES)}")
        )


def _in_folder(name: str, folder: Path) -> Iterator[Wanted]:
    """The sets in a folder that has a name: of one's own, or a task's of the table."""
    if (folder / INDEX_FILE).is_file():
        splits = read_index(folder).splits
        chosen = (
            [s for s in splits if s.startswith("test")]
            or [s for s in splits if s == "validation"]
            or list(splits)
        )
        for split in chosen:
            key = name if len(splits) == 1 else f"{name}/{split}"
            place = Place(layout="packed", path=str(folder), split=split)
            yield Wanted(task=_own_task(key, kind="retrieval"), place=place)
        return
    tasks = find_tasks(name)
    place = _place(folder, tasks[0] if tasks else None)
    if place is None:
        raise ValueError(
            f"{folder} holds no set: shards in test/, folders of classes, pictures with .txt beside them, Parquet "
            "files, or what `pocketclip pack` wrote"
        )
    yield from _own_or_known(name, place)


def _own_or_known(name: str, place: Place) -> Iterator[Wanted]:
    tasks = find_tasks(name)
    if len(tasks) > 1:
        raise ValueError(f"{name} is a suite of {len(tasks)} sets: give the place of each, NAME=PLACE")
    yield Wanted(task=tasks[0] if tasks else _own_task(name, kind=_kind(place)), place=place)


def _own_task(key: str, *, kind: Kind) -> Task:
    main = "mean_recall@1" if kind == "retrieval" else "acc1"
    return Task(key=key, name=key, kind=kind, main_metric=main, source="")


def _kind(place: Place) -> Kind:
    """Of a set of one's own: captions where there are no classes."""
    if place.layout == "webdataset":
        kind = Path(place.path) / "dataset_type.txt"
        return (
            "retrieval"
            if kind.is_file() and kind.read_text().strip().lower() == "retrieval"
            else "classification"
        )
    if place.layout == "captioned":
        return "retrieval"
    if place.layout in ("hub", "parquet", "saved"):
        found = _open(place, task=_own_task("", kind="classification"))
        return "classification" if found.items and found.items[0].label is not None else "retrieval"
    return "classification"


def _names(task: Task) -> Iterator[str]:
    """What a task's folder may be called."""
    mirrored = task.source.rpartition("/")[2]
    dashed = task.key.replace("/", "-")
    yield from (
        mirrored,
        task.key,
        dashed,
        task.short,
        f"wds_{dashed}_test",
        f"wds_{task.short}_test",
        f"wds_{task.short}",
    )
    if task.key.startswith("retrieval/flickr"):
        yield from ("flickr30k", "wds_flickr30k")
    if task.key.startswith("retrieval/mscoco"):
        yield from ("mscoco", "coco", "mscoco_captions", "wds_mscoco_captions")
    if task.kind == "choice":
        yield "sugarcrepe"


def _place(folder: Path, task: Task | None) -> Place | None:
    """How a folder holds a set, or None."""
    if task is not None and task.kind == "choice":
        table = folder / f"{task.key.partition('sugarcrepe_')[2]}.json"
        if table.is_file():
            return Place(layout="sugarcrepe", path=str(table))
    if not folder.is_dir():
        return None
    if (folder / INDEX_FILE).is_file():
        return None  # packed; of no public set
    checks: tuple[tuple[Layout, bool], ...] = (
        ("webdataset", is_webdataset(folder)),
        ("saved", (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()),
        ("parquet", next(folder.rglob("*.parquet"), None) is not None),
    )
    layout = next((layout for layout, there in checks if there), None)
    if layout is None and (task is None or task.kind == "retrieval") and has_captions(folder):
        layout = "captioned"
    if layout is None and (task is None or task.kind == "classification") and has_classes(folder):
        layout = "classes"
    return Place(layout=layout, path=str(folder)) if layout else None


def _not_there(task: Task, *, roots: Sequence[Path]) -> Missing:
    command = task.fetch_command.replace("{root}", str(roots[0]))
    return Missing(key=task.key, name=task.name, reason=f"it is not in {_listed(roots)}", command=command)


def _listed(roots: Sequence[Path]) -> str:
    return ", ".join(map(str, roots))


def _lacks(found: PictureSet, *, kind: Kind) -> str:
    """What a set would need for a kind of task, or nothing."""
    items = found.items
    match kind:
        case "classification" if any(item.label is None for item in items):
            return "some pictures have no label"
        case "faces" if any(len(item.metadata) < 4 for item in items):
            return "some pictures have no metadata (age, gender, race, race_binary)"
        case "retrieval" if any(not item.captions for item in items):
            return "some pictures have no caption"
        case "choice" if any(len(item.captions) != 2 for item in items):
            return "some pictures have not two captions, the right one and the wrong one"
        case "associations" if any(len(item.metadata) != 2 for item in items):
            return "it is no table of cues and candidates"
    return ""
