from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from tests.checkpoint.conftest import randomised
from tests.checkpoint.hub.server import Hub, talk_to

from pocketclip.checkpoint import Loaded, variant_config
from pocketclip.checkpoint.loaded import assemble
from pocketclip.data.tokenize import Tokenizer
from pocketclip.models.clip import Clip, ClipConfig
from pocketclip.models.text import TextConfig
from pocketclip.models.variants import MCI0

NAME = "org/tiny"
OPEN_CLIP_FILES = ("open_clip_config.json", "open_clip_model.safetensors")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:  # the client warns about itself
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process's client talks to; its cache is `tmp_path / "cache"`."""
    with Hub() as server:
        talk_to(server, home=tmp_path, monkeypatch=monkeypatch)
        huggingface_hub.close_session()
        yield server
        huggingface_hub.close_session()


@pytest.fixture(scope="session")
def other() -> Loaded:
    """Do not change it."""
    return randomised("pocketclip_tiny", seed=1)


@pytest.fixture(scope="session")
def small() -> Loaded:
    """The smallest image tower that open_clip knows, and a tiny text tower. Do not change it."""
    torch.manual_seed(0)
    row = variant_config("mobileclip2_s0")
    model = ClipConfig(image=MCI0, text=TextConfig(width=64, heads=1, layers=1), embed_dim=32)
    with torch.device("meta"):
        blank = Clip(model).state_dict()
    state = {}
    for name, value in blank.items():
        state[name] = torch.zeros(value.shape, dtype=value.dtype)
        if value.is_floating_point():
            state[name].uniform_(0.5, 1.0) if value.ndim < 2 else state[name].normal_(0, 0.05)
    config = replace(row, model=model)
    return assemble(state, config=config, tokenizer=Tokenizer(config.tokenizer))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights_equal(one: Loaded, two: Loaded) -> bool:
    found, wanted = one.model.state_dict(), two.model.state_dict()
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], value) for name, value in wanted.items()
    )
