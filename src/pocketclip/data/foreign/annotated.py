"""Caption data sets whose records lie apart from their pictures: where both are, and reading them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeAlias, cast

from pocketclip.data.foreign.annotation_spec import TEXTS, AnnotationSpec
from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.foreign.coco import read_coco
from pocketclip.data.foreign.dci import DciText, read_dci, record_files
from pocketclip.data.foreign.docci import read_docci
from pocketclip.data.foreign.folder import CaptionedFile, in_order, read_candidates
from pocketclip.data.foreign.gbc import GbcText, read_gbc
from pocketclip.data.foreign.parquet import read_parquet
from pocketclip.data.foreign.recap import TEXT_FIELDS, RecapText, read_recap
from pocketclip.data.index import Dropped

_SPLIT_OF_COCO = re.compile(r"captions_([a-z]+\d{4})\.json")
_Found: TypeAlias = "tuple[list[CaptionedFile], list[Dropped]]"


def recognised(source: Path) -> AnnotationSpec | None:
    """The format of a file whose name gives it away; None for all else."""
    if source.is_file() and _SPLIT_OF_COCO.fullmatch(source.name):
        return AnnotationSpec(format="coco")
    if source.is_file() and source.name == "docci_descriptions.jsonlines":
        return AnnotationSpec(format="docci")
    return None


def record_paths(source: Path, spec: AnnotationSpec) -> list[Path]:
    """The files with a data set's records.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: a folder was given where a file is needed, or it holds no records.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if spec.format == "dci":
        return [source] if source.is_file() else record_files(source)
    if source.is_file():
        return [source]
    suffixes = {"gbc": (".jsonl", ".jsonl.gz", ".parquet"), "recap-coco": (".parquet",)}.get(spec.format, ())
    paths = sorted(path for path in source.iterdir() if path.name.endswith(suffixes)) if suffixes else []
    if not paths:
        raise ValueError(f"{source} is a folder without records: give the file of {spec.format}'s captions")
    return paths


def picture_folder(source: Path, spec: AnnotationSpec) -> Path | None:
    """Where the pictures are: the folder that was given, or the release's; None where they are inside the records.

    Raises:
        ValueError: there is no such folder.
    """
    if spec.pictures is not None:
        folder = Path(spec.pictures)
        if not folder.is_dir():
            raise ValueError(f"pictures {folder} is no folder: give the one with the pictures of {source}")
        return folder
    if spec.format == "recap-coco" and all(path.suffix == ".parquet" for path in record_paths(source, spec)):
        return None
    home = source if source.is_dir() else source.parent
    split = _SPLIT_OF_COCO.fullmatch(source.name)
    names = {
        "coco": (split[1],) if split else (),
        "docci": ("images",),
        "dci": ("photos",),
        "gbc": ("images",),
        "recap-coco": ("images", "train2017", "val2017"),
    }[spec.format]
    usual = [folder / name for folder in (home, home.parent) for name in names]
    found = next((folder for folder in usual if folder.is_dir()), None)
    if found is None:
        tried = " or ".join(map(str, usual)) or "the usual places"
        raise ValueError(f"{source}: the pictures are not in {tried}: say where they are with --pictures")
    return found


def read_annotated(
    source: Path, spec: AnnotationSpec, *, split_of: Callable[[str], str], salt: str
) -> tuple[Iterator[Candidate | Dropped], int | None]:
    """The items of a data set, pictures in hashed order, and how many there are, where known.

    Args:
        source: the file or folder of its records.
        spec: what to read.
        split_of: key -> split.
        salt: of the order.

    Raises:
        FileNotFoundError: there is no such source.
        ImportError: parquet, and pyarrow is not installed.
        ValueError: it is not of that format, or the pictures are not found.
    """
    paths = record_paths(source, spec)
    pictures = picture_folder(source, spec)
    text = spec.text or TEXTS[spec.format][0]
    if pictures is None:
        if text == "both":
            raise ValueError(f"{source}: a parquet table gives one of its texts, recaption or caption")
        fields = TEXT_FIELDS[text]
        return read_parquet(paths, root=paths[0].parent, split_of=split_of, caption_fields=fields), None
    captioned, dropped = _found(paths, spec, pictures=pictures, text=text)
    items = chain(dropped, read_candidates(in_order(captioned, salt=salt), split_of=split_of))
    return items, len(captioned) + len(dropped)


def _found(paths: list[Path], spec: AnnotationSpec, *, pictures: Path, text: str) -> _Found:
    match spec.format:
        case "coco":
            return read_coco(paths[0], pictures=pictures, licences=spec.licences)
        case "docci":
            return read_docci(paths[0], pictures=pictures, split=spec.split or "train")
        case "dci":
            return read_dci(paths, pictures=pictures, text=cast("DciText", text))
        case "gbc":
            return read_gbc(paths, pictures=pictures, text=cast("GbcText", text))
        case "recap-coco":
            return read_recap(paths[0], pictures=pictures, text=cast("RecapText", text))
