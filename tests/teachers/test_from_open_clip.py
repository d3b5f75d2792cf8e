"""Teachers of open_clip: its own features, whatever weights came by, and the same digest wherever they lie."""

from __future__ import annotations

import json
import shutil
import sys
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from pocketclip.checkpoint import load
from pocketclip.teachers import EncodeError, TeacherSpec, build_teacher, from_open_clip

open_clip = pytest.importorskip("open_clip")
pytestmark = pytest.mark.reference

TEXTS = ["a red circle", "a Photo of “something”, éh?", "word " * 30, "🙂"]
PLAIN = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 11, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
SIGMOID = PLAIN | {"embed_dim": 10, "init_logit_bias": -10.0, "custom_text": True}


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    """Two tiny models that open_clip knows for as long as this module runs."""
    folder = tmp_path_factory.mktemp("configs")
    for name, config in {"tiny-plain": PLAIN, "tiny-sigmoid": SIGMOID}.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    yield
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder)
    for name in ("tiny-plain", "tiny-sigmoid"):
        open_clip.factory._MODEL_CONFIGS.pop(name)


def spec(reference: str, name: str = "oc") -> TeacherSpec:
    return TeacherSpec(name=name, source=reference)


def pixels(num: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


def write_folder(folder, model, *, config=PLAIN, **preprocess):
    """A folder in open_clip's layout."""
    folder.mkdir(parents=True)
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    safetensors.torch.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def random_model(name="tiny-plain", seed=5, **settings):
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_clip.create_model_and_transforms(name, **settings)


def check_features(teacher, model, transform, tokenizer):
    """The teacher's rows against open_clip's own, from the same pixels and texts."""
    image_BHWC = pixels(4, teacher.image_px)
    model.eval()
    with torch.inference_mode():
        images = torch.stack([transform(Image.fromarray(image)) for image in image_BHWC])
        image = model.encode_image(images, normalize=True)
        text = model.encode_text(tokenizer(TEXTS), normalize=True)
    np.testing.assert_allclose(teacher.encode_image(image_BHWC), image, atol=2e-6)
    np.testing.assert_allclose(teacher.encode_text(TEXTS), text, atol=2e-6)
    assert teacher.record.embed_dim == text.shape[1]
    assert teacher.record.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_a_folder_embeds_as_open_clip_does(tmp_path):
    model, _, transform = random_model(image_mean=(0.1, 0.2, 0.3), image_std=(0.5, 0.6, 0.7))
    model.logit_scale.data.fill_(3.0)
    folder = write_folder(
        tmp_path / "model", model, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], interpolation="bilinear"
    )
    teacher = build_teacher(spec(f"open_clip:{folder}"))
    check_features(teacher, model, transform, open_clip.get_tokenizer("tiny-plain"))
    described = teacher.describe()
    assert described["preprocess"] == {
        "size": 32,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.5, 0.6, 0.7],
        "interpolation": "bilinear",
    }
    assert json.loads(json.dumps(described)) == described


def test_random_weights_are_those_of_seed_0_and_leave_the_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    teacher = build_teacher(spec("open_clip:tiny-plain/random"))
    assert torch.equal(torch.rand(3), expected)
    check_features(teacher, *random_model(seed=0)[::2], open_clip.get_tokenizer("tiny-plain"))
    assert build_teacher(spec("open_clip:tiny-plain/random")).record == teacher.record


def test_a_file_of_weights_and_another_width_of_text(tmp_path):
    model, _, transform = random_model("tiny-sigmoid")
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    teacher = build_teacher(spec(f"open_clip:tiny-sigmoid/{path}"))
    check_features(teacher, model, transform, open_clip.get_tokenizer("tiny-sigmoid"))
    assert teacher.describe()["logit_bias"] == -10.0
    assert teacher.record.digest != build_teacher(spec("open_clip:tiny-sigmoid/random")).record.digest


