"""Puts the page that `npm run build` made, and ONNX Runtime's WebAssembly, into the package; see `make web`."""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
from pathlib import Path

WEB = Path(__file__).parent
PAGE = WEB.parent / "src" / "pocketclip" / "export" / "page"
ORT = WEB / "node_modules" / "onnxruntime-web" / "dist"
RUNTIMES = {"ort-wasm": "ort-wasm-simd-threaded", "ort-webgpu": "ort-wasm-simd-threaded.jspi"}
SOURCES = (
    "src/*",
    "public/assets/*",
    "index.html",
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "vite.config.ts",
)


def sources() -> dict[str, str]:
    """Path in web/ -> sha256 of every file that decides what is built."""
    paths = sorted(path for pattern in SOURCES for path in WEB.glob(pattern) if path.is_file())
    return {path.relative_to(WEB).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def publish() -> None:
    """Replaces the package's page."""
    packed = {name: _packed(name, (ORT / f"{theirs}.wasm").read_bytes()) for name, theirs in RUNTIMES.items()}
    shutil.rmtree(PAGE, ignore_errors=True)
    shutil.copytree(WEB / "dist", PAGE)
    for name, theirs in RUNTIMES.items():
        shutil.copyfile(ORT / f"{theirs}.mjs", PAGE / "assets" / f"{name}.mjs")
        (PAGE / "assets" / f"{name}.wasm.xz").write_bytes(packed[name])
    files = {
        path.relative_to(PAGE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(PAGE.rglob("*"))
        if path.is_file()
    }
    record = {"sources": sources(), "files": files}
    (PAGE / "build.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _packed(name: str, wasm: bytes) -> bytes:
    """WebAssembly as xz: what is there already, where it is the same; packing takes half a minute."""
    path = PAGE / "assets" / f"{name}.wasm.xz"
    there = path.read_bytes() if path.exists() else b""
    if there and lzma.decompress(there) == wasm:
        return there
    return lzma.compress(wasm, preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    publish()
