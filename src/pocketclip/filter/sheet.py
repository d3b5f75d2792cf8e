"""A filtering as a picture: how each score is spread, what each step dropped, pictures kept and dropped by tenths."""

# Shape suffixes: H bins of a histogram.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from pocketclip.data.picture import decode
from pocketclip.data.sample import Sample
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
    ellipsis,
    fit,
    font,
    wrap,
)
from pocketclip.filter.decide import Decision
from pocketclip.filter.report import DECILES, Example, Spread

_PICTURE_PX, _CELL_W, _CELL_H = 96, 176, 176
_CHART_H, _STEP_H = 150, 20
_LABEL_W = 120
_LINES = 2
_BARS = 120  # of a histogram, at most


def draw_sheet(
    decision: Decision,
    spreads: Sequence[Spread],
    examples: Sequence[tuple[Example, Sample | None]],
    *,
    heading: str,
    by: str | None,
) -> Image.Image:
    """The sheet as an RGB picture.

    Args:
        decision: what was kept.
        spreads: of the scores, drawn one below the other.
        examples: rows with their samples, where these can be read.
        heading: above all.
        by: the score that parts the examples into tenths.
    """
    columns = max(1, _most(examples))
    inner_w = max(_LABEL_W + 2 * columns * _CELL_W + GAP, 900)
    deciles = DECILES if examples else 0
    steps_h = _STEP_H * (len(decision.steps) + 1)
    height = (
        2 * MARGIN
        + 60
        + steps_h
        + len(spreads) * (_CHART_H + 60)
        + (40 + deciles * (_CELL_H + PAD) if deciles else 0)
    )
    canvas = Image.new("RGB", (inner_w + 2 * MARGIN, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, MARGIN), ellipsis(heading, font(22), inner_w), font=font(22), fill=INK)
    top = MARGIN + 40
    top = _draw_steps(pen, decision, top=top) + GAP
    for spread in spreads:
        _draw_spread(pen, spread, decision, top=top, width=inner_w)
        top += _CHART_H + 60
    if deciles:
        _draw_examples(canvas, examples, decision, top=top, columns=columns, by=by or "")
    return canvas


def _most(examples: Sequence[tuple[Example, Sample | None]]) -> int:
    """Pictures side by side in the fullest tenth."""
    counts: dict[tuple[int, bool], int] = {}
    for example, _ in examples:
        counts[example.decile, example.kept] = counts.get((example.decile, example.kept), 0) + 1
    return max(counts.values(), default=0)


def _draw_steps(pen: ImageDraw.ImageDraw, decision: Decision, *, top: int) -> int:
    num, plain = len(decision.times_N), font(14)
    left = num
    pen.text((MARGIN, top), f"{num:,} samples", font=plain, fill=INK)
    for step in decision.steps:
        top += _STEP_H
        left -= step.num_dropped
        text = f"- {step.num_dropped:,}"
        pen.text((MARGIN + 110 - plain.getlength(text), top), text, font=plain, fill=WRONG)
        pen.text((MARGIN + 126, top), ellipsis(step.name, plain, 420), font=plain, fill=INK)
        pen.text((MARGIN + 560, top), f"{left:,} left", font=plain, fill=FADED)
    return top + _STEP_H


