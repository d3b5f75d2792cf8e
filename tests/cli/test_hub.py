"""`pocketclip upload`, against a local server that speaks the hub's protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from tests.checkpoint.hub.server import WRITER, Hub, talk_to

pytest.importorskip("torch")

Cli = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # of the client, about itself
NAME = "org/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub at which whoever calls is logged in."""
    with Hub() as server:
        talk_to(server, home=tmp_path, monkeypatch=monkeypatch)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        huggingface_hub.close_session()
        yield server
        huggingface_hub.close_session()


def test_a_checkpoint_is_published_byte_for_byte(cli: Cli, hub: Hub, tiny_checkpoint: Path) -> None:
    ran = cli("upload", tiny_checkpoint, NAME, "--license", "mit", "--message", "a line")
    assert ran.code == 0, ran.err
    repo = hub.repos[NAME]
    assert repo.head["pocketclip.safetensors"] == tiny_checkpoint.read_bytes()
    assert b"license: mit" in repo.head["README.md"]
    assert repo.messages[repo.branches["main"]] == "a line"
    assert f"{hub.url}/{NAME}/commit/{repo.branches['main']}" in ran.out
    assert f'pocketclip.load("hf-hub:{NAME}")' in ran.out


def test_its_json_names_commit_and_files(cli: Cli, hub: Hub, tiny_checkpoint: Path) -> None:
    ran = cli("upload", tiny_checkpoint, NAME, "--private", "--revision", "trial", "--json")
    values = json.loads(ran.out)
    assert values["commit"] == hub.repos[NAME].branches["trial"]
    assert "pocketclip.safetensors" in values["files"]
    assert hub.repos[NAME].private


def test_what_cannot_be_uploaded_is_one_sentence(
    cli: Cli, hub: Hub, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "gone.safetensors does not exist" in cli("upload", tmp_path / "gone.safetensors", NAME).sentence()
    assert "pocketclip_tiny does not exist" in cli("upload", "pocketclip_tiny", NAME).sentence()
    assert "is a folder" in cli("upload", tmp_path, NAME).sentence()
    assert "names no repository" in cli("upload", tiny_checkpoint, "tiny").sentence()
    assert hub.seen == []
    monkeypatch.delenv("HF_TOKEN")
    assert "log in with `hf auth login`" in cli("upload", tiny_checkpoint, NAME).sentence()
    hub.stop()
    assert f"the upload to {NAME} broke off" in cli("upload", tiny_checkpoint, NAME).sentence()
