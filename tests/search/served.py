"""Clients of a served index, for the tests of the server."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the server needs the extra `serve`")
pytest.importorskip("uvicorn", reason="the server needs the extra `serve`")

from fastapi.testclient import TestClient

from pocketclip.search import index
from pocketclip.search.server import Limits, ServerConfig, create_app

HOST = "http://127.0.0.1:8765"
FREE = Limits(credits=1e9, credits_per_s=1e9)
"""No rate to speak of."""
COLOURS = ("red", "green", "blue", "white")


def png(colour: str = "red", *, size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder: Path, *, num: int = 12) -> Path:
    """Pictures in three folders, shades of four colours, wide and tall."""
    for number in range(num):
        colour = COLOURS[number % 4]
        path = folder / f"{2020 + number % 3}" / f"{colour} {number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (48 + 4 * (number % 5), 32 + 6 * (number % 7)), colour)
        image.putpixel((number % 40, number // 40), (number, number, number))
        image.save(path)
    return folder


def build(folder: Path, model: Path, **settings) -> Path:
    """An index of `fill`."""
    out = folder / "shown.index"
    index([fill(folder / "pictures", **settings)], out, model=model)
    return out


def client_of(path: Path, **settings) -> TestClient:
    """A client of a server of its own."""
    config = ServerConfig(**({"index": path, "limits": FREE} | settings))
    return TestClient(create_app(config), base_url=HOST, follow_redirects=False)


@contextmanager
def running(path: Path, *arguments: str) -> Generator[str, None, None]:
    """`pocketclip serve` in a process of its own; gives its address."""
    command = [sys.executable, "-m", "pocketclip", "serve", str(path), "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"http://\S+", line):
                yield found.group()
                break
        else:
            pytest.fail(f"the server did not start: {said}")
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0
