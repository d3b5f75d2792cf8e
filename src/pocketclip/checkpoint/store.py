"""A checkpoint: config, weights, preprocessing and tokenizer in one safetensors file that needs no guessing.

The header's metadata holds `format`, `version`, and as JSON `model`, `preprocess`, `tokenizer` and `run` (how it was
trained). Tensors are named `model.*` (un-folded, canonical) and `tokenizer.merges` (the byte-pair merges, gzip).
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cattrs
import cattrs.errors
import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from pocketclip.data.preprocess import Preprocess
from pocketclip.data.publish import publish_file
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.models.clip import Clip, ClipConfig
from pocketclip.models.fold import fold
from pocketclip.models.variants import Variant, variant

FORMAT = "pocketclip"
VERSION = "1"
_MERGES = "tokenizer.merges"
_PREFIX = "model."

_converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Everything of a checkpoint but its weights.

    Attributes:
        model: the two towers.
        preprocess: picture to pixels.
        tokenizer: text to ids.
        run: how it was trained, as JSON; empty for a model that was not.
    """

    model: ClipConfig
    preprocess: Preprocess
    tokenizer: TokenizerConfig
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model and all that is needed to use it.

    Attributes:
        model: in evaluation mode; `model.encode_image(image_BCHW, normalize=True)` gives float32 [B, embed_dim].
        config: what the checkpoint says of itself.
        tokenizer: the numpy tokenizer behind `tokenize`.
        digest: sha256 of weights and config, the same wherever the file was written.
    """

    model: Clip
    config: CheckpointConfig
    tokenizer: Tokenizer
    digest: str

    def folded(self) -> Loaded:
        """The same with its towers folded: equal outputs, faster, no longer trainable."""
        return replace(self, model=fold(self.model))

    def preprocess(self, image: Image.Image) -> Tensor:
        """A picture of any mode and size to float32 [3, H, W], resized, cropped and normalised as in training."""
        return torch.from_numpy(self.config.preprocess(image))

    def tokenize(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Texts to int64 ids [B, L]: start, tokens, end, zeros; a text too long is cut and keeps its end mark."""
        return torch.from_numpy(self.tokenizer(texts, context_length))


def variant_config(name: str) -> CheckpointConfig:
    """The configuration of a variant, by its name in either spelling."""
    row = variant(name)
    return CheckpointConfig(
        model=row.model, preprocess=_variant_preprocess(row), tokenizer=_variant_tokenizer(row)
    )


def _variant_preprocess(row: Variant) -> Preprocess:
    return Preprocess(size=row.image_px, mean=row.mean, std=row.std, interpolation=row.interpolation)


def _variant_tokenizer(row: Variant) -> TokenizerConfig:
    return TokenizerConfig(vocab_size=row.model.text.vocab_size, context_length=row.model.text.context_length)


def create(name: str) -> Loaded:
    """A variant with random weights, in evaluation mode; `torch.manual_seed` makes it repeatable."""
    config = variant_config(name)
    model = Clip(config.model).eval()
    return _loaded(model, config=config, tokenizer=Tokenizer(config.tokenizer))


