"""Pictures in terminals: what is written can be read back, and nothing is written where nobody can."""

from __future__ import annotations

import base64
import io
import os
import re
import select
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketclip.search.preview import detect, encode, named, sixel, strip, terminal_px


def picture(width: int, height: int, *, seed: int = 0, colours: int = 8) -> Image.Image:
    """Noise in a few colours whose levels sixel's percentages hold exactly."""
    draw = np.random.default_rng(seed)
    palette = draw.integers(0, 6, (colours, 3)) * 51
    return Image.fromarray(palette[draw.integers(0, colours, (height, width))].astype(np.uint8))


def read_sixel(text: str) -> np.ndarray:
    """A terminal: draws sixel data, uint8 [H, W, 3]."""
    found = re.fullmatch(r'\x1bP0;1q"1;1;(\d+);(\d+)(.*)\x1b\\', text, re.DOTALL)
    assert found
    width, height = int(found[1]), int(found[2])
    canvas = np.zeros((-(-height // 6) * 6, width, 3), dtype=np.uint8)
    painted = np.zeros(canvas.shape[:2], dtype=bool)
    palette: dict[int, list[int]] = {}
    colour, x, y = 0, 0, 0
    for token in re.finditer(r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|([$-])", found[3]):
        number, red, green, blue, chosen, times, repeated, single, move = token.groups()
        if number:
            palette[int(number)] = [round(int(level) * 255 / 100) for level in (red, green, blue)]
        elif chosen:
            colour = int(chosen)
        elif move:
            x, y = 0, y + 6 * (move == "-")
        else:
            count, bits = int(times or 1), ord(repeated or single) - 63
            for row in range(6):
                if bits >> row & 1:
                    canvas[y + row, x : x + count] = palette[colour]
                    assert not painted[y + row, x : x + count].any()
                    painted[y + row, x : x + count] = True
            x += count
            assert x <= width
    assert painted[:height].all()
    return canvas[:height]


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_sixel_draws_every_pixel_once_in_its_colour(width: int, height: int, seed: int):
    image = picture(width, height, seed=seed)
    np.testing.assert_array_equal(read_sixel(sixel(image)), np.asarray(image))


def test_sixel_writes_runs_and_no_blank_ends():
    text = sixel(Image.new("RGB", (300, 6), "white"))
    assert "!300~" in text
    half = Image.new("RGB", (300, 6), "black")
    half.paste((255, 255, 255), (0, 0, 10, 6))
    assert len(sixel(half)) < 120


def test_kitty_gets_a_png_in_chunks():
    image = picture(200, 100, colours=200)
    text = encode(image, "kitty")
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert len(chunks) > 1
    assert [keys for keys, _ in chunks] == ["a=T,f=100,m=1", *["m=1"] * (len(chunks) - 2), "m=0"]
    assert all(len(data) <= 4096 for _, data in chunks)
    sent = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in chunks))))
    np.testing.assert_array_equal(np.asarray(sent), np.asarray(image))


def test_iterm_gets_one_file_with_its_size():
    text = encode(picture(60, 40), "iterm")
    found = re.fullmatch(
        r"\x1b\]1337;File=inline=1;size=(\d+);width=60px;height=40px;preserveAspectRatio=1:(.*)\a", text
    )
    assert found
    data = base64.b64decode(found[2])
    assert len(data) == int(found[1])
    assert Image.open(io.BytesIO(data)).size == (60, 40)


def test_none_writes_nothing():
    assert encode(picture(6, 6), "none") == ""


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/x", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "screen.xterm-256color", "LC_TERMINAL": "iTerm2"}, None),
        ({}, None),
    ],
)
def test_terminals_are_known_by_their_environment(environment: dict[str, str], protocol: str | None):
    assert named(environment) == protocol


def test_a_pipe_shows_nothing():
    assert detect(io.StringIO(), {"TERM": "xterm-kitty"}) == "none"


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
class TestTerminal:
    """A pseudo terminal, with the test at its other end."""

    def ask(self, answer: bytes, monkeypatch: pytest.MonkeyPatch, **environment: str) -> tuple[str, bytes]:
        """What `detect` says when the terminal answers so, and what it was asked."""
        import pty

        outside, inside = pty.openpty()
        asked: list[bytes] = []

        def terminal() -> None:
            if select.select([outside], [], [], 5)[0]:
                asked.append(os.read(outside, 100))
                os.write(outside, answer)

        with (
            os.fdopen(inside, "r+b", buffering=0) as both,
            io.TextIOWrapper(both, write_through=True) as stream,
        ):
            monkeypatch.setattr(sys, "stdin", stream)
            thread = threading.Thread(target=terminal)
            thread.start()
            said = detect(stream, {"TERM": "xterm-256color"} | environment)
            if not asked:
                os.write(inside, b".")
            thread.join()
        os.close(outside)
        return said, b"".join(asked)

    @pytest.mark.parametrize(
        ("answer", "protocol"),
        [
            (b"\x1b[?62;4;22c", "sixel"),
            (b"\x1b[?65;1;9;4c", "sixel"),
            (b"\x1b[?1;2c", "none"),
            (b"\x1b[?64;22;42c", "none"),
            (b"x", "none"),
        ],
    )
    def test_others_are_asked(self, answer: bytes, protocol: str, monkeypatch: pytest.MonkeyPatch):
        said, asked = self.ask(answer, monkeypatch)
        assert (said, asked) == (protocol, b"\x1b[c")

    def test_a_known_one_is_not(self, monkeypatch: pytest.MonkeyPatch):
        said, asked = self.ask(b"", monkeypatch, TERM="xterm-kitty")
        assert (said, asked) == ("kitty", b".")

    def test_a_dumb_one_is_not(self, monkeypatch: pytest.MonkeyPatch):
        assert self.ask(b"", monkeypatch, TERM="dumb")[0] == "none"

    def test_its_width_in_pixels(self):
        import fcntl
        import pty
        import struct
        import termios

        outside, inside = pty.openpty()
        with os.fdopen(inside, "w") as stream:
            fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
            by_columns = terminal_px(stream)
            fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 1234, 600))
            assert (by_columns, terminal_px(stream)) == (900, 1234)
        os.close(outside)


def test_a_strip_holds_every_picture_with_its_label_within_the_width(encode):
    thumbnails = [
        encode("JPEG", colour=colour, size=50) for colour in ("red", "lime", "blue", "yellow", "cyan")
    ]
    drawn = strip(thumbnails, list("12345"), width_px=320)
    assert drawn.width <= 320
    pixels = np.asarray(drawn, dtype=int)
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)):
        assert (np.abs(pixels - colour).max(axis=2) < 12).sum() > 5000, colour
    assert strip(thumbnails[:1], ["1"], width_px=20).width <= 24
