"""Checkpoints: what is loaded is what was saved, and whatever is wrong with a file is said in one sentence."""

import errno
import json
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

import pocketclip
from pocketclip.checkpoint import (
    CheckpointConfig,
    create,
    load,
    load_state,
    save,
    save_state,
    structure,
    unstructure,
)
from pocketclip.data.publish import PublishError
from pocketclip.models.clip import ClipConfig

NAME = "pocketclip_tiny"


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(0)
    return create(NAME)


@pytest.fixture
def path(start, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    config = replace(start.config, run={"recipe": "none", "steps": 3})
    save(path, start.model, config=config, tokenizer=start.tokenizer)
    return path


def rewrite(path, *, metadata=None, tensors=None):
    """The same file with other metadata or tensors."""
    with safetensors.safe_open(path, framework="pt") as file:
        old = dict(file.metadata())
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(
        (tensors or (lambda t: t))(values), path, metadata=(metadata or (lambda m: m))(old)
    )


def test_a_checkpoint_comes_back_as_it_was(start, path):
    loaded = load(path)
    assert not loaded.model.training
    assert loaded.digest == start.digest
    assert loaded.config == replace(start.config, run={"recipe": "none", "steps": 3})
    for name, value in start.model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name])
    texts = ["a red heart", "Ünïcode & <b>html</b>"]
    assert torch.equal(loaded.tokenize(texts), start.tokenize(texts))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 55, 3), dtype=np.uint8))
    assert torch.equal(loaded.preprocess(picture), start.preprocess(picture))
    embed = loaded.model.encode_image(loaded.preprocess(picture)[None], normalize=True)
    assert float(embed.norm().detach()) == pytest.approx(1.0, abs=1e-6)


def test_the_header_can_be_read_without_us(path):
    with safetensors.safe_open(path, framework="np") as file:
        header = file.metadata()
    assert header["format"] == "pocketclip"
    assert header["version"] == "1"
    assert json.loads(header["preprocess"])["size"] == load(path).config.preprocess.size
    assert json.loads(header["model"])["image"]["kind"] == "fastvit"


def test_the_same_model_gives_the_same_bytes(start, path, tmp_path):
    for number in range(5):
        other = tmp_path / f"{number}.safetensors"
        config = replace(start.config, run={"recipe": "none", "steps": 3})
        save(other, start.model, config=config, tokenizer=start.tokenizer)
        assert other.read_bytes() == path.read_bytes()


def test_the_digest_follows_the_weights(start, path):
    rewrite(path, tensors=lambda t: {**t, "model.logit_scale": t["model.logit_scale"] + 1e-6})
    assert load(path).digest != start.digest


def test_folding_a_checkpoint_keeps_its_embeddings(path):
    loaded = load(path)
    image = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        expected, folded = loaded.model.encode_image(image), loaded.folded().model.encode_image(image)
    torch.testing.assert_close(folded, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep", [0, 7, 200, 20_000, -1])
def test_a_cut_checkpoint_is_told(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a whole safetensors file"):
        load(path)


def test_an_error_page_is_told(path):
    path.write_text("<!doctype html><html><body>404 Not Found</body></html>" * 10)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load(path)


def without(key):
    def change(metadata):
        values = json.loads(metadata["preprocess"])
        del values[key]
        return {**metadata, "preprocess": json.dumps(values)}

    return change


def with_extra(metadata):
    return {**metadata, "tokenizer": json.dumps({**json.loads(metadata["tokenizer"]), "colour": "red"})}


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        (lambda m: {**m, "format": "other"}, "not a pocketclip checkpoint"),
        (lambda m: {**m, "version": "9"}, "version 9, this release reads version 1"),
        (lambda m: {k: v for k, v in m.items() if k != "model"}, "the header has no 'model'"),
        (lambda m: {**m, "model": "{"}, "header entry 'model'"),
        (with_extra, "colour"),
        (without("size"), "size"),
    ],
)
def test_a_header_that_does_not_fit_is_told(path, metadata, says):
    rewrite(path, metadata=metadata)
    with pytest.raises(ValueError, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_weights_that_do_not_fit_are_listed(path):
    def damage(tensors):
        tensors = dict(tensors)
        tensors["model.surplus"] = torch.zeros(1)
        tensors["model.logit_scale"] = torch.zeros(2)
        missing = next(name for name in tensors if name.startswith("model.image"))
        del tensors[missing]
        return tensors

    rewrite(path, tensors=damage)
    with pytest.raises(
        ValueError, match=r"missing image.*surplus surplus.*logit_scale is \[2\], expected \[\]"
    ):
        load(path)


def test_names_and_paths_that_lead_nowhere_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load(tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(ValueError, match="pocketclip_tiny"):
        load("pocketclip_tinny")
    with pytest.warns(UserWarning, match="random weights"):
        load("PocketCLIP-tiny")


def test_a_full_disk_leaves_the_old_file(start, path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pocketclip.data.publish.os.fsync", full)
    with pytest.raises(PublishError, match="disk"):
        save(path, start.model, config=start.config, tokenizer=start.tokenizer)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


class Trap:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_training_state_is_never_unpickled(tmp_path, capsys):
    state = {"step": 3, "model": {"w": torch.ones(2)}, "position": (1, 2)}
    save_state(tmp_path / "state.pt", state)
    again = load_state(tmp_path / "state.pt")
    assert (again["step"], tuple(again["position"])) == (3, (1, 2))
    (tmp_path / "trap.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(ValueError, match=r"trap\.pt is damaged"):
        load_state(tmp_path / "trap.pt")
    assert "executed" not in capsys.readouterr().out


def test_configs_survive_json(start):
    plain = json.loads(json.dumps(unstructure(start.config.model)))
    assert structure(plain, ClipConfig) == start.config.model
    assert isinstance(start.config, CheckpointConfig)


def test_open_clips_calling_convention(path):
    model, train_transform, transform = pocketclip.create_model_and_transforms(NAME, pretrained=path)
    tokenize = pocketclip.get_tokenizer("PocketCLIP-tiny")
    image = transform(Image.new("RGBA", (90, 60), "red")).unsqueeze(0)
    assert image.shape == (1, 3, 48, 48)
    assert train_transform(Image.new("L", (9, 9))).shape == (3, 48, 48)
    tokens = tokenize(["a dog", "a cat"])
    assert tokens.dtype == torch.int64
    with torch.inference_mode(), warnings.catch_warnings():
        assert model.encode_text(tokens, normalize=True).shape == (2, 128)
    with pytest.raises(ValueError, match=r"does not hold a mobileclip2_s0"):
        pocketclip.create_model_and_transforms("mobileclip2_s0", pretrained=path)
    assert NAME in pocketclip.list_models()
