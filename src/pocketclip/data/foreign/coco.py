"""MSCOCO's caption annotations: one JSON file with pictures, licences and captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from pocketclip.data.foreign.fields import parse_captions, parse_record
from pocketclip.data.foreign.folder import CaptionedFile
from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue

PERMISSIVE = (4, 5, 6)
"""Licence ids of the subset that is called MSCOCO-38k: CC Attribution, Attribution-ShareAlike and Attribution-NoDerivs
2.0 (arXiv 2508.20691, section 2.5). The others are 1 to 3, the non-commercial ones, 7 (no known restrictions) and 8
(work of the United States' government)."""

_ABOUT = ("coco_url", "flickr_url")


def read_coco(
    path: Path, *, pictures: Path, licences: Collection[int] = ()
) -> tuple[list[CaptionedFile], list[Dropped]]:
    """Reads `captions_train2017.json` or its like; a picture's captions are put together, in the file's order.

    Args:
        path: of the annotations.
        pictures: folder of the files that they name.
        licences: ids of those to keep; empty for all.

    Returns:
        The pictures in the file's order, each with its licence's name as `meta["licence"]`; and what is left out: a
        line for each licence that is not wanted, with its count, and one for each picture without captions.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        record = parse_record(path.read_bytes())
        images, annotations = _rows(record, "images"), _rows(record, "annotations")
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; MSCOCO's captions are in captions_train2017.json and its like"
        ) from error
    names = {one.get("id"): str(one.get("name", "")) for one in _optional_rows(record, "licenses")}
    captions = _captions(annotations, path=path)
    found: list[CaptionedFile] = []
    dropped: list[Dropped] = []
    unwanted: Counter[JsonValue] = Counter()
    for image in images:
        licence, name = image.get("license"), image.get("file_name")
        if licences and licence not in licences:
            unwanted[licence if isinstance(licence, int) else None] += 1
            continue
        texts = captions.get(image.get("id"), ())
        if not isinstance(name, str) or not texts:
            what = "no file_name" if not isinstance(name, str) else "no caption"
            dropped.append(Dropped(source=f"{path.name}: image {image.get('id')}", reason=what))
            continue
        meta = {field: image[field] for field in _ABOUT if isinstance(image.get(field), str)}
        if licence in names:
            meta["licence"] = names[licence]
        found.append(CaptionedFile(path=pictures / name, name=name, captions=list(texts), meta=meta))
    return found, [*_left_out(unwanted, names=names, path=path), *dropped]


def _rows(record: dict[str, JsonValue], field: str) -> list[dict[str, JsonValue]]:
    if not isinstance(record.get(field), list):
        raise ValueError(f"it has no list {field!r} (it has {', '.join(record) or 'nothing'})")
    return _optional_rows(record, field)


def _optional_rows(record: dict[str, JsonValue], field: str) -> list[dict[str, JsonValue]]:
    value = record.get(field)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _captions(annotations: Sequence[dict[str, JsonValue]], *, path: Path) -> dict[JsonValue, tuple[str, ...]]:
    if annotations and not any("caption" in row for row in annotations):
        raise ValueError(
            f"{path}: its annotations have no caption (they have {', '.join(annotations[0])}): give "
            "captions_train2017.json or its like"
        )
    texts: dict[JsonValue, list[JsonValue]] = {}
    for row in annotations:
        image = row.get("image_id")
        if isinstance(image, int | str):
            texts.setdefault(image, []).append(row.get("caption"))
    return {image: parse_captions(some) for image, some in texts.items()}


def _left_out(unwanted: Counter[JsonValue], *, names: dict[JsonValue, str], path: Path) -> list[Dropped]:
    return [
        Dropped(
            source=f"{path.name}: licence {licence}",
            reason=f"{count:,} pictures are under {names.get(licence) or 'a licence without a name'}, which was not "
            "asked for",
        )
        for licence, count in sorted(unwanted.items(), key=str)
    ]
