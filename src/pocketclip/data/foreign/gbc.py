"""Graph-based captions (GBC1M, GBC10M): records of a graph of described regions, and addresses of pictures."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from pocketclip.data.foreign.fields import parse_captions, parse_record
from pocketclip.data.foreign.folder import CaptionedFile, is_picture
from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue

GbcText = Literal["short", "long", "short-relation"]

_DESCRIBED = {"short": "short", "long": "detail"}
_PARQUET_COLUMNS = ("img_url", "img_path", "vertices", "short_caption", "detail_caption", "original_caption")


def read_gbc(
    paths: Sequence[Path], *, pictures: Path, text: GbcText
) -> tuple[list[CaptionedFile], list[Dropped]]:
    """Reads JSON lines (plain or gzipped) or parquet.

    Args:
        paths: of the records.
        pictures: where the pictures were downloaded to: files that `img_path` names, else those whose JSON file beside
            them says the `url` that `img_url` is, as img2dataset writes it.
        text: `short` and `long` are the whole picture's captions of these kinds; `short-relation` is the short one
            with what is said about relations behind it.

    Returns:
        The pictures in the records' order, and records that cannot be used.

    Raises:
        ImportError: parquet, and pyarrow is not installed.
        ValueError: no record is GBC's.
    """
    places = _by_address(pictures)
    found: list[CaptionedFile] = []
    dropped: list[Dropped] = []
    graphs = 0
    for source, record in _records(paths):
        if isinstance(record, ValueError):
            dropped.append(Dropped(source=source, reason=str(record)))
            continue
        graphs += isinstance(record.get("vertices"), list)
        caption = _caption(record, text)
        path = _picture(record, pictures=pictures, places=places)
        if caption is None or path is None:
            missing = f"no {text} caption" if caption is None else f"no picture for {record.get('img_url')}"
            dropped.append(Dropped(source=source, reason=missing))
            continue
        address = record.get("img_url")
        name = path.relative_to(pictures).as_posix() if path.is_relative_to(pictures) else path.name
        meta: dict[str, JsonValue] = {"img_url": address} if isinstance(address, str) else {}
        found.append(CaptionedFile(path=path, name=name, captions=[caption], meta=meta))
    if not graphs:
        raise ValueError(f"{paths[0]} has no record with vertices: give GBC's .jsonl or .parquet")
    return found, dropped


def _records(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, JsonValue] | ValueError]]:
    for path in paths:
        if path.suffix == ".parquet":
            yield from _parquet_records(path)
            continue
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield f"{path.name}: row {number}", parse_record(line)
                    except ValueError as error:
                        yield f"{path.name}: row {number}", error


def _parquet_records(path: Path) -> Iterator[tuple[str, dict[str, JsonValue]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError("reading parquet needs pyarrow: run pip install 'pocketclip[parquet]'") from error
    try:
        with pq.ParquetFile(path) as table:
            columns = [name for name in _PARQUET_COLUMNS if name in table.schema_arrow.names]
            row = 0
            for batch in table.iter_batches(256, columns=columns, use_threads=False):
                for record in batch.to_pylist():
                    row += 1
                    yield f"{path.name}: row {row}", cast("dict[str, JsonValue]", record)
    except pa.ArrowException as error:
        raise ValueError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from error


def _caption(record: Mapping[str, JsonValue], text: GbcText) -> str | None:
    vertices = record.get("vertices")
    graph = [one for one in vertices if isinstance(one, dict)] if isinstance(vertices, list) else []
    whole = [one for one in graph if one.get("label") == "image"]
    kind = "short" if text == "short-relation" else text
    given = record.get("short_caption" if kind == "short" else "detail_caption")
    said = [given] if isinstance(given, str) else _descriptions(whole, _DESCRIBED[kind])
    if not said or not said[0].strip():
        return None
    more = _descriptions(graph, "relation") if text == "short-relation" else []
    return "\n".join([said[0].strip(), *more])


def _descriptions(vertices: Sequence[Mapping[str, JsonValue]], label: str) -> list[str]:
    found: list[str] = []
    for vertex in vertices:
        described = vertex.get("descs")
        some = [one for one in described if isinstance(one, dict)] if isinstance(described, list) else []
        found += [
            text for one in some if one.get("label") == label for text in parse_captions(one.get("text"))
        ]
    return found


def _picture(record: Mapping[str, JsonValue], *, pictures: Path, places: Mapping[str, Path]) -> Path | None:
    given = record.get("img_path")
    if isinstance(given, str) and given:
        return pictures / given
    address = record.get("img_url")
    if not isinstance(address, str):
        return None
    return places.get(address)


def _by_address(folder: Path) -> dict[str, Path]:
    """Pictures whose JSON file beside them says where they are from."""
    places: dict[str, Path] = {}
    by_stem = {path.with_suffix(""): path for path in sorted(folder.rglob("*")) if is_picture(path)}
    for stem, picture in by_stem.items():
        beside = stem.with_suffix(".json")
        if not beside.is_file():
            continue
        try:
            address = parse_record(beside.read_bytes()).get("url")
        except ValueError:  # some other tool's
            continue
        if isinstance(address, str):
            places[address] = picture
    return places
