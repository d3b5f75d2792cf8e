"""The manifest of an exported model: what the folder holds, proven by hashes, and how to feed it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pocketclip.data.preprocess import Preprocess
from pocketclip.data.publish import publish_file, sha256_file
from pocketclip.data.sample import JsonValue

FORMAT = "pocketclip-export"
VERSION = 2
MANIFEST_FILE = "manifest.json"
TOWERS = ("image", "text")
ROLES = (*TOWERS, "image_weights", "text_weights", "tokenizer", "probes", "labels", "card")
"""What a file of an exported model can be for; the keys of `Manifest.files`.

A tower is one file, or two with its weights; the tokenizer comes with the text tower; probes are inputs with the
embeddings that the gate saw for them, by which another machine checks itself; labels are a list of classes; the card
is text.
"""
INPUTS = ("float32", "uint8")
"""What the image tower takes: normalised BCHW pixels, or 8-bit BHWC ones that it normalises itself."""

_AGAIN = (
    "export the checkpoint again (`pocketclip export CHECKPOINT FOLDER`), or copy the folder again, whole"
)


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """One file of an exported model.

    Attributes:
        name: within the folder, no slash.
        num_bytes: its size.
        sha256: of its bytes, 64 hexadecimal digits.
    """

    name: str
    num_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name:
            raise ValueError(f"file name {self.name!r} is not a plain name within the folder")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything needed to run an exported model besides its files.

    Attributes:
        model: name of the variant, or "custom".
        checkpoint: digest of the checkpoint that was exported.
        embed_dim: channels D of an embedding.
        logit_scale: what cosines are multiplied with before a softmax, for instance 100.
        preprocess: picture to pixels.
        context_length: tokens L of a text.
        target: format of the towers, for instance "onnx".
        precision: of weights and arithmetic, for instance "fp32".
        pixels: what the image tower takes, one of `INPUTS`.
        settings: how the towers were made: operator set, calibration, layers that were left in float32.
        files: role, of `ROLES` -> file.
        parity: what was measured against the checkpoint before the folder was published.
    """

    model: str
    checkpoint: str
    embed_dim: int
    logit_scale: float
    preprocess: Preprocess
    context_length: int
    target: str
    precision: str
    pixels: str
    settings: Mapping[str, JsonValue]
    files: Mapping[str, ExportedFile]
    parity: Mapping[str, JsonValue]

    @property
    def towers(self) -> tuple[str, ...]:
        """Those of "image" and "text" that the folder has."""
        return tuple(tower for tower in TOWERS if tower in self.files)

    @property
    def digest(self) -> str:
        """Identity of the embeddings, sha256: equal digests mean vectors that may be compared."""
        identity = {
            "files": {
                role: file.sha256
                for role, file in sorted(self.files.items())
                if role.startswith(TOWERS) or role == "tokenizer"
            },
            "preprocess": self.preprocess.to_json(),
            "context_length": self.context_length,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, JsonValue]:
        """Plain JSON values, `format` and `version` first."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "checkpoint": self.checkpoint,
            "embed_dim": self.embed_dim,
            "logit_scale": self.logit_scale,
            "preprocess": self.preprocess.to_json(),
            "context_length": self.context_length,
            "target": self.target,
            "precision": self.precision,
            "pixels": self.pixels,
            "settings": dict(self.settings),
            "files": {role: asdict(file) for role, file in self.files.items()},
            "parity": dict(self.parity),
        }


def describe_file(path: Path) -> ExportedFile:
    """Name, size and hash of a file; of a folder (an .mlpackage) those of all that it holds."""
    return ExportedFile(name=path.name, num_bytes=_num_bytes(path), sha256=_sha256(path))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json`, whole or not at all."""
    text = json.dumps(manifest.to_json(), indent=1, allow_nan=False) + "\n"
    with publish_file(Path(folder) / MANIFEST_FILE) as file:
        file.write(text.encode())