@pytest.mark.parametrize("quick", [True, False])
def test_a_tag_says_whether_its_weights_want_quickgelu(tmp_path, monkeypatch, quick):
    """OpenAI's do, and the models they are loaded into by name do not say so."""
    model, _, transform = random_model(force_quick_gelu=quick)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    tag = {"file": str(path), "quick_gelu": quick, "mean": (0.1, 0.1, 0.1), "std": (0.9, 0.9, 0.9)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-plain", {"mine": tag})
    teacher = build_teacher(spec("open_clip:tiny-plain/mine"))
    transform = open_clip.image_transform(32, is_train=False, mean=(0.1,) * 3, std=(0.9,) * 3)
    check_features(teacher, model, transform, open_clip.get_tokenizer("tiny-plain"))
    assert teacher.describe()["config"]["quick_gelu"] is quick


def test_every_published_openai_model_is_known_to_want_quickgelu():
    for name, tag in open_clip.list_pretrained():
        if tag == "openai":
            assert open_clip.get_pretrained_cfg(name, tag)["quick_gelu"], name


def test_the_digest_is_that_of_the_weights_wherever_they_lie(tmp_path):
    model = random_model()[0]
    first = write_folder(tmp_path / "first", model)
    shutil.copytree(first, tmp_path / "elsewhere" / "second")
    digest = build_teacher(spec(f"open_clip:{first}")).record.digest
    assert build_teacher(spec(f"open_clip:{tmp_path}/elsewhere/second")).record.digest == digest
    others = {digest}
    model.logit_scale.data += 0.5
    others.add(build_teacher(spec(f"open_clip:{write_folder(tmp_path / 'a', model)}")).record.digest)
    model.visual.conv1.weight.data[0, 0, 0, 0] += 1e-3
    others.add(build_teacher(spec(f"open_clip:{write_folder(tmp_path / 'b', model)}")).record.digest)
    other = write_folder(tmp_path / "c", model, mean=[0.0, 0.0, 0.0])
    others.add(build_teacher(spec(f"open_clip:{other}")).record.digest)
    quick = write_folder(tmp_path / "d", model, config=PLAIN | {"quick_gelu": True})
    others.add(build_teacher(spec(f"open_clip:{quick}")).record.digest)
    assert len(others) == 5


def test_a_folder_brings_its_own_tokenizer(tmp_path):
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    words = {word: i for i, word in enumerate(["<pad>", "</s>", "a", "red", "circle", "blue"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words))  # a word it does not know is an error
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    config = PLAIN | {
        "text_cfg": PLAIN["text_cfg"] | {"hf_tokenizer_name": "somebody/tokenizer", "vocab_size": len(words)}
    }
    config["custom_text"] = True
    torch.manual_seed(0)
    cfg = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}
    model = open_clip.CustomTextCLIP(**cfg)
    folder = write_folder(tmp_path / "model", model, config=config)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")
    wrapped.save_pretrained(folder)
    teacher = build_teacher(spec(f"open_clip:{folder}"))
    ids = torch.zeros(2, 11, dtype=torch.long)
    ids[0, :3], ids[1, :2] = torch.tensor([2, 3, 4]), torch.tensor([2, 5])
    with torch.inference_mode():
        expected = model.eval().encode_text(ids, normalize=True)
    np.testing.assert_allclose(teacher.encode_text(["a red circle", "a blue"]), expected, atol=2e-6)
    digest = teacher.record.digest
    with pytest.raises(EncodeError, match="'a green circle' breaks the tokenizer") as caught:
        teacher.encode_text(["a red circle", "a green circle"])
    assert caught.value.reasons.keys() == {1}
    # Calls set padding and truncation; the digest is of the rules, so that another rule is another teacher.
    assert build_teacher(spec(f"open_clip:{folder}")).record.digest == digest
    made.normalizer = tokenizers.normalizers.Lowercase()
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")
    wrapped.save_pretrained(folder)
    assert build_teacher(spec(f"open_clip:{folder}")).record.digest != digest


def test_a_repository_is_read_by_whichever_layout_it_has(tmp_path, monkeypatch, tiny_checkpoint):
    model = random_model()[0]
    folder = write_folder(tmp_path / "theirs", model)
    ours = write_folder(tmp_path / "ours", model)  # as an upload writes it: for pocketclip, and for open_clip
    shutil.copy(tiny_checkpoint, ours / "pocketclip.safetensors")
    places = {"hf-hub:org/theirs@v1": folder, "hf-hub:org/ours": ours}
    monkeypatch.setattr(from_open_clip, "fetch", places.__getitem__)
    theirs = build_teacher(spec("hf-hub:org/theirs@v1"))
    assert theirs.record.digest == build_teacher(spec(f"open_clip:{folder}")).record.digest
    assert build_teacher(spec("hf-hub:org/ours")).record.digest == load(tiny_checkpoint).digest


def test_loading_says_nothing_and_leaves_the_root_logger_alone(caplog, capfd):
    import logging

    handlers, disabled = logging.getLogger().handlers[:], logging.root.manager.disable
    build_teacher(spec("open_clip:tiny-plain/random"))
    assert (logging.getLogger().handlers, logging.root.manager.disable) == (handlers, disabled)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


# What cannot be used


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("ViT-B-33/openai", ValueError, "is no folder with open_clip_config.json, nor MODEL/PRETRAINED"),
        ("tiny-plain", ValueError, "nor MODEL/PRETRAINED"),
        ("tiny-plain/", ValueError, "nor MODEL/PRETRAINED"),
        (
            "tiny-plain/openai",
            FileNotFoundError,
            "'openai' is neither a file nor one of the tags of tiny-plain",
        ),
        (
            "RN50/laion2b",
            FileNotFoundError,
            "one of the tags of RN50 .openai, yfcc15m, cc12m.; `random` takes",
        ),
    ],
)
def test_unknown_models_and_weights_are_told(reference, error, message):
    with pytest.raises(error, match=f"teacher oc: .*{message}"):
        build_teacher(spec(f"open_clip:{reference}"))


