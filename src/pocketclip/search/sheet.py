"""A contact sheet: one row a query, its hits side by side, right ones framed in green."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw

from pocketclip.data.picture import to_rgb
from pocketclip.data.publish import publish_file
from pocketclip.data.sheet import (
    CARD,
    FADED,
    GAP,
    INK,
    LINE,
    MARGIN,
    PAD,
    PAPER,
    RIGHT,
    Font,
    ellipsis,
    fit,
    font,
    wrap,
)
from pocketclip.search.question import Hit
from pocketclip.search.results import clock

_FRAME = 4
_TEXT_LINES = 2  # under a picture: rank and score, then its name


@dataclass(frozen=True, kw_only=True)
class Row:
    """One query and what was found.

    Attributes:
        title: the query, in words.
        hits: nearest first.
        expected: keys, paths or captions of the right pictures; a hit that is one of them gets a green frame.
            Empty where nobody knows.
        image: the query, when it is a picture.
    """

    title: str
    hits: Sequence[Hit]
    expected: Collection[str] = ()
    image: Image.Image | None = None

    def is_right(self, hit: Hit) -> bool:
        """Whether a hit is one of the expected."""
        return any(
            name in self.expected for name in (hit.key, str(hit.path), hit.caption) if name is not None
        )


@dataclass(frozen=True, kw_only=True)
class SheetConfig:
    """Measures of a sheet.

    Attributes:
        heading: written above all rows; empty for none.
        cell_px: side of the square a picture is fitted into.
        title_px: width of the column of queries.
        font_px: height of the queries' letters; others follow.
    """

    heading: str = ""
    cell_px: int = 112
    title_px: int = 220
    font_px: int = 17


def contact_sheet(rows: Sequence[Row], out: Path, *, config: SheetConfig | None = None) -> None:
    """Draw a sheet and publish it as PNG.

    Args:
        rows: queries with their hits; a query without hits says so.
        out: the picture, `*.png`.
        config: None for the defaults.

    Raises:
        ValueError: no rows.
        OSError: it cannot be written.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one query")
    sheet = draw_sheet(rows, config=config or SheetConfig())
    with publish_file(Path(out)) as file:
        sheet.save(file, "PNG", optimize=True)


def draw_sheet(rows: Sequence[Row], *, config: SheetConfig) -> Image.Image:
    """The sheet as an RGB picture."""
    style = _Style(config)
    layouts = [_layout(row, style) for row in rows]
    columns = max(1, *(len(row.hits) for row in rows))
    width = 2 * MARGIN + config.title_px + columns * (style.card_width + GAP) - GAP
    heading_height = style.heading_line + GAP if config.heading else 0
    height = 2 * MARGIN + heading_height + sum(layout.height for layout in layouts) + GAP * (len(rows) - 1)
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    if config.heading:
        text = ellipsis(config.heading, style.heading_font, width - 2 * MARGIN)
        pen.text((MARGIN, MARGIN), text, font=style.heading_font, fill=INK)
    top = MARGIN + heading_height
    for number, (row, layout) in enumerate(zip(rows, layouts, strict=True)):
        if number:
            pen.line((MARGIN, top - GAP // 2, width - MARGIN, top - GAP // 2), fill=LINE)
        _draw_row(canvas, row, layout=layout, style=style, top=top)
        top += layout.height + GAP
    return canvas


@dataclass(frozen=True)
class _Style:
    """Fonts and the sizes that follow from them."""

    config: SheetConfig
    heading_font: Font = field(init=False)
    title_font: Font = field(init=False)
    small_font: Font = field(init=False)

    def __post_init__(self) -> None:
        px = self.config.font_px
        for name, size in (("heading_font", px * 1.4), ("title_font", px), ("small_font", px * 0.75)):
            object.__setattr__(self, name, font(size))

    @property
    def heading_line(self) -> int:
        return round(self.config.font_px * 1.9)

    @property
    def title_line(self) -> int:
        return round(self.config.font_px * 1.35)

    @property
    def small_line(self) -> int:
        return round(self.config.font_px * 1.05)

    @property
    def card_width(self) -> int:
        return self.config.cell_px + 2 * PAD

    @property
    def card_height(self) -> int:
        return self.config.cell_px + _TEXT_LINES * self.small_line + 2 * PAD


@dataclass(frozen=True, kw_only=True)
class _Layout:
    lines: list[str]
    height: int


def _layout(row: Row, style: _Style) -> _Layout:
    lines = wrap(row.title, style.title_font, style.config.title_px - 2 * PAD)
    image_height = 0 if row.image is None else fit(row.image, style.config.cell_px)[1] + PAD
    title_height = PAD + image_height + len(lines) * style.title_line + style.small_line
    return _Layout(lines=lines, height=max(style.card_height if row.hits else 0, title_height) + GAP)


def _draw_row(canvas: Image.Image, row: Row, *, layout: _Layout, style: _Style, top: int) -> None:
    pen = ImageDraw.Draw(canvas)
    y = top + PAD
    if row.image is not None:
        fitted = to_rgb(row.image, name=row.title).resize(
            fit(row.image, style.config.cell_px), Image.Resampling.LANCZOS
        )
        canvas.paste(fitted, (MARGIN, y))
        y += fitted.height + PAD
    for line in layout.lines:
        pen.text((MARGIN, y), line, font=style.title_font, fill=INK)
        y += style.title_line
    if row.expected:
        right = [hit.rank for hit in row.hits if row.is_right(hit)]
        verdict = f"right at rank {right[0]}" if right else f"not in the first {len(row.hits)}"
        pen.text((MARGIN, y + 2), verdict, font=style.small_font, fill=RIGHT if right else FADED)
    left = MARGIN + style.config.title_px
    if not row.hits:
        pen.text((left, top + PAD), "nothing found", font=style.title_font, fill=FADED)
    for hit in row.hits:
        _draw_card(canvas, hit, is_right=row.is_right(hit), style=style, at=(left, top))
        left += style.card_width + GAP


def _draw_card(canvas: Image.Image, hit: Hit, *, is_right: bool, style: _Style, at: tuple[int, int]) -> None:
    pen = ImageDraw.Draw(canvas)
    left, top = at
    corner = (left + style.card_width - 1, top + style.card_height - 1)
    outline, frame = (RIGHT, _FRAME) if is_right else (LINE, 1)
    pen.rounded_rectangle((at, corner), radius=8, fill=CARD, outline=outline, width=frame)
    with Image.open(io.BytesIO(hit.thumbnail)) as thumbnail:
        size = fit(thumbnail, style.config.cell_px)
        fitted = thumbnail.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    centred = (style.config.cell_px - size[0]) // 2, (style.config.cell_px - size[1]) // 2
    canvas.paste(fitted, (left + PAD + centred[0], top + PAD + centred[1]))
    y = top + PAD + style.config.cell_px + 2
    font, right_edge = style.small_font, left + style.card_width - PAD
    at_s = hit.picture.at_s
    rank = str(hit.rank) if at_s is None else f"{hit.rank}   {clock(at_s)}"
    pen.text((left + PAD, y), rank, font=font, fill=RIGHT if is_right else INK)
    score = f"{hit.score:.3f}"
    pen.text((right_edge - font.getlength(score), y), score, font=font, fill=FADED)
    name = ellipsis(hit.caption or hit.picture.name, font, style.config.cell_px)
    pen.text((left + PAD, y + style.small_line), name, font=font, fill=FADED)