def save(path: Path, model: Clip, *, config: CheckpointConfig, tokenizer: Tokenizer) -> None:
    """Writes a checkpoint; it appears under its name whole or not at all.

    Args:
        path: of the file, usually `*.safetensors`.
        model: un-folded.
        config: of this very model.
        tokenizer: whose merges are kept.
    """
    tensors = {
        _PREFIX + name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    tensors[_MERGES] = torch.frombuffer(bytearray(tokenizer.merges), dtype=torch.uint8)
    metadata = {"format": FORMAT, "version": VERSION, "run": _dump(config.run)} | _describe(config)
    with publish_file(path) as file:
        file.write(_sorted_header(safetensors.torch.save(tensors, metadata=metadata)))


def _sorted_header(data: bytes) -> bytes:
    """The same safetensors file with its metadata in order; the library writes it in a hash map's, ever another."""
    length = int.from_bytes(data[:8], "little")
    layout = json.loads(data[8 : 8 + length])
    layout["__metadata__"] = dict(sorted(layout["__metadata__"].items()))
    text = json.dumps(layout, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def load(path_or_name: str | Path) -> Loaded:
    """Loads a checkpoint, or makes a variant with random weights (and warns that it did).

    Args:
        path_or_name: a file written by `save`, or the name of a variant in either spelling (`MobileCLIP2-S0`,
            `mobileclip2_s0`).

    Raises:
        ValueError: not a checkpoint, cut, of another version, or its weights do not fit its config; an unknown name.
        FileNotFoundError: a path with nothing there.
    """
    path = Path(path_or_name)
    if path.is_file():
        return _load_file(path)
    if path.suffix or len(path.parts) > 1 or path.exists():
        what = "is a folder, not a checkpoint file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"{path} {what}: give a file written by `pocketclip train`, or a variant's name"
        )
    loaded = create(str(path_or_name))
    warnings.warn(f"{path_or_name} has random weights: load a checkpoint for a trained model", stacklevel=2)
    return loaded


def _load_file(path: Path) -> Loaded:
    metadata, tensors = _read_file(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is a safetensors file but not a pocketclip checkpoint (its header has no format={FORMAT!r})"
        )
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"{path} is a checkpoint of version {metadata.get('version')}, this release reads version {VERSION}: "
            "install the pocketclip release that wrote it, or train it again"
        )
    config = CheckpointConfig(
        model=_structure(metadata, "model", ClipConfig, path=path),
        preprocess=_structure(metadata, "preprocess", Preprocess, path=path),
        tokenizer=_structure(metadata, "tokenizer", TokenizerConfig, path=path),
        run=json.loads(metadata.get("run", "{}")),
    )
    merges = tensors.pop(_MERGES, None)
    if merges is None:
        raise ValueError(f"{path} has no tensor {_MERGES}: it is damaged; copy or train it again")
    model = Clip(config.model)
    _load_weights(model, {name.removeprefix(_PREFIX): value for name, value in tensors.items()}, path=path)
    tokenizer = Tokenizer(config.tokenizer, merges=merges.numpy().tobytes())
    return _loaded(model.eval(), config=config, tokenizer=tokenizer)


def _read_file(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}): it is cut, or something else; copy or train it again"
        ) from None


def _load_weights(model: Clip, weights: Mapping[str, Tensor], *, path: Path) -> None:
    expected = model.state_dict()
    wrong = [f"missing {name}" for name in expected if name not in weights]
    wrong += [f"surplus {name}" for name in weights if name not in expected]
    wrong += [
        f"{name} is {list(value.shape)}, expected {list(expected[name].shape)}"
        for name, value in weights.items()
        if name in expected and value.shape != expected[name].shape
    ]
    if wrong:
        listed = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise ValueError(f"{path}: the weights do not fit the checkpoint's own config: {listed}")
    model.load_state_dict(dict(weights))


def _structure(metadata: Mapping[str, str], key: str, kind: type, *, path: Path) -> Any:  # noqa: ANN401
    if key not in metadata:
        raise ValueError(f"{path}: the header has no {key!r}: it is damaged; copy or train it again")
    try:
        return structure(json.loads(metadata[key]), kind)
    except ValueError as error:
        raise ValueError(f"{path}: header entry {key!r}: {error}") from None


def structure(value: object, kind: type) -> Any:  # noqa: ANN401
    """JSON to a config record; unknown fields, missing fields and wrong types are errors that name them."""
    try:
        return _converter.structure(value, kind)
    except (cattrs.errors.ForbiddenExtraKeysError, cattrs.errors.StructureHandlerNotFoundError) as error:
        raise ValueError(str(error)) from None
    except KeyError as error:
        raise ValueError(f"field {error} is missing in {kind.__name__}") from None
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from None


def unstructure(config: object) -> Any:  # noqa: ANN401
    """A config record to plain JSON values."""
    return _converter.unstructure(config)


def _describe(config: CheckpointConfig) -> dict[str, str]:
    parts = {"model": config.model, "preprocess": config.preprocess, "tokenizer": config.tokenizer}
    return {name: _dump(unstructure(part)) for name, part in parts.items()}


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _loaded(model: Clip, *, config: CheckpointConfig, tokenizer: Tokenizer) -> Loaded:
    digest = hashlib.sha256(_dump(_describe(config)).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{value.dtype}{list(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return Loaded(model=model, config=config, tokenizer=tokenizer, digest=digest.hexdigest())


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Keeps a training state (a tree of tensors, numbers and strings); whole or not at all."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with publish_file(path) as file:
        file.write(buffer.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Reads what `save_state` kept; nothing is unpickled but tensors and plain values.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it to start this run from its beginning"
        ) from None
