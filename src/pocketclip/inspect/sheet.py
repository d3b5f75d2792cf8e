"""The contact sheet of reinforced samples: picture and views side by side, captions below with every teacher's opinion.

Each view has a colour, in which its crop is outlined on the picture. Numbers are cosines of a view and a caption by one
teacher; the caption that the teacher finds nearest to the view, of all captions on the sheet, is marked: with a green
number where it is one of the sample's own, else in a row of its own that says whose it is.
"""

# Shape suffixes: V views, T captions.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

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
    WRONG,
    Colour,
    Font,
    ellipsis,
    font,
    wrap,
)
from pocketclip.inspect.seen import Seen

_VIEW_COLOURS: tuple[Colour, ...] = (
    (214, 90, 49),
    (42, 111, 187),
    (126, 87, 194),
    (0, 137, 123),
    (194, 143, 0),
    (173, 20, 87),
)
_PICTURE_PX, _VIEW_PX = 216, 144
_LARGEST_GROWTH = 3.0
_ABOUT_W = 84
_CELL_W, _ROW_H, _LABEL_W, _TEXT_W = 46, 24, 118, 360
_LOW, _HIGH = (255, 255, 255), (255, 214, 130)  # of a cell's ground, by its cosine
_MAX_TEXT_LINES = 2
_VIEW_LINES = 4


@dataclass(frozen=True)
class _Style:
    """Fonts and the heights that follow from them."""

    heading: Font = field(default_factory=lambda: font(22))
    plain: Font = field(default_factory=lambda: font(14))
    small: Font = field(default_factory=lambda: font(12))
    line: int = 18
    small_line: int = 15


@dataclass(frozen=True, kw_only=True)
class _Opinion:
    """One teacher's cosines of a sample's views.

    Attributes:
        own_TV: with the sample's own captions.
        other_V: with the nearest caption of any other sample on the sheet; -1 where there is none.
        others: key of the sample whose caption that is, by view.
        low, high: ends of the scale of this teacher's cosines on this sheet.
    """

    own_TV: np.ndarray
    other_V: np.ndarray
    others: tuple[str, ...]
    low: float
    high: float


def draw_sheet(samples: Sequence[Seen], *, heading: str, facts: Sequence[tuple[str, str]]) -> Image.Image:
    """The sheet as an RGB picture.

    Args:
        samples: from the top down, one or more.
        heading: above all.
        facts: below the heading: what a line is about, and the line.
    """
    style = _Style()
    opinions = _opinions(samples)
    num_views = max(len(sample.views) for sample in samples)
    num_teachers = max(len(sample.image_rows) for sample in samples)
    table_w = _LABEL_W + _TEXT_W + num_teachers * (num_views * _CELL_W + GAP)
    table_w += 0 if num_views else _PICTURE_PX + 2 * GAP
    strip_w = _PICTURE_PX + num_views * (_VIEW_PX + GAP) + GAP
    inner_w = max(table_w, strip_w, 640)
    cards = [
        _draw_card(sample, opinion, style=style, inner_w=inner_w)
        for sample, opinion in zip(samples, opinions, strict=True)
    ]
    width = inner_w + 4 * PAD + 2 * MARGIN
    lines = [
        (about if place == 0 else "", line)
        for about, text in facts
        for place, line in enumerate(wrap(text, style.plain, width - 2 * MARGIN - _ABOUT_W))
    ]
    top = MARGIN + 36 + style.line * len(lines) + GAP
    height = top + sum(card.height + GAP for card in cards) - GAP + MARGIN
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text(
        (MARGIN, MARGIN), ellipsis(heading, style.heading, width - 2 * MARGIN), font=style.heading, fill=INK
    )
    for number, (about, line) in enumerate(lines):
        y = MARGIN + 36 + number * style.line
        pen.text((MARGIN, y), about, font=style.plain, fill=FADED)
        pen.text((MARGIN + _ABOUT_W, y), line, font=style.plain, fill=INK)
    for card in cards:
        canvas.paste(card, (MARGIN, top))
        top += card.height + GAP
    return canvas


def _opinions(samples: Sequence[Seen]) -> list[dict[str, _Opinion]]:
    """Every teacher's opinion of every sample."""
    gathered: list[dict[str, _Opinion]] = [{} for _ in samples]
    for name in dict.fromkeys(name for sample in samples for name in sample.image_rows):
        having = [number for number, sample in enumerate(samples) if name in sample.image_rows]
        texts_TD = np.concatenate([samples[number].text_rows[name] for number in having])
        owner_T = np.repeat(having, [len(samples[number].text_rows[name]) for number in having])
        cosines = {number: texts_TD @ samples[number].image_rows[name].T for number in having}
        values = np.concatenate([cosine_TV.ravel() for cosine_TV in cosines.values()])
        for number, cosine_TV in cosines.items():
            own, others = owner_T == number, np.flatnonzero(owner_T != number)
            nearest_V = others[cosine_TV[others].argmax(axis=0)] if len(others) else np.zeros(0, int)
            gathered[number][name] = _Opinion(
                own_TV=cosine_TV[own],
                other_V=cosine_TV[others].max(axis=0) if len(others) else np.full(cosine_TV.shape[1], -1.0),
                others=tuple(samples[owner_T[place]].key for place in nearest_V),
                low=float(np.percentile(values, 5)),
                high=float(values.max()),
            )
    return gathered


