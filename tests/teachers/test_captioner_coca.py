"""CoCa as a captioner: greedy is the argmax of open_clip's model, samples depend on their key and number alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pocketclip.checkpoint import Loaded, convert, create, from_open_clip, save
from pocketclip.teachers import CaptionerSpec, build_captioner, captioner_coca
from pocketclip.teachers.captioner import usable
from pocketclip.teachers.captioner_coca import CocaCaptioner
from pocketclip.teachers.open_clip_models import load_open_clip

open_clip = pytest.importorskip("open_clip")
pytestmark = pytest.mark.reference

LENGTH = 8
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {
        "context_length": 12,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
        "attn_pooler_heads": 2,
    },
    "custom_text": True,
}
START, END, PADDING = 49406, 49407, 0


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    """A tiny CoCa, and a CLIP, that open_clip knows for as long as this module runs."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "tiny-coca.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    yield
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder)
    open_clip.factory._MODEL_CONFIGS.pop("tiny-coca")


@pytest.fixture(scope="module")
def found(models):
    """The tiny model; random weights, larger where pictures come in, so that they show in what is written."""
    found = load_open_clip("tiny-coca/random", what="test")
    with torch.no_grad():
        for name, parameter in found.model.named_parameters():
            if parameter.ndim >= 2 and "embedding" not in name:
                parameter.mul_(3)
    return found


@pytest.fixture(scope="module")
def loaded(found) -> Loaded:
    return ours(found)


def ours(found) -> Loaded:
    """The same model as pocketclip runs it."""
    values = {"model_cfg": found.facts["config"], "preprocess_cfg": found.preprocess.to_json()}
    return from_open_clip(values, found.model.state_dict(), source="tiny-coca")


def ending(found, *, bias: float) -> Loaded:
    """The same, with an end of text that is as much likelier after whatever was written."""
    loaded = ours(found)
    with torch.no_grad():
        loaded.model.decoder.norm.bias.zero_()
        loaded.model.decoder.norm.bias[0] = 1000.0
        loaded.model.decoder.head.weight[:, 0] = 0.0
        loaded.model.decoder.head.weight[END, 0] = bias / 1000
    return loaded


def spec(**fields) -> CaptionerSpec:
    defaults = {
        "name": "coca",
        "source": "open_clip:tiny-coca/random",
        "max_length": LENGTH,
        "num_captions": 3,
    }
    return CaptionerSpec(**(defaults | fields))


GREEDY = {"temperature": 0.0, "num_captions": 1}


def pictures(num: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(40, 32), (32, 50), (90, 31), (20, 20)]
    return [
        Image.fromarray(rng.integers(0, 256, (*sizes[i % 4], 3), dtype=np.uint8)).resize(sizes[i % 4])
        for i in range(num)
    ]


KEYS = [f"key{i}" for i in range(6)]


def argmax_caption(model, transform, image: Image.Image) -> str:
    """The likeliest caption, by the whole model from the picture on for every token."""
    tokens = [START]
    with torch.inference_mode():
        while len(tokens) <= LENGTH:
            logits = model(transform(image)[None], torch.tensor([tokens]), output_labels=False)["logits"][
                0, -1
            ]
            logits[[START, PADDING]] = -torch.inf
            tokens.append(int(logits.argmax()))
            if tokens[-1] == END:
                break
    words = open_clip.get_tokenizer("tiny-coca").decode([t for t in tokens[1:] if t != END])
    return " ".join(words.replace("�", "").split())


def test_greedy_captions_are_the_argmax_of_open_clips_model(found, loaded):
    captioner = CocaCaptioner(spec(**GREEDY), loaded)
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**found.model.visual.preprocess_cfg), is_train=False
    )
    expected = [argmax_caption(found.model, transform, image) for image in pictures(6)]
    assert captioner.caption(pictures(6), KEYS) == [usable([text]) for text in expected]
    assert len(set(expected)) >= 4  # the pictures are seen


def test_captions_that_end_at_once_are_left_out_and_others_are_cut_at_the_longest_length(found):
    assert CocaCaptioner(spec(), ending(found, bias=1e4)).caption(pictures(2), KEYS[:2]) == [(), ()]
    endless = CocaCaptioner(spec(), ending(found, bias=-1e4))
    assert [len(texts) for texts in endless.caption(pictures(2), KEYS[:2])] == [3, 3]


def test_a_caption_is_whole_unless_its_first_sentence_is_asked_for():
    texts = ["a cat . it sits .", ". b", "no stop"]
    assert spec().finished(texts) == ("a cat . it sits .", ". b", "no stop")
    assert spec(first_sentence=True).finished(texts) == ("a cat", "no stop")


