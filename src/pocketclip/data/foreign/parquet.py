"""Parquet tables with the pictures' bytes inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.foreign.fields import CAPTION_FIELDS, find_field, make_key, parse_captions, parse_text
from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue

if TYPE_CHECKING:
    import pyarrow as pa

PICTURE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "picture", "bytes", "image_bytes")
KEY_COLUMNS = ("key", "__key__", "uid", "id")

_ROWS = 32  # at a time in memory


def read_parquet(
    paths: Sequence[Path],
    *,
    root: Path,
    split_of: Callable[[str], str],
    caption_fields: Sequence[str] = CAPTION_FIELDS,
) -> Iterator[Candidate | Dropped]:
    """Reads tables a few rows at a time.

    The picture is a column of bytes, or of {bytes, path} as Hugging Face writes it; the caption a column
    of texts or of lists of texts; other columns of texts and numbers become `meta`.

    Args:
        paths: the tables.
        root: names are relative to it.
        split_of: key -> split.
        caption_fields: names of the captions' column; the first that the table has counts.

    Yields:
        A candidate for each row, or why there is none.

    Raises:
        ImportError: the extra `parquet` is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError("reading parquet needs pyarrow: run pip install 'pocketclip[parquet]'") from error
    for path in paths:
        name = path.relative_to(root).as_posix()
        row = 0
        try:
            with pq.ParquetFile(path) as table:
                columns = _choose_columns(table.schema_arrow, caption_fields)
                for batch in table.iter_batches(_ROWS, columns=columns, use_threads=False):
                    for content in _plain_rows(batch):
                        source = f"{name}: row {row}"
                        yield _candidate(content, caption_fields, source=source, split_of=split_of)
                        row += 1
        except (pa.ArrowException, OSError, ValueError) as error:
            yield Dropped(source=name, reason=f"cannot be read after row {row}: {_one_line(error)}")


def _choose_columns(schema: pa.Schema, caption_fields: Sequence[str]) -> list[str]:
    import pyarrow.types as types

    if find_field(schema.names, PICTURE_COLUMNS) is None or find_field(schema.names, caption_fields) is None:
        raise ValueError(
            f"it has the columns {', '.join(schema.names)}: name the pictures' {PICTURE_COLUMNS[0]} and "
            f"the captions' {caption_fields[0]}"
        )
    wanted = {find_field(schema.names, PICTURE_COLUMNS), find_field(schema.names, caption_fields)}
    simple = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return [f.name for f in schema if f.name in wanted or any(is_kind(f.type) for is_kind in simple)]


def _plain_rows(batch: pa.RecordBatch) -> Iterator[dict[str, object]]:
    import pyarrow as pa

    # As bytes: one text that is not UTF-8 costs its row, not the batch.
    columns = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            column = column.cast(pa.large_binary())
        elif pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            column = column.cast(pa.large_list(pa.large_binary()))
        columns[field.name] = column
    for row in range(batch.num_rows):
        yield {name: column[row].as_py() for name, column in columns.items()}


def _candidate(
    row: dict[str, object],
    caption_fields: Sequence[str],
    *,
    source: str,
    split_of: Callable[[str], str],
) -> Candidate | Dropped:
    picture_column, caption_column = find_field(row, PICTURE_COLUMNS), find_field(row, caption_fields)
    assert picture_column is not None
    assert caption_column is not None
    picture = row.pop(picture_column)
    name: object = None
    if isinstance(picture, dict):
        picture, name = picture.get("bytes"), picture.get("path")
    if not isinstance(picture, bytes):
        outside = f" (only its path, {name})" if name else ""
        return Dropped(source=source, reason=f"no picture in the row{outside}")
    try:
        captions = parse_captions(_json(row.pop(caption_column)))
        meta = {column: _json(value) for column, value in row.items()}
    except ValueError as error:
        return Dropped(source=source, reason=str(error))
    if not captions:
        return Dropped(source=source, reason="no caption")
    key_column = find_field(meta, KEY_COLUMNS)
    key = make_key(str(meta.pop(key_column)) if key_column is not None else source)
    return Candidate(source=source, split=split_of(key), key=key, image=picture, captions=captions, meta=meta)


def _json(value: object) -> JsonValue:
    if isinstance(value, bytes):
        return parse_text(value)
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | str) else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
