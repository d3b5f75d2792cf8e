"""A contact sheet of captions: every picture with what was written about it, and what people wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from pocketclip.caption.run import Captioned
from pocketclip.data.publish import publish_file
from pocketclip.data.sheet import CARD, FADED, GAP, INK, LINE, MARGIN, PAD, PAPER, RIGHT, fit, font, wrap

_PICTURE_PX = 112
_TEXT_PX = 230
_FONT_PX = 14
_LINE_PX = 18
_LINES = 9  # of a picture; more are cut
_COLUMNS = 3


def caption_sheet(
    captioned: Sequence[Captioned],
    out: Path,
    *,
    references: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Draws a sheet and publishes it as PNG.

    Args:
        captioned: pictures with captions.
        out: the file.
        references: people's captions by key, in green; None for those that the pictures came with.

    Raises:
        ValueError: no pictures.
        OSError: it cannot be written.
    """
    if not captioned:
        raise ValueError("a contact sheet needs at least one captioned picture")
    sheet = draw_sheet(captioned, references=references)
    with publish_file(Path(out)) as file:
        sheet.save(file, "PNG", optimize=True)


def draw_sheet(
    captioned: Sequence[Captioned], *, references: Mapping[str, Sequence[str]] | None = None
) -> Image.Image:
    """The sheet as an RGB picture."""
    small = font(_FONT_PX)
    cards = [(one, _lines(one, references, width=_TEXT_PX)) for one in captioned]
    columns = min(_COLUMNS, len(cards))
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(_height(lines) for _, lines in row) for row in rows]
    card_width = _PICTURE_PX + _TEXT_PX + 3 * PAD
    canvas = Image.new(
        "RGB",
        (
            2 * MARGIN + columns * (card_width + GAP) - GAP,
            2 * MARGIN + sum(heights) + GAP * (len(rows) - 1),
        ),
        PAPER,
    )
    pen = ImageDraw.Draw(canvas)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, (one, lines) in enumerate(row):
            left = MARGIN + column * (card_width + GAP)
            corner = (left + card_width - 1, top + height - 1)
            pen.rounded_rectangle(((left, top), corner), radius=8, fill=CARD, outline=LINE)
            picture = one.image.resize(fit(one.image, _PICTURE_PX), Image.Resampling.LANCZOS)
            offset = (_PICTURE_PX - picture.width) // 2, (_PICTURE_PX - picture.height) // 2
            canvas.paste(picture, (left + PAD + offset[0], top + PAD + offset[1]))
            for number, (line, colour) in enumerate(lines):
                place = (left + _PICTURE_PX + 2 * PAD, top + PAD + number * _LINE_PX)
                pen.text(place, line, font=small, fill=colour)
        top += height + GAP
    return canvas


def _lines(
    one: Captioned, references: Mapping[str, Sequence[str]] | None, *, width: int
) -> list[tuple[str, tuple[int, int, int]]]:
    small = font(_FONT_PX)
    lines: list[tuple[str, tuple[int, int, int]]] = []
    for name, texts in one.captions.items():
        if len(one.captions) > 1:
            lines.append((name, FADED))
        for text in texts or ("(nothing)",):
            lines += [(line, INK if texts else FADED) for line in wrap(text, small, width)]
    known = references.get(one.key, ()) if references is not None else one.references
    for text in known[:2]:
        lines += [(line, RIGHT) for line in wrap(text, small, width)]
    return lines if len(lines) <= _LINES else [*lines[: _LINES - 1], ("...", FADED)]


def _height(lines: Sequence[object]) -> int:
    return 2 * PAD + max(_PICTURE_PX, len(lines) * _LINE_PX)
