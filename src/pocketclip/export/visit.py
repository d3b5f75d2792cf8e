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
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketclip.export.towers import CannotRunError
from pocketclip.runtime.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from playwright.sync_api import Page, Playwright

BROWSER = "POCKETCLIP_CHROMIUM"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_LIMIT_MS = 300_000
_RUNS = 5
_Result = TypeVar("_Result")

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
        asked: addresses that the page asked for outside of its folder; it should be none.
    """

    def __init__(self, folder: Path, *, opened: _Opened, thread: ThreadPoolExecutor) -> None:
        self.manifest: Manifest = read_manifest(folder)
        self.browser = f"Chromium {opened.browser}"
        self.facts = opened.facts
        self.asked = opened.asked
        self._page = opened.page
        self._thread = thread

    def act(self, deed: Callable[[Page], _Result]) -> _Result:
        """What a function of playwright's page returns; it runs in the thread that the browser belongs to."""
        return self._thread.submit(deed, self._page).result()

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
            return self.act(lambda page: page.evaluate(script, argument))
        except Error as error:
            raise ValueError(_one_line(error)) from error


@contextmanager
def visit(
    folder: Path, *, backend: str = "wasm", flags: Sequence[str] = (), is_isolated: bool = False
) -> Generator[Visitor, None, None]:
    """Serves a folder on this machine and opens it in a headless Chromium.

    Args:
        folder: written by `pocketclip export --to web`.
        backend: "wasm", "webgpu" or "auto".
        flags: for Chromium's command line.
        is_isolated: whether the server sends the headers without which browsers give a page one thread only.

    Raises:
        CannotRunError: playwright or a browser is missing, or cannot be started here.
        ValueError: the page does not open; the text is its own.
    """
    address = f"index.html?backend={backend}"
    with _served(folder, is_isolated=is_isolated) as base, ThreadPoolExecutor(max_workers=1) as thread:
        driver = thread.submit(_start).result()
        try:
            opened = thread.submit(_open, driver, base, address, flags=[*_flags(), *flags]).result()
            yield Visitor(folder, opened=opened, thread=thread)
        finally:
            thread.submit(driver.stop).result()


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A page that says it is ready."""

    page: Page
    browser: str
    facts: dict[str, Any]
    asked: list[str]


def _start() -> Playwright:
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise CannotRunError("playwright is not installed (pip install playwright)") from error
    try:
        return sync_playwright().start()
    except Error as error:
        raise CannotRunError(f"playwright does not start ({_one_line(error)})") from error


def _open(driver: Playwright, base: str, address: str, *, flags: list[str]) -> _Opened:
    from playwright.sync_api import Error

    try:
        browser = driver.chromium.launch(executable_path=find_browser(), args=flags)
    except Error as error:
        raise CannotRunError(f"no Chromium starts here ({_one_line(error)})") from error
    asked: list[str] = []
    page = browser.new_page()
    page.on("request", lambda one: None if one.url.startswith((base, "blob:")) else asked.append(one.url))
    try:
        page.goto(f"{base}/{address}")
        facts = page.evaluate(_READY, _LIMIT_MS)
    except Error as error:
        raise ValueError(f"it does not open: {_one_line(error)}") from error
    return _Opened(page=page, browser=browser.version, facts=facts, asked=asked)


def find_browser() -> str | None:
    """Path of a Chromium or Chrome: POCKETCLIP_CHROMIUM, else one on the PATH; None for playwright's own."""
    named = os.environ.get(BROWSER, "")
    return named or next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def _flags() -> list[str]:
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return ["--no-sandbox"] if is_root else []  # Chromium's sandbox refuses root


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """The plain server of `python -m http.server`, without its lines."""

    def __init__(self, *args: Any, is_isolated: bool, **rest: Any) -> None:  # noqa: ANN401 - the base class's own
        self._is_isolated = is_isolated
        super().__init__(*args, **rest)

    def end_headers(self) -> None:
        """Adds to the headers."""
        if self._is_isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        del format, args


@contextmanager
def _served(folder: Path, *, is_isolated: bool) -> Generator[str, None, None]:
    handler = functools.partial(_Quiet, directory=str(folder), is_isolated=is_isolated)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


def _png(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    return base64.b64encode(data.getvalue()).decode()


def _quoted(texts: Sequence[str]) -> list[str]:
    """Texts as ASCII JSON, which carries halves of surrogate pairs too."""
    return [json.dumps(text) for text in texts]


def _one_line(error: Exception) -> str:
    first = str(error).strip().splitlines()[0]
    return first.removeprefix("Page.evaluate: ").removeprefix("UserError: ")
