"""A checkpoint: config, weights, preprocessing and tokenizer in one safetensors file that needs no guessing.

The header's metadata holds `format`, `version`, and as JSON `model`, `preprocess`, `tokenizer` and `run` (how it was
trained). Tensors are named `model.*` (un-folded, canonical) and `tokenizer.merges` (the byte-pair merges, gzip).
Other people's files (`checkpoint/foreign.py`) and models of a hub (`checkpoint/hub.py`) are loaded too.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pocketclip.checkpoint.foreign import Foreign, read_foreign
from pocketclip.checkpoint.foreign_keys import MisfitError, our_tensors, to_ours
from pocketclip.checkpoint.layout import write_safetensors
from pocketclip.checkpoint.loaded import (
    CheckpointConfig,
    Loaded,
    assemble,
    create,
    describe,
    dump,
    same_architecture,
    variant_config,
)
from pocketclip.checkpoint.misfit import listed, misfits
from pocketclip.checkpoint.open_clip_config import understand
from pocketclip.checkpoint.records import structure
from pocketclip.checkpoint.weights import file_kind, read_safetensors, safetensors_header
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.publish import publish_file
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.models.captioner import CaptionerConfig
from pocketclip.models.clip import Clip, ClipConfig

FORMAT = "pocketclip"
VERSION = "1"
_STATE_FORMAT = "pocketclip-state"
_MERGES = "tokenizer.merges"
_PREFIX = "model."
_DAMAGED = "it is damaged; copy or train it again"
HUB_PREFIX = "hf-hub:"


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
    wrong = misfits(weights, expected=our_tensors(config.model))
    if wrong or tokenizer.config != config.tokenizer:
        what = listed(wrong) if wrong else f"its tokenizer is {tokenizer.config}"
        raise ValueError(f"{path} was not written: the model is folded, or not the config's own: {what}")
    tensors = {_PREFIX + name: value for name, value in weights.items()}
    tensors[_MERGES] = torch.frombuffer(bytearray(tokenizer.merges), dtype=torch.uint8)
    metadata = {"format": FORMAT, "version": VERSION, "run": dump(config.run)} | describe(config)
    with publish_file(path) as file:
        write_safetensors(file, tensors, metadata=metadata)


def load(path_or_name: str | Path, *, variant: str | None = None) -> Loaded:
    """Loads a checkpoint, ours or another library's, or makes a variant with random weights (and warns that it did).

    Args:
        path_or_name: a file written by `save`; weights that open_clip, Apple or a training loop wrote (.safetensors,
            .pt, .pth, .bin); a folder with either, such as one of open_clip's for the hub; "hf-hub:ORG/NAME", with
            "@REVISION" where wanted; or the name of a variant in either spelling (`MobileCLIP2-S0`,
            `mobileclip2_s0`).
        variant: what the towers have to be, in either spelling; None for whatever they are.

    Raises:
        ValueError: not a checkpoint, cut, of another version or variant, or its weights do not fit its config; an
            unknown name.
        FileNotFoundError: a path with nothing there; no such model on the hub.
        ConnectionError: the hub cannot be reached, and the model is not in the cache.
    """
    found = find(path_or_name)
    if found is not None:
        return _load_file(found, variant=variant)
    text, path = str(path_or_name), Path(path_or_name)
    if path.suffix or len(path.parts) > 1 or path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: give a file written by `pocketclip train`, other weights, or a variant's name"
        )
    try:
        loaded = create(text)
    except ValueError as error:
        raise ValueError(f"{text} is neither a checkpoint nor a variant's name. {error}") from None
    require_variant(loaded.config, variant, what=text)
    warnings.warn(f"{text} has random weights: load a checkpoint for a trained model", stacklevel=2)
    return loaded


def find(reference: str | Path) -> Path | None:
    """The file that holds the model of a path (a file, a folder) or of "hf-hub:ORG/NAME"; None where nothing is.

    Raises:
        ValueError: a folder, or a repository on the hub, without a model.
        FileNotFoundError: no such model on the hub.
        ConnectionError: the hub cannot be reached, and the model is not in the cache.
    """
    folder = Path(reference)
    if str(reference).startswith(HUB_PREFIX):
        from pocketclip.checkpoint.hub import fetch

        folder = fetch(str(reference))
    elif folder.is_file():
        return folder
    elif not folder.is_dir():
        return None
    from pocketclip.checkpoint.hub import model_files  # the hub's library only where it is of use

    names = [path.name for path in folder.iterdir() if path.is_file()]
    return folder / model_files(names, where=str(reference))[-1]


def from_foreign(foreign: Foreign, *, source: str) -> Loaded:
    """The model of a file that another library wrote; its `config.run` says what it was converted from.

    Args:
        foreign: what `read_foreign` made of it.
        source: name of the file.
    """
    origin = {
        "file": source,
        "layout": foreign.layout,
        "variant": foreign.variant,
        "notes": list(foreign.notes),
    }
    config = replace(foreign.config, run={"converted": origin})
    return assemble(foreign.state, config=config, tokenizer=Tokenizer(config.tokenizer))


def from_open_clip(values: Mapping[str, Any], state: Mapping[str, Tensor], *, source: str) -> Loaded:
    """The model of open_clip that a process has in memory.

    Args:
        values: what an open_clip_config.json would say of it (`model_cfg`, `preprocess_cfg`).
        state: its tensors under open_clip's names (visual.proj [C, D] and so on), float32 or half; they are copied.
        source: where it is from.

    Raises:
        ValueError: pocketclip has no such model, or the tensors are not those of the configuration.
    """
    config, notes = understand(values, where=source)
    try:
        tensors = to_ours(state, config=config.model, layout="open_clip")
    except MisfitError as error:
        raise ValueError(f"{source} is not what its configuration says: {error}") from None
    origin = {"file": source, "layout": "open_clip", "variant": None, "notes": list(notes)}
    config = replace(config, run={"converted": origin})
    return assemble(tensors, config=config, tokenizer=Tokenizer(config.tokenizer))


def is_own(path: Path) -> bool:
    """Whether a file is a checkpoint that `save` wrote, of whatever version.

    Raises:
        ValueError: no file of weights at all, or one that is cut.
    """
    if file_kind(path) != "safetensors":
        return False
    found = safetensors_header(path).get("format")
    if found == _STATE_FORMAT:
        raise ValueError(
            f"{path} is the state of a training run, not a model: load the checkpoint.safetensors that it ends with"
        )
    return found == FORMAT


def load_own(path: Path) -> Loaded:
    """Loads a file that `save` wrote.

    Raises:
        ValueError: cut, of another version, or its weights do not fit its config.
    """
    metadata, tensors = safetensors_header(path), read_safetensors(path)
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"{path} is a checkpoint of version {metadata.get('version')}, this release reads version {VERSION}: "
            "install the pocketclip release that wrote it, or train it again"
        )
    config = CheckpointConfig(
        model=_model_entry(metadata, path=path),
        preprocess=_entry(metadata, "preprocess", Preprocess, path=path),
        tokenizer=_entry(metadata, "tokenizer", TokenizerConfig, path=path),
        run=_entry(metadata, "run", dict[str, Any], path=path),
    )
    tokenizer = _pop_tokenizer(tensors, config=config.tokenizer, path=path)
    try:
        expected = {_PREFIX + name: value for name, value in our_tensors(config.model).items()}
    except (RuntimeError, ValueError, ArithmeticError) as error:  # sizes that no tower can have
        raise ValueError(f"{path}: header entry 'model' describes no model ({error}): {_DAMAGED}") from None
    wrong = misfits(tensors, expected=expected)
    if wrong:
        raise ValueError(
            f"{path}: the weights do not fit the checkpoint's own config: {listed(wrong)}; {_DAMAGED}"
        )
    # Copies: the library's tensors are views of the file, which may be overwritten.
    state = {name.removeprefix(_PREFIX): value.clone() for name, value in tensors.items()}
    return assemble(state, config=config, tokenizer=tokenizer)


def _load_file(path: Path, *, variant: str | None) -> Loaded:
    if is_own(path):
        loaded = load_own(path)
        require_variant(loaded.config, variant, what=str(path))
        return loaded
    return from_foreign(read_foreign(path, variant=variant), source=path.name)


def require_variant(config: CheckpointConfig, variant: str | None, *, what: str) -> None:
    """Raises ValueError, naming `what`, when a variant is asked for and the towers are not its."""
    if variant is not None and not same_architecture(config.model, variant_config(variant).model):
        raise ValueError(
            f"{what} does not hold a {variant}: its towers are {config.model}; `pocketclip.load(path)` takes whatever "
            "a checkpoint holds"
        )


def _pop_tokenizer(tensors: dict[str, Tensor], *, config: TokenizerConfig, path: Path) -> Tokenizer:
    """Takes the merges out of a checkpoint's tensors."""
    merges = tensors.pop(_MERGES, None)
    if merges is None or merges.dtype != torch.uint8:
        raise ValueError(f"{path} has no tensor {_MERGES} of bytes: {_DAMAGED}")
    try:
        return Tokenizer(config, merges=merges.numpy().tobytes())
    except ValueError as error:
        raise ValueError(f"{path}: {_MERGES}: {error}: {_DAMAGED}") from None


def _model_entry(metadata: Mapping[str, str], *, path: Path) -> ClipConfig:
    """The model that the header describes; one with a decoder is a captioner."""
    writes = '"decoder":' in metadata.get("model", "")
    return _entry(metadata, "model", CaptionerConfig if writes else ClipConfig, path=path)


def _entry(metadata: Mapping[str, str], key: str, kind: Any, *, path: Path) -> Any:  # noqa: ANN401
    """The record of type `kind` that the header has as JSON under `key`."""
    if key not in metadata:
        raise ValueError(f"{path}: the header has no {key!r}: {_DAMAGED}")
    try:
        return structure(json.loads(metadata[key]), kind)
    except ValueError as error:
        raise ValueError(f"{path}: header entry {key!r}: {error}: {_DAMAGED}") from None
