"""Densely Captioned Images: a folder of JSON files, one a picture, with a tree of described masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pocketclip.data.foreign.fields import parse_record
from pocketclip.data.foreign.folder import CaptionedFile
from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue

DciText = Literal["short", "extended", "complete"]

_FOLDERS = ("complete", "annotations")
_ONLY_LABEL, _UNUSABLE = 1, 2  # qualities of a mask


def record_files(source: Path) -> list[Path]:
    """The JSON files of a release's folder: of `complete`, else of `annotations`, else its own.

    Raises:
        ValueError: there are none.
    """
    for folder in (*(source / name for name in _FOLDERS), source):
        paths = sorted(folder.glob("*.json"))
        if paths:
            return paths
    raise ValueError(
        f"{source} holds no .json, nor does a folder {' or '.join(_FOLDERS)} in it: give the folder "
        "densely_captioned_images"
    )


def read_dci(
    paths: list[Path], *, pictures: Path, text: DciText
) -> tuple[list[CaptionedFile], list[Dropped]]:
    """Reads a release's JSON files.

    Args:
        paths: of the files.
        pictures: folder of the photographs that they name (SA-1B's archive sa_000138).
        text: `short` is the one-sentence caption; `extended` has the long description behind it; `complete` also every
            usable mask's label and caption, in the file's order.

    Returns:
        The pictures, and files that cannot be used.

    Raises:
        ValueError: no file is DCI's.
    """
    found: list[CaptionedFile] = []
    dropped: list[Dropped] = []
    for path in paths:
        try:
            record = parse_record(path.read_bytes())
            name, caption = record.get("image"), _caption(record, text)
            if not isinstance(name, str):
                raise ValueError("no image (the photograph's file name)")
        except ValueError as error:
            dropped.append(Dropped(source=path.name, reason=str(error)))
            continue
        found.append(
            CaptionedFile(path=pictures / name, name=name, captions=[caption], meta={"record": path.name})
        )
    if not found:
        raise ValueError(f"no file of {paths[0].parent} is DCI's ({dropped[0].source}: {dropped[0].reason})")
    return found, dropped


def _caption(record: dict[str, JsonValue], text: DciText) -> str:
    short = record.get("short_caption")
    if not isinstance(short, str) or not short.strip():
        raise ValueError("no short_caption")
    parts = [short.strip()]
    if text != "short":
        extra = record.get("extra_caption")
        parts += [extra.strip()] if isinstance(extra, str) and extra.strip() else []
    if text == "complete":
        parts += _masks(record)
    return "\n".join(parts)


def _masks(record: dict[str, JsonValue]) -> Iterator[str]:
    masks, keys = record.get("mask_data"), record.get("mask_keys")
    if not isinstance(masks, dict):
        return
    for key in keys if isinstance(keys, list) else masks:
        mask = masks.get(str(key))
        if not isinstance(mask, dict) or mask.get("mask_quality") == _UNUSABLE:
            continue
        wanted = ("label",) if mask.get("mask_quality") == _ONLY_LABEL else ("label", "caption")
        said = [
            value.strip() for field in wanted if isinstance(value := mask.get(field), str) and value.strip()
        ]
        if said:
            yield ": ".join(said)
