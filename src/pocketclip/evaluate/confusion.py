"""Which classes a model takes for which: a table as CSV, and a picture as PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pocketclip.data.publish import publish_file
from pocketclip.data.sheet import FADED, GAP, INK, LINE, MARGIN, PAPER, Font, ellipsis, font

Ints = NDArray[np.int64]
_COLUMNS = (
    "label",
    "class",
    "pictures",
    "recall",
    "precision",
    "f1",
    "confidence",
    "most_taken_for",
    "times",
)
_NAMED = 60
"""With more classes than this a picture shows no names: they are in the table."""
_SIDE = 800
_WORST = 12


def confusion_matrix(label_N: Ints, predicted_N: Ints, *, num_classes: int) -> Ints:
    """int64 [C, C]: pictures of each class (row) taken for each class (column)."""
    cells = np.bincount(label_N * num_classes + predicted_N, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def write_class_table(
    path: Path, matrix_CC: Ints, names: Sequence[str], *, confidence_C: NDArray[np.float64]
) -> None:
    """Publishes a CSV, a class a line: recall, precision, F1, mean confidence, and what it is most taken for.

    Shares are 0..1; empty where a class has no pictures, or was never taken.

    Raises:
        PublishError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    wrong = matrix_CC - np.diag(np.diag(matrix_CC))
    for label, name in enumerate(names):
        right, total, claimed = matrix_CC[label, label], matrix_CC[label].sum(), matrix_CC[:, label].sum()
        times = int(wrong[label].max(initial=0))
        writer.writerow(
            [
                *(label, name, int(total), _share(right, total), _share(right, claimed)),
                _share(2 * right, total + claimed),
                "" if not total else f"{confidence_C[label]:.4f}",
                *((names[int(wrong[label].argmax())], times) if times else ("", 0)),
            ]
        )
    with publish_file(Path(path)) as file:
        file.write(text.getvalue().encode())


def draw_confusion(path: Path, matrix_CC: Ints, names: Sequence[str], *, title: str) -> None:
    """Publishes a PNG: rows are classes, columns what they were taken for, darker for a larger share of the row.

    Beside it stand the pairs that are confused most.

    Raises:
        PublishError: it cannot be written.
    """
    count = len(names)
    cell = max(1, _SIDE // count) if count <= _SIDE else 1
    side = cell * count
    small = font(min(16, max(9, cell - 2)))
    named = count <= _NAMED
    room = 170 if named else 0
    list_width = 420
    width = MARGIN + room + side + 2 * GAP + list_width + MARGIN
    height = MARGIN + 2 * 30 + max(side + room, 30 + 24 * (_WORST + 1)) + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), ellipsis(title, font(20), width - 2 * MARGIN), INK, font(20))
    draw.text(
        (MARGIN, MARGIN + 30),
        ellipsis(_caption(count, named=named), font(13), width - 2 * MARGIN),
        FADED,
        font(13),
    )
    left, top = MARGIN + room, MARGIN + 66
    sheet.paste(_heat(matrix_CC).resize((side, side), Image.Resampling.NEAREST), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=LINE)
    if named:
        _write_names(sheet, names, left=left, top=top, cell=cell, room=room, small=small)
    _write_pairs(draw, matrix_CC, names, left=left + side + 2 * GAP, top=top, width=list_width)
    with publish_file(Path(path)) as file:
        sheet.save(file, format="PNG")


def _caption(count: int, *, named: bool) -> str:
    text = f"{count:,} classes; rows: what it is, columns: what it was taken for; darker: a larger share of the row"
    return text if named else f"{text}; numbered from the top left"


def _heat(matrix_CC: Ints) -> Image.Image:
    """White to dark blue by the share of the row; the root makes rare mistakes visible."""
    total = np.maximum(matrix_CC.sum(axis=1, keepdims=True), 1)
    share = np.sqrt(matrix_CC / total)[..., None]
    white, blue = np.array([255, 255, 255]), np.array([18, 56, 120])
    return Image.fromarray((white + (blue - white) * share).astype(np.uint8))


def _write_names(
    sheet: Image.Image, names: Sequence[str], *, left: int, top: int, cell: int, room: int, small: Font
) -> None:
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        text = ellipsis(name, small, room - 12)
        middle = top + row * cell + cell / 2
        draw.text((left - 6, middle), text, INK, small, anchor="rm")
        strip = Image.new("RGB", (room, max(cell, 12)), PAPER)
        ImageDraw.Draw(strip).text((room - 6, strip.height / 2), text, INK, small, anchor="rm")
        turned = strip.rotate(90, expand=True)
        sheet.paste(turned, (left + row * cell + (cell - turned.width) // 2, top + len(names) * cell + 2))


def _write_pairs(
    draw: ImageDraw.ImageDraw, matrix_CC: Ints, names: Sequence[str], *, left: int, top: int, width: int
) -> None:
    wrong = matrix_CC - np.diag(np.diag(matrix_CC))
    draw.text((left, top), "most often confused", INK, font(15))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_WORST]
    for line, flat in enumerate(order.tolist(), start=1):
        row, column = divmod(flat, len(names))
        times = int(wrong[row, column])
        if not times:
            break
        text = f"{times} of {int(matrix_CC[row].sum())} {names[row]}: taken for {names[column]}"
        draw.text((left, top + 6 + 24 * line), ellipsis(text, font(13), width), FADED, font(13))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else ""
