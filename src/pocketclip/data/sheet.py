"""What contact sheets are drawn with: colours, fonts, and texts and pictures that fit their places."""

from __future__ import annotations

from PIL import Image, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER: Colour = (246, 247, 249)
CARD: Colour = (255, 255, 255)
LINE: Colour = (222, 225, 230)
INK: Colour = (28, 32, 38)
FADED: Colour = (112, 120, 130)
RIGHT: Colour = (22, 150, 72)
WRONG: Colour = (200, 60, 50)
MARGIN, GAP, PAD = 24, 12, 8
"""Pixels around a sheet, between its parts, and inside of them."""


def font(height_px: float) -> Font:
    """Pillow's own font, which every machine has."""
    return ImageFont.load_default(size=height_px)


def fit(image: Image.Image, side: int) -> tuple[int, int]:
    """Width and height within a square; small pictures grow to at most twice their size."""
    scale = min(side / max(image.size), 2.0)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def wrap(text: str, font: Font, width: int) -> list[str]:
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


def ellipsis(text: str, font: Font, width: int) -> str:
    """The text, cut with "..." where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text.rstrip()}..."
