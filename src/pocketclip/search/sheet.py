"""A contact sheet: one row a query, its hits side by side, right ones framed in green."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pocketclip.data.picture import to_rgb
from pocketclip.data.publish import publish_file
from pocketclip.search.query import Hit

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PAPER: Colour = (246, 247, 249)
_CARD: Colour = (255, 255, 255)
_LINE: Colour = (222, 225, 230)
_INK: Colour = (28, 32, 38)
_FADED: Colour = (112, 120, 130)
_RIGHT: Colour = (22, 150, 72)
_MARGIN, _GAP, _PAD = 24, 12, 8
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
    width = 2 * _MARGIN + config.title_px + columns * (style.card_width + _GAP) - _GAP
    heading_height = style.heading_line + _GAP if config.heading else 0
    height = 2 * _MARGIN + heading_height + sum(layout.height for layout in layouts) + _GAP * (len(rows) - 1)
    canvas = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(canvas)
    if config.heading:
        text = _ellipsis(config.heading, style.heading_font, width - 2 * _MARGIN)
        pen.text((_MARGIN, _MARGIN), text, font=style.heading_font, fill=_INK)
    top = _MARGIN + heading_height
    for number, (row, layout) in enumerate(zip(rows, layouts, strict=True)):
        if number:
            pen.line((_MARGIN, top - _GAP // 2, width - _MARGIN, top - _GAP // 2), fill=_LINE)
        _draw_row(canvas, row, layout=layout, style=style, top=top)
        top += layout.height + _GAP
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
            object.__setattr__(self, name, ImageFont.load_default(size=size))

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
        return self.config.cell_px + 2 * _PAD

    @property
    def card_height(self) -> int:
        return self.config.cell_px + _TEXT_LINES * self.small_line + 2 * _PAD


@dataclass(frozen=True, kw_only=True)
class _Layout:
    lines: list[str]
    height: int


def _layout(row: Row, style: _Style) -> _Layout:
    lines = _wrap(row.title, style.title_font, style.config.title_px - 2 * _PAD)
    image_height = 0 if row.image is None else _fit(row.image, style.config.cell_px)[1] + _PAD
    title_height = _PAD + image_height + len(lines) * style.title_line + style.small_line
    return _Layout(lines=lines, height=max(style.card_height if row.hits else 0, title_height) + _GAP)


def _draw_row(canvas: Image.Image, row: Row, *, layout: _Layout, style: _Style, top: int) -> None:
    pen = ImageDraw.Draw(canvas)
    y = top + _PAD
    if row.image is not None:
        fitted = to_rgb(row.image, name=row.title).resize(
            _fit(row.image, style.config.cell_px), Image.Resampling.LANCZOS
        )
        canvas.paste(fitted, (_MARGIN, y))
        y += fitted.height + _PAD
    for line in layout.lines:
        pen.text((_MARGIN, y), line, font=style.title_font, fill=_INK)
        y += style.title_line
    if row.expected:
        right = [hit.rank for hit in row.hits if row.is_right(hit)]
        verdict = f"right at rank {right[0]}" if right else f"not in the first {len(row.hits)}"
        pen.text((_MARGIN, y + 2), verdict, font=style.small_font, fill=_RIGHT if right else _FADED)
    left = _MARGIN + style.config.title_px
    if not row.hits:
        pen.text((left, top + _PAD), "nothing found", font=style.title_font, fill=_FADED)
    for hit in row.hits:
        _draw_card(canvas, hit, is_right=row.is_right(hit), style=style, at=(left, top))
        left += style.card_width + _GAP


def _draw_card(canvas: Image.Image, hit: Hit, *, is_right: bool, style: _Style, at: tuple[int, int]) -> None:
    pen = ImageDraw.Draw(canvas)
    left, top = at
    corner = (left + style.card_width - 1, top + style.card_height - 1)
    outline, frame = (_RIGHT, _FRAME) if is_right else (_LINE, 1)
    pen.rounded_rectangle((at, corner), radius=8, fill=_CARD, outline=outline, width=frame)
    with Image.open(io.BytesIO(hit.thumbnail)) as thumbnail:
        size = _fit(thumbnail, style.config.cell_px)
        fitted = thumbnail.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    centred = (style.config.cell_px - size[0]) // 2, (style.config.cell_px - size[1]) // 2
    canvas.paste(fitted, (left + _PAD + centred[0], top + _PAD + centred[1]))
    y = top + _PAD + style.config.cell_px + 2
    font, right_edge = style.small_font, left + style.card_width - _PAD
    pen.text((left + _PAD, y), f"{hit.rank}", font=font, fill=_RIGHT if is_right else _INK)
    score = f"{hit.score:.3f}"
    pen.text((right_edge - font.getlength(score), y), score, font=font, fill=_FADED)
    name = _ellipsis(hit.caption or hit.name, font, style.config.cell_px)
    pen.text((left + _PAD, y + style.small_line), name, font=font, fill=_FADED)


def _fit(image: Image.Image, side: int) -> tuple[int, int]:
    """Width and height within a square; small pictures grow to at most twice their size."""
    scale = min(side / max(image.size), 2.0)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _wrap(text: str, font: Font, width: int) -> list[str]:
    """Lines no wider than `width` pixels; words longer than a line are cut."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if font.getlength(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width:
            fits = max(1, next(n for n in range(1, len(word) + 1) if font.getlength(word[: n + 1]) > width))
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line] if line else lines


def _ellipsis(text: str, font: Font, width: int) -> str:
    """The text, cut with "..." where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text.rstrip()}..."
