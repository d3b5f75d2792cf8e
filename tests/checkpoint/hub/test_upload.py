"""A model is published whole, in one commit, and comes back; through huggingface_hub's own client.

The hub is a local server that speaks its protocol, over plain HTTP (HF_HUB_DISABLE_XET): it has no Xet storage.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tests.checkpoint.hub.conftest import NAME, OPEN_CLIP_FILES, contents, weights_equal
from tests.checkpoint.hub.server import READER, WRITER, Fault, Hub

import pocketclip
from pocketclip.checkpoint import Loaded, load
from pocketclip.checkpoint.card import MARK, model_card
from pocketclip.checkpoint.hub import fetch, save_to_hub

STALE = b"some other weights" * 1000
RunPython = Callable[..., Any]


def features(loaded: Loaded) -> tuple[torch.Tensor, torch.Tensor]:
    size = loaded.config.preprocess.size
    image_BCHW = torch.linspace(-2, 2, 2 * 3 * size**2).view(2, 3, size, size)
    with torch.inference_mode():
        text_BD = loaded.model.encode_text(loaded.tokenize(["a dog", "a cat"]))
        return loaded.model.encode_image(image_BCHW), text_BD


def is_of(folder: Path, model: Loaded) -> bool:
    """Whether a snapshot's checkpoint holds these very weights."""
    return weights_equal(load(folder / "pocketclip.safetensors"), model)


def front_matter(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])