@pytest.mark.parametrize(
    "sampling",
    [
        {"top_p": 1.0},
        {"top_k": 5, "temperature": 2.0},
        {"top_p": 0.5},
        {"temperature": 0.0, "beams": 6, "beam_groups": 3, "diversity_penalty": 2.0, "no_repeat_ngram": 2},
    ],
)
def test_captions_do_not_depend_on_the_batch(loaded, monkeypatch, sampling):
    captioner = CocaCaptioner(spec(**sampling), loaded)
    together = captioner.caption(pictures(6), KEYS)
    alone = [captioner.caption([image], [key])[0] for image, key in zip(pictures(6), KEYS, strict=True)]
    order = [3, 1, 5, 0, 4, 2]
    shuffled = captioner.caption([pictures(6)[i] for i in order], [KEYS[i] for i in order])
    monkeypatch.setattr(captioner_coca, "_ROWS", 7)
    assert captioner.caption(pictures(6), KEYS) == together  # two pictures at a time
    assert together == alone
    assert shuffled == [together[i] for i in order]
    assert len(set(together)) == 6


def test_captions_depend_on_the_key_the_number_and_the_seed_and_repeat(loaded):
    def written(keys, **fields):
        return CocaCaptioner(spec(**fields), loaded).caption(pictures(2), keys)

    base = written(KEYS[:2])
    torch.manual_seed(5)
    assert written(KEYS[:2]) == base
    assert len(set(base[0])) == 3
    assert written(["other", KEYS[1]])[0] != base[0]
    assert written(["other", KEYS[1]])[1] == base[1]
    assert written(KEYS[:2], seed=1) != base
    assert written(KEYS[:2], name="another") != base
    # More captions are the same ones and further ones.
    assert [texts[:3] for texts in written(KEYS[:2], num_captions=5)] == base


def test_no_pictures_no_captions(loaded):
    assert CocaCaptioner(spec(), loaded).caption([], []) == []


def test_logits_that_are_not_finite_name_the_sample(found):
    captioner = CocaCaptioner(spec(), ours(found))
    plain = captioner._pixels

    def broken(images):
        pixels = plain(images)
        pixels[1] = torch.nan
        return pixels

    captioner._pixels = broken
    with pytest.raises(ValueError, match="captioner coca gives logits .* for sample key1: its weights"):
        captioner.caption(pictures(3), KEYS[:3])


# Building


def test_a_spec_builds_the_same_captioner_again():
    first, again = build_captioner(spec()), build_captioner(spec())
    assert first.digest == again.digest
    assert first.caption(pictures(2), KEYS[:2]) == again.caption(pictures(2), KEYS[:2])
    described = first.describe()
    assert json.loads(json.dumps(described)) == described
    assert (described["name"], described["num_captions"], described["max_length"]) == ("coca", 3, LENGTH)


def test_half_precision_writes_captions_too():
    captioner = build_captioner(spec(), precision="bf16")
    assert all(len(texts) <= 3 for texts in captioner.caption(pictures(3), KEYS[:3]))
    assert captioner.describe()["precision"] == "bf16"


def test_a_teacher_can_be_a_coca(found):
    from pocketclip.teachers import TeacherSpec, build_teacher

    teacher = build_teacher(TeacherSpec(name="coca", source="open_clip:tiny-coca/random"))
    assert teacher.encode_text(["a dog"]).shape == (1, 16)
    assert teacher.encode_image(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 16)


def test_a_checkpoint_a_folder_and_open_clip_write_the_same(found, loaded, tmp_path):
    save(tmp_path / "coca.safetensors", loaded.model, config=loaded.config, tokenizer=loaded.tokenizer)
    convert(tmp_path / "coca.safetensors", tmp_path / "folder", to="open_clip")
    expected = CocaCaptioner(spec(), loaded).caption(pictures(3), KEYS[:3])
    for source in (
        str(tmp_path / "coca.safetensors"),
        str(tmp_path / "folder"),
        f"open_clip:{tmp_path / 'folder'}",
    ):
        captioner = build_captioner(spec(source=source))
        assert captioner.caption(pictures(3), KEYS[:3]) == expected
    assert captioner.describe()["library"] == "pocketclip"


def test_a_checkpoint_that_writes_nothing_is_told(tmp_path):
    clip = create("pocketclip_tiny")
    save(tmp_path / "clip.safetensors", clip.model, config=clip.config, tokenizer=clip.tokenizer)
    with pytest.raises(ValueError, match="clip.safetensors is a Clip and cannot write: give a CoCa"):
        build_captioner(spec(source=str(tmp_path / "clip.safetensors")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "open_clip:RN50/random"}, "open_clip:RN50/random is a CLIP and cannot write"),
        ({"source": "gone.safetensors"}, "'gone.safetensors' does not exist, and is none of"),
        ({"source": "open_clip:coca_nothing/random"}, "nor MODEL/PRETRAINED"),
        ({"max_length": 13}, "max_length 13 is beyond the model's 12 tokens"),
    ],
)
def test_what_cannot_write_is_told(fields, message):
    with pytest.raises(ValueError, match=f"captioner coca: .*{message}"):
        build_captioner(spec(**fields))
