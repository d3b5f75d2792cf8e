"""The page around exported towers: static files, built from `web/` and kept in the package."""

from __future__ import annotations

import gzip
import lzma
from importlib.resources import as_file, files
from pathlib import Path

import PIL

from pocketclip.data.publish import publish_file, sha256_file
from pocketclip.data.sample import JsonValue

_BUILD_FILE = "build.json"  # for the tests of the package
_PACKED = ".xz"
_LEVEL = 6


def write_site(folder: Path) -> dict[str, JsonValue]:
    """Writes index.html and assets/ beside the towers.

    ONNX Runtime's WebAssembly is kept as xz, which browsers cannot unpack; it travels as gzip, which they can.

    Args:
        folder: of an export.

    Returns:
        Settings for the manifest: `page`, file name -> sha256, and `resize_order`, the one of the installed Pillow,
        which the page follows: versions differ in which of the two passes of a resize comes first.
    """
    hashes: dict[str, JsonValue] = {}
    with as_file(files("pocketclip.export") / "page") as page:
        for path in sorted(path for path in page.rglob("*") if path.is_file() and path.name != _BUILD_FILE):
            name, data = path.relative_to(page), path.read_bytes()
            if path.suffix == _PACKED:
                name, data = name.with_suffix(".gz"), gzip.compress(lzma.decompress(data), _LEVEL, mtime=0)
            with publish_file(folder / name) as file:
                file.write(data)
            hashes[name.as_posix()] = sha256_file(folder / name)
    order = "pillow_13" if int(PIL.__version__.partition(".")[0]) >= 13 else "pillow_12"
    return {"page": hashes, "resize_order": order}