def test_weights_that_do_not_fit_are_told(tmp_path):
    model = random_model()[0]
    folder = write_folder(tmp_path / "model", model, config=PLAIN | {"embed_dim": 13})
    with pytest.raises(ValueError, match=r"teacher oc: open_clip cannot load .*model"):
        build_teacher(spec(f"open_clip:{folder}"))
    path = folder / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"teacher oc: open_clip cannot load .*model"):
        build_teacher(spec(f"open_clip:{folder}"))
    path.unlink()
    with pytest.raises(ValueError, match=r"teacher oc: open_clip cannot load .*model"):  # not random weights
        build_teacher(spec(f"open_clip:{folder}"))


def test_pickled_code_in_weights_is_not_run(tmp_path):
    class Boom:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Boom()}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="open_clip cannot load"):
        build_teacher(spec(f"open_clip:tiny-plain/{tmp_path}/weights.pt"))
    assert not (tmp_path / "ran").exists()


def test_pictures_that_are_not_square_are_refused(tmp_path):
    config = PLAIN | {"vision_cfg": PLAIN["vision_cfg"] | {"image_size": [32, 16]}}
    model = open_clip.CLIP(**{key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
    folder = write_folder(tmp_path / "model", model, config=config)
    with pytest.raises(ValueError, match="its pictures are 16x32, not square"):
        build_teacher(spec(f"open_clip:{folder}"))


def test_a_weights_that_cannot_be_downloaded_are_told(monkeypatch):
    def offline(known):
        raise FileNotFoundError("Failed to download file\nand more")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(
        ConnectionError, match=r"open_clip:RN50/openai cannot be downloaded \(Failed to download file\)"
    ):
        build_teacher(spec("open_clip:RN50/openai"))


def test_a_small_installation_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        ImportError, match=r"teacher oc needs open_clip.*pip install 'pocketclip\[teachers\]'"
    ):
        build_teacher(spec("open_clip:tiny-plain/random"))