def read_manifest(folder: Path) -> Manifest:
    """Reads `manifest.json` without looking at the other files.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it is damaged, of another format or version, or a field is missing, unknown or wrong.
    """
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not an exported model (no {MANIFEST_FILE}): "
            f"run `pocketclip export CHECKPOINT {folder}`"
        )
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): {_AGAIN}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not the manifest of an exported pocketclip model: choose another folder")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {content.get('version')!r} and this pocketclip reads version {VERSION}: "
            f"export the checkpoint again with this pocketclip, or use the one that wrote it"
        )
    try:
        return _parse(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}: {_AGAIN}") from error


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Checks that every file of the manifest is there with its very bytes.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another size or hash.
    """
    for file in manifest.files.values():
        path = Path(folder) / file.name
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing, though the manifest lists it: {_AGAIN}")
        num_bytes = _num_bytes(path)
        if num_bytes != file.num_bytes:
            raise ValueError(
                f"{path} has {num_bytes:,} bytes and the manifest says {file.num_bytes:,}: "
                f"it was cut or changed; {_AGAIN}"
            )
        if _sha256(path) != file.sha256:
            raise ValueError(f"{path} has another hash than the manifest says: it was changed; {_AGAIN}")


def _num_bytes(path: Path) -> int:
    return sum(inner.stat().st_size for inner in _files(path))


def _sha256(path: Path) -> str:
    if path.is_file():
        return sha256_file(path)
    listed = [f"{sha256_file(inner)}  {inner.relative_to(path).as_posix()}\n" for inner in _files(path)]
    return hashlib.sha256("".join(listed).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]


def _parse(content: Mapping[str, object]) -> Manifest:
    names = {field.name for field in fields(Manifest)}
    _check_names(set(content) - {"format", "version"}, names, what="the manifest")
    files = _mapping(content, "files")
    if unknown := set(files) - set(ROLES):
        raise ValueError(f"files has unknown fields: {', '.join(sorted(unknown))}")
    if not set(files) & set(TOWERS):
        raise ValueError("files has missing fields: image or text")
    if "text" in files and "tokenizer" not in files:
        raise ValueError("files has missing fields: tokenizer")
    pixels = _text(content, "pixels")
    if pixels not in INPUTS:
        raise ValueError(f"pixels is {pixels!r}, expected one of {', '.join(INPUTS)}")
    logit_scale = _typed(content, "logit_scale", (int, float))
    assert isinstance(logit_scale, int | float)
    if not math.isfinite(logit_scale) or logit_scale <= 0:
        raise ValueError(f"logit_scale is {logit_scale}, not a number above 0")
    return Manifest(
        model=_text(content, "model"),
        checkpoint=_text(content, "checkpoint"),
        embed_dim=_count(content, "embed_dim"),
        logit_scale=float(logit_scale),
        preprocess=Preprocess.from_json(_mapping(content, "preprocess")),
        context_length=_count(content, "context_length"),
        target=_text(content, "target"),
        precision=_text(content, "precision"),
        pixels=pixels,
        settings=_mapping(content, "settings"),
        files={role: _file(_mapping(files, role)) for role in ROLES if role in files},
        parity=_mapping(content, "parity"),
    )


def _file(values: Mapping[str, object]) -> ExportedFile:
    _check_names(set(values), {field.name for field in fields(ExportedFile)}, what="a file")
    return ExportedFile(
        name=_text(values, "name"), num_bytes=_count(values, "num_bytes"), sha256=_text(values, "sha256")
    )


def _check_names(found: set[str], known: set[str], *, what: str) -> None:
    for problem, names in (("missing", known - found), ("unknown", found - known)):
        if names:
            raise ValueError(f"{what} has {problem} fields: {', '.join(sorted(names))}")


def _typed(values: Mapping[str, object], name: str, kinds: tuple[type, ...]) -> object:
    value = values[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, expected {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _text(values: Mapping[str, object], name: str) -> str:
    value = _typed(values, name, (str,))
    assert isinstance(value, str)
    return value


def _count(values: Mapping[str, object], name: str) -> int:
    value = _typed(values, name, (int,))
    assert isinstance(value, int)
    if value < 1:
        raise ValueError(f"{name} is {value}, expected at least 1")
    return value


def _mapping(values: Mapping[str, object], name: str) -> dict[str, JsonValue]:
    value = _typed(values, name, (dict,))
    assert isinstance(value, dict)
    return value
