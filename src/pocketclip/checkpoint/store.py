"""A checkpoint: config, weights, preprocessing and tokenizer in one safetensors file that needs no guessing.

The header's metadata holds `format`, `version`, and as JSON `model`, `preprocess`, `tokenizer` and `run` (how it was
trained). Tensors are named `model.*` (un-folded, canonical) and `tokenizer.merges` (the byte-pair merges, gzip).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from PIL import Image
from torch import Tensor

from pocketclip.checkpoint.layout import serialize
from pocketclip.checkpoint.records import structure, unstructure
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
_DAMAGED = "it is damaged; copy or train it again"


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
        digest: sha256 of config, merges and weights (as they were loaded), the same wherever the file was written.
    """

    model: Clip
    config: CheckpointConfig
    tokenizer: Tokenizer
    digest: str

    def folded(self) -> Loaded:
        """The same with its towers folded: equal outputs, faster, no longer trainable."""
        return replace(self, model=fold(self.model))

    def to(self, device: str) -> Loaded:
        """The same with its model moved (the model itself, as torch does it) to a device, channels last.

        Raises:
            ValueError: torch knows or has no such device here.
        """
        try:
            model = self.model.to(device).to(memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:  # a torch without CUDA raises AssertionError
            reason = str(error).splitlines()[0]
            raise ValueError(f"the model cannot be moved to device {device!r} ({reason}): try cpu") from None
        return replace(self, model=model)

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
    """Writes a checkpoint; it appears under its name whole or not at all. The same model gives the same bytes.

    Args:
        path: of the file, usually `*.safetensors`.
        model: un-folded.
        config: of this very model.
        tokenizer: of this very config; its merges are kept.

    Raises:
        ValueError: `model` is folded or not the one that `config` describes; nothing was written.
        PublishError: disk full, or the place cannot be written; an earlier file of that name stands.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    wrong = _misfits(weights, expected=_towers(config.model).state_dict())
    if wrong or tokenizer.config != config.tokenizer:
        what = _listed(wrong) if wrong else f"its tokenizer is {tokenizer.config}"
        raise ValueError(f"{path} was not written: the model is folded, or not the config's own: {what}")
    tensors = {_PREFIX + name: value for name, value in weights.items()}
    tensors[_MERGES] = torch.frombuffer(bytearray(tokenizer.merges), dtype=torch.uint8)
    metadata = {"format": FORMAT, "version": VERSION, "run": _dump(config.run)} | _describe(config)
    data = serialize(tensors, metadata=metadata)
    with publish_file(path) as file:
        file.write(data)


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
    try:
        loaded = create(str(path_or_name))
    except ValueError as error:
        raise ValueError(
            f"{path_or_name} is neither a checkpoint file nor a variant's name. {error}"
        ) from None
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
        model=_entry(metadata, "model", ClipConfig, path=path),
        preprocess=_entry(metadata, "preprocess", Preprocess, path=path),
        tokenizer=_entry(metadata, "tokenizer", TokenizerConfig, path=path),
        run=_entry(metadata, "run", dict[str, Any], path=path),
    )
    tokenizer = _pop_tokenizer(tensors, config=config.tokenizer, path=path)
    try:
        model = _towers(config.model)
    except (RuntimeError, ValueError, ArithmeticError) as error:  # sizes that no tower can have
        raise ValueError(f"{path}: header entry 'model' describes no model ({error}): {_DAMAGED}") from None
    wrong = _misfits(tensors, expected={_PREFIX + name: value for name, value in model.state_dict().items()})
    if wrong:
        raise ValueError(
            f"{path}: the weights do not fit the checkpoint's own config: {_listed(wrong)}; {_DAMAGED}"
        )
    model.load_state_dict({name.removeprefix(_PREFIX): value for name, value in tensors.items()})
    return _loaded(model.eval(), config=config, tokenizer=tokenizer)


def _towers(config: ClipConfig) -> Clip:
    """A model to compare with or to fill; torch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        return Clip(config)


def _pop_tokenizer(tensors: dict[str, Tensor], *, config: TokenizerConfig, path: Path) -> Tokenizer:
    """Takes the merges out of a checkpoint's tensors."""
    merges = tensors.pop(_MERGES, None)
    if merges is None or merges.dtype != torch.uint8:
        raise ValueError(f"{path} has no tensor {_MERGES} of bytes: {_DAMAGED}")
    try:
        return Tokenizer(config, merges=merges.numpy().tobytes())
    except ValueError as error:
        raise ValueError(f"{path}: {_MERGES}: {error}: {_DAMAGED}") from None


def _read_file(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}): it is cut, or something else; copy or train it again"
        ) from None


def _misfits(weights: Mapping[str, Tensor], *, expected: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with each tensor of `weights`: missing, surplus, or of another shape or type than expected."""
    wrong = [f"missing {name}" for name in expected if name not in weights]
    wrong += [f"surplus {name}" for name in weights if name not in expected]
    for name in sorted(weights.keys() & expected.keys()):
        found, wanted = weights[name], expected[name]
        if found.shape != wanted.shape:
            wrong.append(f"{name} is {list(found.shape)}, expected {list(wanted.shape)}")
        elif found.dtype != wanted.dtype:
            wrong.append(f"{name} is {found.dtype}, expected {wanted.dtype}")
    return wrong


def _listed(wrong: Sequence[str]) -> str:
    return "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")


def _entry(metadata: Mapping[str, str], key: str, kind: Any, *, path: Path) -> Any:  # noqa: ANN401
    """The record of type `kind` that the header has as JSON under `key`."""
    if key not in metadata:
        raise ValueError(f"{path}: the header has no {key!r}: {_DAMAGED}")
    try:
        return structure(json.loads(metadata[key]), kind)
    except ValueError as error:
        raise ValueError(f"{path}: header entry {key!r}: {error}: {_DAMAGED}") from None


def _describe(config: CheckpointConfig) -> dict[str, str]:
    parts = {"model": config.model, "preprocess": config.preprocess, "tokenizer": config.tokenizer}
    return {name: _dump(unstructure(part)) for name, part in parts.items()}


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _loaded(model: Clip, *, config: CheckpointConfig, tokenizer: Tokenizer) -> Loaded:
    digest = hashlib.sha256(_dump(_describe(config)).encode())
    digest.update(tokenizer.merges)
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{value.dtype}{list(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return Loaded(model=model, config=config, tokenizer=tokenizer, digest=digest.hexdigest())
