"""An exported page in a headless browser, asked for embeddings like any exported model.

Shapes: B batch, L tokens, D embedding.
"""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import os
import shutil
import statistics
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketclip.export.towers import CannotRunError
from pocketclip.runtime.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSER = "POCKETCLIP_CHROMIUM"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_LIMIT_MS = 300_000
_RUNS = 5

# Pictures arrive as base64 of PNG: a page may fetch nothing but its own files.
_PICTURES = """
const blobs = (pictures) => pictures.map((one) => new Blob([Uint8Array.from(atob(one), (c) => c.charCodeAt(0))]));
"""
_READY = """async (limit) => Promise.race([
  window.pocketclip.ready, new Promise((_, no) => setTimeout(() => no(new Error("no answer in time")), limit))])"""
_IMAGES = f"(pictures) => {{ {_PICTURES} return window.pocketclip.embedImages(blobs(pictures)); }}"
_PIXELS = (
    f"async ([picture]) => {{ {_PICTURES} return [...await window.pocketclip.pixels(blobs([picture])[0])]; }}"
)
_TEXTS = "(texts) => window.pocketclip.embedTexts(texts.map((one) => JSON.parse(one)))"
_TOKENS = "(texts) => window.pocketclip.tokens(texts.map((one) => JSON.parse(one)))"
_TIMED = f"""async ([pictures, texts, runs]) => {{
  {_PICTURES}
  const timed = async (work) => {{
    const took = [];
    for (let i = 0; i < runs; i++) {{
      const start = performance.now();
      await work();
      took.push(performance.now() - start);
    }}
    return took;
  }};
  return {{
    image: await timed(() => window.pocketclip.embedImages(blobs(pictures))),
    text: await timed(() => window.pocketclip.embedTexts(texts)),
  }};
}}"""


class Visitor:
    """A page that is open in a browser. Its methods are those of `ExportedModel`; all of their work is the page's.

    Attributes:
        manifest: of the page's folder.
        browser: name and version.
        facts: what the page says of itself: model, backend, threads.
        page: playwright's.
        asked: addresses that the page asked for outside of its folder; it should be none.
    """

    def __init__(
        self, page: Page, *, folder: Path, browser: str, facts: dict[str, Any], asked: list[str]
    ) -> None:
        self.manifest: Manifest = read_manifest(folder)
        self.browser = browser
        self.facts = facts
        self.page = page
        self.asked = asked

    def tokenizer(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """int64 [B, L]."""
        return np.array(self._ask(_TOKENS, _quoted(texts)), dtype=np.int64)

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """uint8 [size, size, 3], what the page's image tower sees of an RGB picture."""
        size = self.manifest.preprocess.size
        return np.array(self._ask(_PIXELS, [_png(image)]), dtype=np.uint8).reshape(size, size, 3)

    def embed_images(self, images: Sequence[Image.Image], *, batch_size: int = 8) -> npt.NDArray[np.float32]:
        """float32 [B, D] of RGB pictures."""
        rows = [
            self._ask(_IMAGES, [_png(image) for image in images[start : start + batch_size]])
            for start in range(0, len(images), batch_size)
        ]
        return np.array([one for part in rows for one in part], dtype=np.float32)

    def embed_texts(self, texts: Sequence[str], *, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """float32 [B, D]."""
        rows = [
            self._ask(_TEXTS, _quoted(texts[start : start + batch_size]))
            for start in range(0, len(texts), batch_size)
        ]
        return np.array([one for part in rows for one in part], dtype=np.float32)

    def latency_ms(self) -> dict[str, float]:
        """Median time of one picture, decoding included, and of one text: tower -> milliseconds."""
        size = self.manifest.preprocess.size
        picture = _png(Image.new("RGB", (size, size)))
        taken = self._ask(_TIMED, [[picture], ["a photo of a dog"], _RUNS])
        return {role: statistics.median(some) for role, some in taken.items()}

    def _ask(self, script: str, argument: object) -> Any:  # noqa: ANN401 - whatever JSON the page answers
        from playwright.sync_api import Error

        try:
            return self.page.evaluate(script, argument)
        except Error as error:
            raise ValueError(_one_line(error)) from error


@contextmanager
def visit(folder: Path, *, backend: str = "wasm") -> Generator[Visitor, None, None]:
    """Serves a folder on this machine and opens it in a headless Chromium.

    Args:
        folder: written by `pocketclip export --to web`.
        backend: "wasm", "webgpu" or "auto".

    Raises:
        CannotRunError: playwright or a browser is missing, or cannot be started here.
        ValueError: the page does not open; the text is its own.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise CannotRunError("playwright is not installed (pip install playwright)") from error
    with _served(folder) as address:
        try:
            driver = sync_playwright().start()
        except Error as error:
            raise CannotRunError(_one_line(error)) from error
        try:
            try:
                browser = driver.chromium.launch(executable_path=find_browser(), args=_flags())
            except Error as error:
                raise CannotRunError(f"no Chromium starts here ({_one_line(error)})") from error
            asked: list[str] = []
            page = browser.new_page()
            page.on(
                "request",
                lambda one: None if one.url.startswith((address, "blob:")) else asked.append(one.url),
            )
            try:
                page.goto(f"{address}/index.html?backend={backend}")
                facts = page.evaluate(_READY, _LIMIT_MS)
            except Error as error:
                raise ValueError(f"the page does not open: {_one_line(error)}") from error
            yield Visitor(
                page, folder=folder, browser=f"Chromium {browser.version}", facts=facts, asked=asked
            )
        finally:
            driver.stop()


def find_browser() -> str | None:
    """Path of a Chromium or Chrome: POCKETCLIP_CHROMIUM, else one on the PATH; None for playwright's own."""
    named = os.environ.get(BROWSER, "")
    return named or next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def _flags() -> list[str]:
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return ["--no-sandbox"] if is_root else []  # Chromium's sandbox refuses root


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """The plain server of `python -m http.server`, without its lines."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        del format, args


@contextmanager
def _served(folder: Path) -> Generator[str, None, None]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _png(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    return base64.b64encode(data.getvalue()).decode()


def _quoted(texts: Sequence[str]) -> list[str]:
    """Texts as ASCII JSON, which carries halves of surrogate pairs too."""
    return [json.dumps(text) for text in texts]


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