def _draw_card(sample: Seen, opinions: Mapping[str, _Opinion], *, style: _Style, inner_w: int) -> Image.Image:
    texts = [wrap(text, style.plain, _TEXT_W - PAD)[: _MAX_TEXT_LINES + 1] for _, text in sample.texts]
    texts = [
        [*lines[: _MAX_TEXT_LINES - 1], f"{lines[_MAX_TEXT_LINES - 1]}..."]
        if len(lines) > _MAX_TEXT_LINES
        else lines
        for lines in texts
    ]
    strip_h = max(
        _PICTURE_PX + style.line + 2 * style.small_line + 4,
        _VIEW_PX + _VIEW_LINES * style.small_line + style.line,
    )
    rows_h = sum(_row_height(lines, style) for lines in texts)
    beaten = any((opinion.other_V > opinion.own_TV.max(axis=0)).any() for opinion in opinions.values())
    table_h = (style.line + 2 * style.small_line if opinions else 0) + rows_h + (_ROW_H if beaten else 0)
    is_plain = not sample.views  # captions find room beside the picture
    height = max(strip_h, table_h) if is_plain else strip_h + PAD + table_h
    card = Image.new("RGB", (inner_w + 4 * PAD, height + 4 * PAD), PAPER)
    pen = ImageDraw.Draw(card)
    corner = (card.width - 1, card.height - 1)
    pen.rounded_rectangle(((0, 0), corner), radius=10, fill=CARD, outline=LINE)
    left, top = 2 * PAD, 2 * PAD
    _draw_picture(card, sample, style=style, at=(left, top))
    for place, view in enumerate(sample.views):
        at = (left + _PICTURE_PX + GAP + place * (_VIEW_PX + GAP), top)
        _draw_view(
            card, view.pixels, view.lines, number=view.number, colour=_colour(place), style=style, at=at
        )
    table_at = (left + _PICTURE_PX + 2 * GAP, top) if is_plain else (left, top + strip_h + PAD)
    _draw_table(pen, sample, opinions, texts, style=style, at=table_at)
    return card


def _colour(place: int) -> Colour:
    return _VIEW_COLOURS[place % len(_VIEW_COLOURS)]


def _draw_picture(card: Image.Image, sample: Seen, *, style: _Style, at: tuple[int, int]) -> None:
    """The picture, or its place, with the outlines of the views' crops."""
    pen = ImageDraw.Draw(card)
    left, top = at
    scale = min(_PICTURE_PX / max(sample.size), _LARGEST_GROWTH if sample.image is not None else np.inf)
    width, height = (max(1, round(side * scale)) for side in sample.size)
    x, y = left + (_PICTURE_PX - width) // 2, top + (_PICTURE_PX - height) // 2
    if sample.image is not None:
        card.paste(sample.image.resize((width, height), Image.Resampling.LANCZOS), (x, y))
    pen.rectangle(
        (x, y, x + width - 1, y + height - 1), fill=None if sample.image is not None else PAPER, outline=LINE
    )
    for place, view in enumerate(sample.views):
        x0, y0, x1, y1 = view.crop
        edges = (x + x0 * (width - 1), y + y0 * (height - 1), x + x1 * (width - 1), y + y1 * (height - 1))
        pen.rectangle(tuple(round(edge) for edge in edges), outline=_colour(place), width=2)
    below = top + _PICTURE_PX + 4
    pen.text((left, below), ellipsis(sample.key, style.plain, _PICTURE_PX), font=style.plain, fill=INK)
    for place, line in enumerate((sample.shard, sample.about)):
        under = below + style.line + place * style.small_line
        pen.text((left, under), ellipsis(line, style.small, _PICTURE_PX), font=style.small, fill=FADED)


def _draw_view(
    card: Image.Image,
    pixels: Image.Image | None,
    lines: Sequence[str],
    *,
    number: int,
    colour: Colour,
    style: _Style,
    at: tuple[int, int],
) -> None:
    pen = ImageDraw.Draw(card)
    left, top = at
    if pixels is None:
        pen.rectangle((at, (left + _VIEW_PX - 1, top + _VIEW_PX - 1)), fill=PAPER)
    else:
        card.paste(pixels.resize((_VIEW_PX, _VIEW_PX), Image.Resampling.LANCZOS), at)
    pen.rectangle((at, (left + _VIEW_PX - 1, top + _VIEW_PX - 1)), outline=colour, width=3)
    below = top + _VIEW_PX + 4
    pen.text((left, below), f"view {number}", font=style.plain, fill=colour)
    shown = list(lines[:_VIEW_LINES])
    if len(lines) > _VIEW_LINES:
        shown[-1] = f"{shown[-1]}, ..."
    for place, line in enumerate(shown):
        y = below + style.line + place * style.small_line
        pen.text((left, y), ellipsis(line, style.small, _VIEW_PX), font=style.small, fill=FADED)


