"""Pictures in a terminal: sixel, or the protocols of kitty and iTerm2, by what the terminal says it can.

Sources: kitty's graphics protocol (chunks of base64, keys a, f, m), iTerm2's inline images (OSC 1337), DEC's sixel
graphics (VT340 programmer's reference, chapter 14), xterm's primary device attributes (4 stands for sixel).
"""

from __future__ import annotations

import base64
import io
import os
import re
import select
import sys
from collections.abc import Mapping, Sequence
from typing import Literal, TextIO

import numpy as np
from PIL import Image, ImageDraw

from pocketclip.data.sheet import font

Protocol = Literal["kitty", "sixel", "iterm", "none"]

_ESC = "\x1b"
_CHUNK = 4096  # base64 characters that kitty takes at a time
_COLOURS = 256
_CELL_PX = (9, 18)  # of terminals that do not say how large a character is
_THUMBNAIL_PX = 144
_GAP_PX = 8
_ANSWER_S = 0.3
_KITTY = ("kitty", "ghostty")
_ITERM = ("iTerm.app", "WezTerm", "mintty", "vscode", "rio", "Tabby")
_SIXEL = ("foot", "mlterm", "contour", "yaft", "sixel")


def detect(stream: TextIO, environment: Mapping[str, str] | None = None) -> Protocol:
    """What the terminal behind a stream can show: told by the environment, else asked.

    Args:
        stream: where pictures would be written; "none" where it is no terminal.
        environment: None for the process's own.
    """
    environment = os.environ if environment is None else environment
    if not stream.isatty() or environment.get("TERM", "dumb") == "dumb":
        return "none"
    return named(environment) or ("sixel" if _answers_sixel(stream) else "none")


def named(environment: Mapping[str, str]) -> Protocol | None:
    """What the environment tells of the terminal; None where it tells nothing.

    Inside tmux and screen the variables of the terminal outside are still set, and its protocols do not pass.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return None
    if "KITTY_WINDOW_ID" in environment or any(name in (*term.split("-"), program) for name in _KITTY):
        return "kitty"
    if program in _ITERM or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    if any(name in term for name in _SIXEL):
        return "sixel"
    return None


def encode(image: Image.Image, protocol: Protocol) -> str:
    """What to write so that a terminal shows an RGB picture; empty for "none"."""
    encoders = {"kitty": kitty, "sixel": sixel, "iterm": iterm}
    return encoders[protocol](image) if protocol in encoders else ""


def kitty(image: Image.Image) -> str:
    """Kitty's protocol: a PNG in base64, in chunks."""
    data = base64.standard_b64encode(_encoded(image, "PNG")).decode()
    chunks = [data[begin : begin + _CHUNK] for begin in range(0, len(data), _CHUNK)]
    last = len(chunks) - 1
    return "".join(
        f"{_ESC}_G{'a=T,f=100,' if number == 0 else ''}m={int(number < last)};{chunk}{_ESC}\\"
        for number, chunk in enumerate(chunks)
    )


def iterm(image: Image.Image) -> str:
    """iTerm2's protocol: a JPEG in base64, at its own size."""
    data = _encoded(image, "JPEG")
    text = base64.standard_b64encode(data).decode()
    size = f"width={image.width}px;height={image.height}px"
    return f"{_ESC}]1337;File=inline=1;size={len(data)};{size};preserveAspectRatio=1:{text}\a"


def sixel(image: Image.Image) -> str:
    """Sixel: bands of six rows; in each band every colour that it has draws its own pixels."""
    quantised = image.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT)
    palette = np.array(quantised.getpalette("RGB") or [], dtype=float).reshape(-1, 3)
    index_HW = np.asarray(quantised)
    colours = "".join(
        f"#{number};2;{red};{green};{blue}"
        for number, (red, green, blue) in enumerate(np.rint(palette * 100 / 255).astype(int).tolist())
    )
    bands = [_band(index_HW[top : top + 6]) for top in range(0, image.height, 6)]
    return f'{_ESC}P0;1q"1;1;{image.width};{image.height}{colours}{"-".join(bands)}{_ESC}\\'