class TestUpload:
    def test_what_was_uploaded_comes_back_with_equal_features(self, hub: Hub, tiny: Loaded) -> None:
        uploaded = save_to_hub(tiny, NAME, token=WRITER, commit_message="first", license="apache-2.0")
        assert uploaded.commit == hub.repos[NAME].branches["main"]
        assert uploaded.url == f"{hub.url}/{NAME}/commit/{uploaded.commit}"
        assert {"README.md", "pocketclip.safetensors"} <= set(uploaded.files)
        assert set(uploaded.files) | {".gitattributes"} == hub.repos[NAME].head.keys()
        back = pocketclip.load(f"hf-hub:{NAME}")
        assert back.config == tiny.config
        for one, two in zip(features(back), features(tiny), strict=True):
            assert torch.equal(one, two)

    def test_all_of_it_is_one_commit(self, hub: Hub, tiny: Loaded) -> None:
        repo = hub.add(NAME, {"notes.txt": b"mine"})
        save_to_hub(tiny, NAME, token=WRITER, commit_message="one line")
        assert len(hub.lines("POST .*/commit/")) == 1
        assert repo.messages[repo.branches["main"]] == "one line"
        assert repo.head["notes.txt"] == b"mine"

    def test_the_same_model_again_is_no_commit(self, hub: Hub, tiny: Loaded) -> None:
        first = save_to_hub(tiny, NAME, token=WRITER)
        assert save_to_hub(tiny, NAME, token=WRITER).commit == first.commit
        assert len(hub.lines("POST .*/commit/")) == 1

    def test_another_model_replaces_all_of_the_first(self, hub: Hub, tiny: Loaded, other: Loaded) -> None:
        stale = {
            "checkpoint.safetensors": STALE,
            "open_clip_pytorch_model.bin": STALE,
            "optimizer.bin": b"mine",
        }
        first = hub.add(NAME, stale).branches["main"]
        second = save_to_hub(other, NAME, token=WRITER)
        assert is_of(fetch(f"hf-hub:{NAME}"), other)
        assert hub.repos[NAME].head.keys() == {*second.files, "optimizer.bin", ".gitattributes"}
        assert contents(fetch(f"hf-hub:{NAME}@{first}")) == {"checkpoint.safetensors": STALE}

    def test_open_clips_layout_goes_along_or_it_is_said_why_not(
        self, hub: Hub, tiny: Loaded, small: Loaded
    ) -> None:
        uploaded = save_to_hub(small, NAME, token=WRITER)
        assert uploaded.without_open_clip is None
        assert set(OPEN_CLIP_FILES) < hub.repos[NAME].head.keys()
        assert front_matter(hub.repos[NAME].head["README.md"].decode())["library_name"] == "open_clip"
        again = save_to_hub(tiny, NAME, token=WRITER)
        assert "this one has none" in (again.without_open_clip or "")
        assert not set(OPEN_CLIP_FILES) & hub.repos[NAME].head.keys()  # they were the other model
        assert front_matter(hub.repos[NAME].head["README.md"].decode())["library_name"] == "pocketclip"

    def test_a_branch_is_made_and_main_stays(self, hub: Hub, tiny: Loaded) -> None:
        repo = hub.add(NAME, {"pocketclip.safetensors": STALE})
        uploaded = save_to_hub(tiny, NAME, token=WRITER, revision="next")
        assert repo.branches["next"] == uploaded.commit
        assert repo.head["pocketclip.safetensors"] == STALE
        assert is_of(fetch(f"hf-hub:{NAME}@next"), tiny)

    def test_private_is_private_or_nothing(self, hub: Hub, tiny: Loaded) -> None:
        save_to_hub(tiny, NAME, token=WRITER, private=True)
        assert hub.repos[NAME].private
        with pytest.raises(FileNotFoundError, match="or it is private"):
            fetch(f"hf-hub:{NAME}")
        save_to_hub(tiny, NAME, token=WRITER, private=True)
        public = hub.add("org/open")
        with pytest.raises(PermissionError, match="org/open is public already, nothing was sent"):
            save_to_hub(tiny, "org/open", token=WRITER, private=True)
        assert len(public.commits) == 1

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (Fault("PUT /upload", times=99, status=500), "answer 500"),
            (Fault("PUT /upload", times=99, cut=0), "Server disconnected|peer closed|answer"),
            (Fault("POST .*/commit/", status=500), "answer 500"),
            (Fault("POST .*/repos/create", status=503), "answer 503"),
        ],
    )
    def test_one_that_breaks_off_publishes_nothing(
        self, hub: Hub, tiny: Loaded, other: Loaded, fault: Fault, error: str
    ) -> None:
        before = save_to_hub(other, NAME, token=WRITER)
        hub.faults.append(fault)
        said = f"the upload to {NAME} broke off .({error}).*: run it again, nothing was published"
        with pytest.raises(ConnectionError, match=said):
            save_to_hub(tiny, NAME, token=WRITER)
        assert hub.repos[NAME].branches["main"] == before.commit
        hub.faults.clear()
        save_to_hub(tiny, NAME, token=WRITER)
        assert is_of(fetch(f"hf-hub:{NAME}"), tiny)

    def test_a_hiccup_of_the_store_is_got_over(self, hub: Hub, tiny: Loaded) -> None:
        hub.faults.append(Fault("PUT /upload", status=503))
        save_to_hub(tiny, NAME, token=WRITER)
        assert is_of(fetch(f"hf-hub:{NAME}"), tiny)

    def test_whoever_was_faster_is_not_overwritten(
        self, hub: Hub, tiny: Loaded, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repo = hub.add(NAME)
        create = huggingface_hub.HfApi.create_commit

        def late(*args: object, **settings: object) -> object:
            repo.commit({"pocketclip.safetensors": STALE})
            return create(*args, **settings)

        monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", late)
        with pytest.raises(OSError, match=f"{NAME} was changed by somebody else meanwhile: run it again"):
            save_to_hub(tiny, NAME, token=WRITER)
        assert repo.head == {"pocketclip.safetensors": STALE}

    def test_who_may_not_write_is_told(self, hub: Hub, tiny: Loaded) -> None:
        for token in (None, READER, "hf_expired"):
            with pytest.raises(PermissionError, match=rf"{hub.url} refuses access to {NAME} \(.*: log in"):
                save_to_hub(tiny, NAME, token=token)
        hub.add(NAME)
        with pytest.raises(PermissionError, match="don't have the rights to write"):
            save_to_hub(tiny, NAME, token=READER)
        assert hub.repos[NAME].head.keys() == {".gitattributes"}

    def test_what_is_wrong_with_the_call_is_told_before_anything_is_sent(
        self, hub: Hub, tiny: Loaded
    ) -> None:
        with pytest.raises(ValueError, match="the model is folded"):
            save_to_hub(tiny.folded(), NAME, token=WRITER)
        with pytest.raises(ValueError, match="'hf-hub:tiny' names no repository"):
            save_to_hub(tiny, "tiny", token=WRITER)
        with pytest.raises(ValueError, match="commit_message is empty"):
            save_to_hub(tiny, NAME, token=WRITER, commit_message=" ")
        with pytest.raises(
            ValueError, match="license is 'Apache License': it must be one of the hub's identifiers"
        ):
            save_to_hub(tiny, NAME, token=WRITER, license="Apache License")
        assert hub.seen == []


class TestCard:
    def test_its_front_matter_is_what_the_hub_reads(self, hub: Hub, tiny: Loaded) -> None:
        save_to_hub(tiny, NAME, token=WRITER, license="cc-by-4.0")
        values = front_matter(hub.repos[NAME].head["README.md"].decode())
        assert values["license"] == "cc-by-4.0"
        assert values["pipeline_tag"] == "zero-shot-image-classification"
        assert {"clip", "pocketclip"} <= set(values["tags"])

    def test_it_says_what_goes_in_and_how_it_was_trained(self, hub: Hub, tiny: Loaded) -> None:
        run = {"config": {"name": "emoji.x", "loop": {"num_steps": 77}, "seed": 3}, "data_sha256": "ab" * 32}
        trained = replace(tiny, config=replace(tiny.config, run=run))
        save_to_hub(trained, NAME, token=WRITER)
        card = hub.repos[NAME].head["README.md"].decode()
        size = tiny.config.preprocess.size
        for said in ("recipe: emoji.x", "steps: 77", "seed: 3", "ab" * 32, f"{size} x {size}", "8,192 ids"):
            assert said in card
        converted = replace(tiny.config, run={"converted": {"file": "a.pt", "layout": "apple-v1"}})
        card = model_card(replace(tiny, config=converted), NAME, license="unknown", with_open_clip=False)
        assert "converted from: a.pt" in card
        assert "does not say" in model_card(tiny, NAME, license="unknown", with_open_clip=False)

    def test_its_code_runs(self, hub: Hub, tiny: Loaded) -> None:
        card = model_card(tiny, NAME, license="unknown", with_open_clip=True)
        for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
            compile(code, "card", "exec")
            assert f'"hf-hub:{NAME}"' in code

    def test_it_is_written_anew_until_somebody_makes_it_theirs(
        self, hub: Hub, tiny: Loaded, other: Loaded
    ) -> None:
        save_to_hub(tiny, NAME, token=WRITER, license="mit")
        save_to_hub(other, NAME, token=WRITER, license="apache-2.0")
        repo = hub.repos[NAME]
        assert front_matter(repo.head["README.md"].decode())["license"] == "apache-2.0"
        mine = repo.head["README.md"].replace(MARK.encode(), b"My words.")
        repo.commit(repo.head | {"README.md": mine})
        save_to_hub(tiny, NAME, token=WRITER)
        assert repo.head["README.md"] == mine
        assert is_of(fetch(f"hf-hub:{NAME}"), tiny)


@pytest.mark.slow
class TestInAProcessOfItsOwn:
    """With nothing but the environment to say where hub and cache are."""

    @pytest.fixture
    def environment(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Sets it; gives a folder for what the process writes."""
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        return tmp_path

    def test_pocketclip_with_and_without_the_hub(
        self,
        hub: Hub,
        small: Loaded,
        environment: Path,
        run_python: RunPython,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        save_to_hub(small, NAME, token=WRITER)
        code = f"import pocketclip; print(pocketclip.load('hf-hub:{NAME}').digest)"
        ran = run_python("-c", code)
        assert ran.out.strip() == small.digest, ran.err
        assert (environment / "home" / "hub").is_dir()
        hub.stop()
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        ran = run_python("-c", code)
        assert ran.out.strip() == small.digest, ran.err
        assert f"HF_HUB_OFFLINE is set): using the cached {NAME}" in ran.err

    @pytest.mark.reference
    def test_open_clip_itself(
        self, hub: Hub, small: Loaded, environment: Path, run_python: RunPython
    ) -> None:
        pytest.importorskip("open_clip")
        save_to_hub(small, NAME, token=WRITER)
        generator = np.random.default_rng(0)
        picture = Image.fromarray(generator.integers(0, 256, (300, 400, 3), dtype=np.uint8))
        picture.save(environment / "picture.png")
        ran = run_python("-c", _WITH_OPEN_CLIP, f"hf-hub:{NAME}", environment)
        assert ran.code == 0, ran.err
        theirs = load_file(environment / "theirs.safetensors")
        image_BCHW, tokens_BL = small.preprocess(picture)[None], small.tokenize(TEXTS)
        assert torch.equal(theirs["tokens"], tokens_BL)
        torch.testing.assert_close(theirs["pixels"], image_BCHW, atol=0, rtol=0)
        with torch.inference_mode():
            ours = {"image": small.model.encode_image(image_BCHW), "text": small.model.encode_text(tokens_BL)}
        for tower, features_BD in ours.items():
            error = (theirs[tower] - features_BD).norm() / features_BD.norm()
            assert error < 1e-5, (tower, error)
        assert hub.downloaded() >= set(OPEN_CLIP_FILES)


TEXTS = ["a photo of a dog", "  Zwölf &amp; Boxkämpfer 🦊 ", "word " * 99]
_WITH_OPEN_CLIP = f"""
import sys
import open_clip, torch
from PIL import Image
from safetensors.torch import save_file

name, folder = sys.argv[1:]
model, _, preprocess = open_clip.create_model_and_transforms(name)
model.eval()
pixels = preprocess(Image.open(folder + "/picture.png"))[None]
tokens = open_clip.get_tokenizer(name)({TEXTS!r})
with torch.inference_mode():
    image, text = model.encode_image(pixels), model.encode_text(tokens)
save_file({{"pixels": pixels, "tokens": tokens, "image": image, "text": text}}, folder + "/theirs.safetensors")
"""