def _draw_spread(
    pen: ImageDraw.ImageDraw, spread: Spread, decision: Decision, *, top: int, width: int
) -> None:
    """Bars of what is kept upon bars of what is dropped, and the cut where there is one."""
    occupied = np.flatnonzero(spread.kept_H + spread.dropped_H)
    note = f"{spread.name}: kept (green) and dropped (red)"
    if spread.num_unscored:
        note += f"; {spread.num_unscored:,} without a score"
    pen.text((MARGIN, top), note, font=font(14), fill=INK)
    top += 22
    pen.rectangle((MARGIN, top, MARGIN + width, top + _CHART_H), fill=CARD, outline=LINE)
    if not len(occupied):
        return
    low, high = int(occupied[0]), int(occupied[-1]) + 1
    wide = -(-(high - low) // _BARS)
    edges = np.arange(low, high, wide)
    kept, dropped = (np.add.reduceat(side[:high], edges) for side in (spread.kept_H, spread.dropped_H))
    tallest = max(1, int((kept + dropped).max()))
    bar_w = width / len(edges)
    for place, (green, red) in enumerate(zip(kept.tolist(), dropped.tolist(), strict=True)):
        x0, x1 = round(MARGIN + place * bar_w), round(MARGIN + (place + 1) * bar_w) - 1
        base = top + _CHART_H
        green_h, red_h = (round(num / tallest * (_CHART_H - 8)) for num in (green, red))
        if red_h:
            pen.rectangle((x0, base - red_h, max(x0, x1), base), fill=WRONG)
        if green_h:
            pen.rectangle((x0, base - red_h - green_h, max(x0, x1), base - red_h), fill=RIGHT)
    span = len(edges) * wide
    _draw_scale(pen, low=low, span=span, top=top + _CHART_H + 2, width=width, bins=len(spread.kept_H))
    for step in decision.steps:
        if step.name.startswith(f"top {spread.name}=") and "cut" in step.facts:
            place = (step.facts["cut"] + 1) * len(spread.kept_H) / 2
            x = round(MARGIN + (place - low) / span * width)
            pen.line((x, top, x, top + _CHART_H), fill=INK, width=2)
            pen.text((x + 4, top + 2), f"{step.facts['cut']:.4f}", font=font(12), fill=INK)


def _draw_scale(pen: ImageDraw.ImageDraw, *, low: int, span: int, top: int, width: int, bins: int) -> None:
    small = font(12)
    for part in range(6):
        value = (low + span * part / 5) * 2 / bins - 1
        text = f"{value:.2f}"
        x = MARGIN + width * part / 5
        x -= small.getlength(text) * part / 5
        pen.text((x, top), text, font=small, fill=FADED)


def _draw_examples(
    canvas: Image.Image,
    examples: Sequence[tuple[Example, Sample | None]],
    decision: Decision,
    *,
    top: int,
    columns: int,
    by: str,
) -> None:
    """A row for each tenth, the highest scores first: kept on the left, dropped on the right."""
    pen = ImageDraw.Draw(canvas)
    groups: dict[tuple[int, bool], list[tuple[Example, Sample | None]]] = {}
    for pair in examples:
        groups.setdefault((pair[0].decile, pair[0].kept), []).append(pair)
    right = MARGIN + _LABEL_W + columns * _CELL_W + GAP
    pen.text((MARGIN, top), f"tenths by {by}", font=font(14), fill=INK)
    pen.text((MARGIN + _LABEL_W + 60, top), "kept", font=font(14), fill=RIGHT)
    pen.text((right, top), "dropped", font=font(14), fill=WRONG)
    top += 28
    for decile in reversed(range(DECILES)):
        label = f"{10 * decile} to {10 * decile + 10}%"
        pen.text((MARGIN, top + _CELL_H // 2 - 10), label, font=font(14), fill=FADED)
        for kept, left in ((True, MARGIN + _LABEL_W), (False, right)):
            for place, (example, sample) in enumerate(groups.get((decile, kept), [])):
                _draw_example(canvas, example, sample, decision, at=(left + place * _CELL_W, top))
        top += _CELL_H + PAD


def _draw_example(
    canvas: Image.Image,
    example: Example,
    sample: Sample | None,
    decision: Decision,
    *,
    at: tuple[int, int],
) -> None:
    pen = ImageDraw.Draw(canvas)
    left, top = at
    width = _CELL_W - PAD
    pen.rectangle((left, top, left + width, top + _CELL_H), fill=CARD, outline=LINE)
    small = font(12)
    if sample is not None:
        try:
            image = decode(sample.image, name=sample.key)
        except ValueError:
            pen.text((left + PAD, top + PAD), "cannot be decoded", font=small, fill=FADED)
        else:
            size = fit(image, _PICTURE_PX)
            spot = (left + (width - size[0]) // 2, top + PAD + (_PICTURE_PX - size[1]) // 2)
            canvas.paste(image.resize(size, Image.Resampling.LANCZOS), spot)
        lines = wrap(sample.captions[0], small, width - 2 * PAD)
        if len(lines) > _LINES:
            lines = [*lines[: _LINES - 1], ellipsis(" ".join(lines[_LINES - 1 :]), small, width - 2 * PAD)]
        for number, line in enumerate(lines):
            y = top + PAD + _PICTURE_PX + 4 + 15 * number
            pen.text((left + PAD, y), line, font=small, fill=INK)
    note = f"{example.score:.3f}"
    if example.dropped_by:
        note += f" {decision.steps[example.dropped_by - 1].name}"
    foot = top + _CELL_H - 20
    pen.text(
        (left + PAD, foot),
        ellipsis(note, small, width - 2 * PAD),
        font=small,
        fill=RIGHT if example.kept else WRONG,
    )
