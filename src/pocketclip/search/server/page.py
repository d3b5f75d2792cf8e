"""The page's files, read once; a request names one of them or gets nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file of the page.

    Attributes:
        body: its bytes.
        media_type: by its name.
        tag: of its content, for `If-None-Match`.
    """

    body: bytes
    media_type: str
    tag: str


def assets() -> Mapping[str, Asset]:
    """All files of the page, by name.

    Raises:
        FileNotFoundError: the package was installed without them.
    """
    folder = files("pocketclip.search") / "page"
    found = {
        file.name: _asset(file.name, file.read_bytes())
        for file in folder.iterdir()
        if re.search(r"\.[a-z]+$", file.name) and f".{file.name.rpartition('.')[2]}" in _TYPES
    }
    if "index.html" not in found:
        raise FileNotFoundError("the page's files are missing: install pocketclip again")
    return found


def _asset(name: str, body: bytes) -> Asset:
    suffix = f".{name.rpartition('.')[2]}"
    return Asset(body=body, media_type=_TYPES[suffix], tag=f'"{hashlib.sha256(body).hexdigest()[:16]}"')