def _row_height(lines: Sequence[str], style: _Style) -> int:
    return max(_ROW_H, 6 + style.line * max(1, len(lines)))


def _draw_table(
    pen: ImageDraw.ImageDraw,
    sample: Seen,
    opinions: Mapping[str, _Opinion],
    texts: Sequence[Sequence[str]],
    *,
    style: _Style,
    at: tuple[int, int],
) -> None:
    """Captions with the teachers' cosines."""
    left, top = at
    columns_w = len(sample.views) * _CELL_W
    starts = [left + _LABEL_W + _TEXT_W + place * (columns_w + GAP) for place in range(len(opinions))]
    for name, start in zip(opinions, starts, strict=True):
        pen.text((start, top), ellipsis(name, style.plain, columns_w), font=style.plain, fill=INK)
        for place, view in enumerate(sample.views):
            _centred(
                pen,
                f"view {view.number}",
                start + place * _CELL_W,
                top + style.line,
                style.small,
                _colour(place),
            )
    y = top + (style.line + 2 * style.small_line - 8 if opinions else 0)
    right = starts[-1] + columns_w if starts else left + _LABEL_W + _TEXT_W
    for row, ((label, _), lines) in enumerate(zip(sample.texts, texts, strict=True)):
        height = _row_height(lines, style)
        pen.line((left, y, right, y), fill=LINE)
        pen.text((left, y + 4), ellipsis(label, style.small, _LABEL_W - PAD), font=style.small, fill=FADED)
        for number, line in enumerate(lines):
            at_line = (left + _LABEL_W, y + 3 + number * style.line)
            pen.text(at_line, line, font=style.plain, fill=INK)
        for opinion, start in zip(opinions.values(), starts, strict=True):
            _draw_cells(pen, opinion, row, style=style, at=(start, y), height=height)
        y += height
    _draw_others(pen, opinions, starts, style=style, at=(left, y))


def _draw_cells(
    pen: ImageDraw.ImageDraw, opinion: _Opinion, row: int, *, style: _Style, at: tuple[int, int], height: int
) -> None:
    left, top = at
    nearest_V = opinion.own_TV.argmax(axis=0)
    for place, cosine in enumerate(opinion.own_TV[row].tolist()):
        x = left + place * _CELL_W
        share = min(1.0, max(0.0, (cosine - opinion.low) / max(1e-6, opinion.high - opinion.low)))
        ground = tuple(round(low + share * (high - low)) for low, high in zip(_LOW, _HIGH, strict=True))
        pen.rectangle((x + 1, top + 2, x + _CELL_W - 2, top + height - 2), fill=ground)
        is_nearest = nearest_V[place] == row and cosine >= opinion.other_V[place]
        if is_nearest:
            pen.rectangle((x + 1, top + 2, x + _CELL_W - 2, top + height - 2), outline=RIGHT, width=2)
        _centred(pen, _number(cosine), x, top + height // 2 - 7, style.small, RIGHT if is_nearest else INK)


def _draw_others(
    pen: ImageDraw.ImageDraw,
    opinions: Mapping[str, _Opinion],
    starts: Sequence[int],
    *,
    style: _Style,
    at: tuple[int, int],
) -> None:
    """Where a caption of another sample is nearer than all own ones: whose it is, and how near."""
    left, top = at
    beaten = {
        name: np.flatnonzero(opinion.other_V > opinion.own_TV.max(axis=0))
        for name, opinion in opinions.items()
    }
    keys = dict.fromkeys(opinions[name].others[place] for name, places in beaten.items() for place in places)
    if not keys:
        return
    pen.text((left, top + 5), "nearer", font=style.small, fill=WRONG)
    text = ellipsis(f"a caption of {', '.join(keys)}", style.plain, _TEXT_W - PAD)
    pen.text((left + _LABEL_W, top + 3), text, font=style.plain, fill=WRONG)
    for (name, places), start in zip(beaten.items(), starts, strict=True):
        for place in places.tolist():
            cosine = float(opinions[name].other_V[place])
            _centred(pen, _number(cosine), start + place * _CELL_W, top + 5, style.small, WRONG)


def _number(cosine: float) -> str:
    return f"{cosine:.2f}".replace("0.", ".", 1)


def _centred(pen: ImageDraw.ImageDraw, text: str, left: int, top: int, font: Font, colour: Colour) -> None:
    pen.text((left + (_CELL_W - font.getlength(text)) / 2, top), text, font=font, fill=colour)
