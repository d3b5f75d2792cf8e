"""Sets as tables of Hugging Face `datasets`: from the hub by name, Parquet files, or what `save_to_disk` wrote.

Columns are found by what they are: pictures by their type, labels and captions by type or by the names in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketclip.evaluate.sets.item import Item, PictureSet, digest_of, sized
from pocketclip.evaluate.tasks import Task

if TYPE_CHECKING:
    from types import ModuleType

_LABELS = ("label", "labels", "cls", "class", "fine_label")
_CAPTIONS = ("caption", "captions", "sentences", "sentence", "texts", "text", "raw")


def open_hub(reference: str, *, task: Task) -> PictureSet:
    """A data set of the hub, `ORG/NAME[@REVISION]`: its split test, or the first of validation and train.

    Raises:
        ImportError: `datasets` is not installed.
        ValueError: it has no pictures, or not what the task needs.
        OSError: it cannot be found or fetched.
    """
    library = _library()
    name, _, revision = reference.partition("@")
    try:
        splits = library.get_dataset_split_names(name, revision=revision or None)
        split = next((s for s in ("test", "validation", "val", "train") if s in splits), splits[0])
        table = library.load_dataset(name, split=split, revision=revision or None)
    except (OSError, ValueError, RuntimeError) as error:
        raise OSError(f"hf:{reference} cannot be read from the hub ({_first_line(error)})") from error
    return _open(
        table, task=task, where=f"hf:{reference}", digest=digest_of([], reference, split, str(len(table)))
    )


def open_parquet(folder: Path, *, task: Task) -> PictureSet:
    """Parquet files anywhere in a folder, as the hub's `refs/convert/parquet` has them; those of the split test if any.

    Raises:
        ImportError: `datasets` is not installed.
        ValueError: the files are damaged, or not what the task needs.
    """
    library = _library()
    files = sorted(Path(folder).rglob("*.parquet"))
    tests = [path for path in files if "test" in path.relative_to(folder).as_posix().casefold()]
    files = tests or files
    try:
        table = library.load_dataset("parquet", data_files=[str(path) for path in files], split="train")
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{files[0]}, or one beside it, cannot be read ({_first_line(error)}): fetch it again"
        ) from error
    return _open(table, task=task, where=str(folder), digest=digest_of(sized(files, root=Path(folder))))


def open_saved(folder: Path, *, task: Task) -> PictureSet:
    """What `Dataset.save_to_disk` wrote.

    Raises:
        ImportError: `datasets` is not installed.
        ValueError: it is damaged, or not what the task needs.
    """
    library = _library()
    try:
        table = library.load_from_disk(str(folder))
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder} cannot be read ({_first_line(error)}): save it again") from error
    if isinstance(table, library.DatasetDict):
        table = table["test"] if "test" in table else next(iter(table.values()))
    files = sorted(Path(folder).rglob("*.arrow"))
    return _open(table, task=task, where=str(folder), digest=digest_of(sized(files, root=Path(folder))))


def _open(table: Any, *, task: Task, where: str, digest: str) -> PictureSet:  # noqa: ANN401
    if task.kind == "associations":
        return _associations(table, where=where, digest=digest)
    image = next((name for name, kind in table.features.items() if _is_picture(kind)), None)
    if image is None:
        raise ValueError(f"{where} has no column of pictures (it has {', '.join(table.column_names)})")
    facts = table.select_columns([name for name in table.column_names if name != image])
    label = _label_column(table)
    items = tuple(
        Item(
            source=f"{where}: row {number}",
            label=None if label is None or row[label] is None else int(row[label]),
            captions=_captions(row),
            metadata=_metadata(row, task=task),
        )
        for number, row in enumerate(facts)
    )
    names = getattr(table.features.get(label), "names", None) if label else None
    pictures = _undecoded(table.select_columns([image]), image)
    return PictureSet(
        items=items,
        picture=lambda row: _encoded(pictures[row][image]),
        digest=digest,
        folder_names=None if names is None else tuple(name.replace("_", " ") for name in names),
    )


def _associations(table: Any, *, where: str, digest: str) -> PictureSet:  # noqa: ANN401
    """WinoGAViL: each row a cue, several pictures, and which of them belong to it; an item a picture."""
    needed = ("cue", "candidates", "associations", "candidate_images")
    lacking = [name for name in needed if name not in table.column_names]
    if lacking:
        raise ValueError(f"{where} is not WinoGAViL: it has no column {', '.join(lacking)}")
    items, places = [], []
    for number, row in enumerate(table.select_columns(list(needed[:3]))):
        right = set(_listed(row["associations"]))
        for place, candidate in enumerate(_listed(row["candidates"])):
            source = f"{where}: row {number}, {candidate}"
            items.append(
                Item(source=source, captions=(row["cue"],), metadata=(number, int(candidate in right)))
            )
            places.append((number, place))
    pictures = _undecoded(table.select_columns(["candidate_images"]), "candidate_images")

    def picture(row: int) -> bytes:
        number, place = places[row]
        return _encoded(pictures[number]["candidate_images"][place])

    return PictureSet(items=tuple(items), picture=picture, digest=digest)


def _listed(value: object) -> Sequence[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def _captions(row: dict[str, Any]) -> tuple[str, ...]:
    name = next((name for name in _CAPTIONS if name in row), None)
    if name is None:
        return ()
    texts = tuple(_listed(row[name]))
    return (*texts, row["negative_caption"]) if "negative_caption" in row else texts


def _metadata(row: dict[str, Any], *, task: Task) -> tuple[int, ...]:
    fields = task.groups.fields if task.groups else ()
    if fields and all(name in row for name in fields):
        return tuple(int(row[name]) for name in fields)
    return tuple(int(value) for value in row.get("metadata", ()))


def _label_column(table: Any) -> str | None:  # noqa: ANN401
    typed = (name for name, kind in table.features.items() if hasattr(kind, "names"))
    return next(typed, next((name for name in _LABELS if name in table.column_names), None))


def _is_picture(kind: object) -> bool:
    """A column of pictures, or of the struct they are stored as."""
    return type(kind).__name__ == "Image" or (isinstance(kind, dict) and {"bytes", "path"} <= set(kind))


def _undecoded(table: Any, column: str) -> Any:  # noqa: ANN401
    """The table with encoded pictures: our decoder is the only one."""
    library = _library()
    kind = table.features[column]
    if type(kind).__name__ == "Image":
        return table.cast_column(column, library.Image(decode=False))
    inner = getattr(kind, "feature", kind[0] if isinstance(kind, list) else None)
    if type(inner).__name__ == "Image":
        return table.cast_column(column, library.List(library.Image(decode=False)))
    return table


def _encoded(value: dict[str, Any]) -> bytes:
    data = value.get("bytes")
    return Path(value["path"]).read_bytes() if data is None else data


def _library() -> ModuleType:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ImportError(
            f"reading Parquet and data sets of the hub needs {error.name}: pip install 'pocketclip[datasets]'"
        ) from error
    datasets.disable_progress_bars()
    return datasets


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