def strip(thumbnails: Sequence[bytes], labels: Sequence[str], *, width_px: int) -> Image.Image:
    """JPEG thumbnails side by side with a label in the corner, in as many rows as the width asks for."""
    rows: list[list[tuple[Image.Image, str]]] = [[]]
    used = 0
    for data, label in zip(thumbnails, labels, strict=True):
        with Image.open(io.BytesIO(data)) as image:
            scale = _THUMBNAIL_PX / image.height
            size = (min(width_px, max(24, round(image.width * scale))), _THUMBNAIL_PX)
            fitted = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        if rows[-1] and used + fitted.width > width_px:
            rows.append([])
            used = 0
        rows[-1].append((fitted, label))
        used += fitted.width + _GAP_PX
    width = max(1, *(sum(image.width + _GAP_PX for image, _ in row) - _GAP_PX for row in rows if row))
    canvas = Image.new("RGB", (width, len(rows) * (_THUMBNAIL_PX + _GAP_PX) - _GAP_PX))
    pen, letters = ImageDraw.Draw(canvas), font(14)
    for number, row in enumerate(rows):
        left, top = 0, number * (_THUMBNAIL_PX + _GAP_PX)
        for image, label in row:
            canvas.paste(image, (left, top))
            length = pen.textlength(label, font=letters)
            pen.rectangle((left, top, left + length + 8, top + 19), fill=(0, 0, 0))
            pen.text((left + 4, top + 1), label, font=letters, fill=(255, 255, 255))
            left += image.width + _GAP_PX
    return canvas


def terminal_px(stream: TextIO) -> int:
    """Width of a terminal in pixels, as it says, or by its columns."""
    if sys.platform == "win32":
        return 80 * _CELL_PX[0]
    import fcntl
    import struct
    import termios

    try:
        answer = fcntl.ioctl(stream.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
    except OSError:
        return 80 * _CELL_PX[0]
    _, columns, width, _ = struct.unpack("HHHH", answer)
    return width or (columns or 80) * _CELL_PX[0]


def _band(index_6W: np.ndarray) -> str:
    """Six rows (fewer at the end) as sixel data."""
    weight_61 = (1 << np.arange(len(index_6W)))[:, None]
    parts = []
    for colour in np.unique(index_6W).tolist():
        bits_W = ((index_6W == colour) * weight_61).sum(axis=0)
        starts = np.flatnonzero(np.diff(bits_W, prepend=-1))
        lengths = np.diff(starts, append=len(bits_W))
        runs = [_run(int(bits_W[start]), int(length)) for start, length in zip(starts, lengths, strict=True)]
        if not bits_W[starts[-1]]:
            runs.pop()  # blank to the end of the line
        parts.append(f"#{colour}{''.join(runs)}")
    return "$".join(parts)


def _run(bits: int, length: int) -> str:
    character = chr(63 + bits)
    return f"!{length}{character}" if length > 3 else character * length


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _answers_sixel(stream: TextIO) -> bool:
    """Asks the terminal for its device attributes; whoever does not answer in time has none."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        return False
    import termios
    import tty

    number = sys.stdin.fileno()
    try:
        before = termios.tcgetattr(number)
    except termios.error:
        return False
    try:
        tty.setcbreak(number, termios.TCSANOW)
        stream.write(f"{_ESC}[c")
        stream.flush()
        answer = b""
        while not answer.endswith(b"c") and select.select([number], [], [], _ANSWER_S)[0]:
            answer += os.read(number, 64)
    finally:
        termios.tcsetattr(number, termios.TCSANOW, before)
    found = re.search(rb"\x1b\[\?([\d;]+)c", answer)
    return found is not None and b"4" in found[1].split(b";")
