from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from pocketclip.checkpoint import Loaded, create, save

torch.set_num_threads(1)


def randomised(name: str, *, seed: int = 0) -> Loaded:
    """A variant whose every tensor, BatchNorm's statistics and counters too, is random."""
    torch.manual_seed(seed)
    made = create(name)
    with torch.no_grad():
        for value in made.model.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.01, 0.5)
            else:
                value.random_(0, 1000)
    return made


def other_merges(merges: bytes, *, num: int) -> bytes:
    """The first `num` merges with the very first pair written last: other ids for most texts."""
    comment, first, *others = gzip.decompress(merges).decode().split("\n")[: num + 1]
    return gzip.compress("\n".join([comment, *others, first]).encode(), mtime=0)


@pytest.fixture(scope="session")
def tiny() -> Loaded:
    """Do not change it."""
    return randomised("pocketclip_tiny")


@pytest.fixture
def path(tiny: Loaded, tmp_path: Path) -> Path:
    """A checkpoint of `tiny`."""
    path = tmp_path / "model.safetensors"
    save(path, tiny.model, config=tiny.config, tokenizer=tiny.tokenizer)
    return path


Rewrite = Callable[..., Path]


@pytest.fixture
def rewrite() -> Rewrite:
    """Changes a checkpoint in place: header entries (JSON values; None removes one), or its tensors by a function."""

    def change(path: Path, *, tensors=lambda tensors: None, **entries) -> Path:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata())
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, value in entries.items():
            if value is None:
                del metadata[name]
            else:
                metadata[name] = value if isinstance(value, str) else json.dumps(value)
        tensors(kept)
        path.write_bytes(safetensors.torch.save(kept, metadata=metadata))
        return path

    return change


@torch.no_grad()
def fill(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Random numbers for every parameter and buffer, BatchNorm's statistics too, of a size that keeps signals alive."""
    rng = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            value.random_(1, 1000, generator=rng)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=rng)
        elif name.endswith(("gamma", "scale")) or "layer_scale" in name:
            value.uniform_(0.05, 0.25, generator=rng)
        elif value.ndim >= 2:
            value.normal_(0.0, value[0].numel() ** -0.5, generator=rng)
        elif name.endswith("weight"):
            value.uniform_(0.5, 1.5, generator=rng)
        else:
            value.normal_(0.0, 0.2, generator=rng)
    return model.eval()
