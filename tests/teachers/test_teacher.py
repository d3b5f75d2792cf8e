"""Teachers: rows of length 1 that depend on their own input alone, from plain data, in any process and precision."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pocketclip.checkpoint import load
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.reinforcement import TeacherRecord
from pocketclip.teachers import EncodeError, Teacher, TeacherSpec, build_teacher
from pocketclip.teachers.towers import Towers, TowerTeacher, weights_digest

TEXTS = ["a red circle", "eine grüne Katze", "🙂", "word " * 200, "  "]


@pytest.fixture(scope="module")
def spec(teachers):
    return TeacherSpec(name="conv", source=str(teachers["conv"]))


def pixels(num: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


# Checkpoints


@pytest.mark.parametrize("name", ["conv", "vit"])
def test_a_checkpoint_embeds_as_its_own_model_does(teachers, name):
    teacher = build_teacher(TeacherSpec(name=name, source=str(teachers[name])))
    loaded = load(teachers[name])
    image_BHWC = pixels(5, teacher.image_px)
    with torch.inference_mode():
        image = loaded.model.encode_image(
            torch.from_numpy(loaded.config.preprocess.normalise(image_BHWC)), normalize=True
        )
        text = loaded.model.encode_text(loaded.tokenize(TEXTS), normalize=True)
    np.testing.assert_allclose(teacher.encode_image(image_BHWC), image, atol=2e-6)
    np.testing.assert_allclose(teacher.encode_text(TEXTS), text, atol=2e-6)
    assert teacher.record == TeacherRecord(
        name=name,
        embed_dim=loaded.config.model.embed_dim,
        logit_scale=loaded.model.logit_scale.exp().item(),
        digest=loaded.digest,
    )


def test_rows_have_length_one_and_depend_on_their_own_input_alone(spec):
    teacher = build_teacher(spec)
    image_BHWC = pixels(7, teacher.image_px)
    for rows, alone in (
        (teacher.encode_image(image_BHWC), [teacher.encode_image(row[None])[0] for row in image_BHWC]),
        (teacher.encode_text(TEXTS), [teacher.encode_text([text])[0] for text in TEXTS]),
    ):
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(rows, alone, atol=2e-6)


def test_pictures_that_cannot_be_written_to_are_taken(spec):
    teacher = build_teacher(spec)
    image_BHWC = pixels(3, teacher.image_px)
    expected = teacher.encode_image(image_BHWC)
    image_BHWC.flags.writeable = False
    np.testing.assert_array_equal(teacher.encode_image(image_BHWC), expected)
    view = np.repeat(image_BHWC, 2, axis=0)[::2]
    np.testing.assert_array_equal(teacher.encode_image(view), expected)


def test_a_given_logit_scale_goes_before_the_learned_one(spec):
    own, given = build_teacher(spec), build_teacher(replace(spec, logit_scale=55.0))
    assert own.record.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert given.record == replace(own.record, logit_scale=55.0)
    assert given.describe()["own_logit_scale"] == own.record.logit_scale


def test_another_process_builds_the_same_teacher_from_the_pickled_spec(spec, run_python, tmp_path):
    teacher = build_teacher(spec)
    (tmp_path / "spec").write_bytes(pickle.dumps(spec))
    code = (
        "import pickle, sys; from pocketclip.teachers import build_teacher;"
        "teacher = build_teacher(pickle.load(open(sys.argv[1], 'rb')));"
        "print(teacher.record, teacher.encode_text(['a red circle']).tobytes().hex())"
    )
    ran = run_python("-c", code, tmp_path / "spec")
    assert ran.out.strip().split(") ")[0] + ")" == str(teacher.record), ran.err
    assert ran.out.split()[-1] == teacher.encode_text(["a red circle"]).tobytes().hex()


def test_the_description_is_plain_data_that_tells_settings_apart(spec):
    import json

    plain = build_teacher(spec).describe()
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["name"], plain["library"], plain["precision"]) == ("conv", "pocketclip", "fp32")
    assert build_teacher(spec, precision="bf16").describe() != plain


@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.02), ("fp16", 0.003)])
def test_half_precision_is_close_and_its_rows_have_length_one_in_float32(spec, precision, error):
    full, half = build_teacher(spec), build_teacher(spec, precision=precision)
    image_BHWC = pixels(6, full.image_px)
    for exact, rounded in (
        (full.encode_image(image_BHWC), half.encode_image(image_BHWC)),
        (full.encode_text(TEXTS), half.encode_text(TEXTS)),
    ):
        assert rounded.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1.0, atol=1e-6)
        assert 0 < np.abs(rounded - exact).max() < error


@pytest.mark.slow
def test_compiled_towers_embed_alike(spec):
    image_BHWC = pixels(4, build_teacher(spec).image_px)
    plain, compiled = build_teacher(spec), build_teacher(spec, compiled=True)
    np.testing.assert_allclose(compiled.encode_image(image_BHWC), plain.encode_image(image_BHWC), atol=1e-5)
    np.testing.assert_allclose(compiled.encode_text(TEXTS), plain.encode_text(TEXTS), atol=1e-5)


# What has no embedding


class Length(nn.Module):
    """Embeds ids by their sum; sums of 13 and 0 have no direction."""

    def forward(self, ids_BL):
        total_B = ids_BL.float().sum(dim=1)
        rows_BD = torch.stack([total_B, total_B * 2], dim=1)
        return torch.where(total_B[:, None] == 13, torch.nan, rows_BD)


class Mean(nn.Module):
    """Embeds pictures by their colour."""

    def forward(self, image_BCHW):
        return image_BCHW.mean(dim=(2, 3))[:, :2]


def tokenize(texts):
    if any("broken" in text for text in texts):
        raise Exception("WordPiece error: Missing [UNK] token from the vocabulary")  # as tokenizers does
    return (torch.tensor([[len(text)] for text in texts]),)


def toy(**fields) -> TowerTeacher:
    towers = Towers(
        image=Mean(),
        text=Length(),
        tokenize=tokenize,
        preprocess=Preprocess(size=4, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic"),
        logit_scale=10.0,
        digest="0" * 64,
    )
    return TowerTeacher(TeacherSpec(name="toy", source="toy"), towers, **fields)


def test_texts_that_break_the_tokenizer_are_named_and_the_others_can_be_encoded():
    teacher = toy()
    texts = ["good", "a broken one", "fine", "broken again"]
    with pytest.raises(
        EncodeError, match=r"teacher toy: the text 'a broken one' breaks .*and 1 more"
    ) as caught:
        teacher.encode_text(texts)
    assert caught.value.reasons.keys() == {1, 3}
    assert "Missing [UNK]" in caught.value.reasons[3]
    assert "'broken again'" in caught.value.reasons[3]
    assert teacher.encode_text([texts[0], texts[2]]).shape == (2, 2)


def test_results_that_are_not_finite_or_have_no_direction_are_named():
    teacher = toy()
    with pytest.raises(EncodeError, match="not finite or zero for the text 'thirteen sign'") as caught:
        teacher.encode_text(["one", "thirteen sign", "", "two"])
    assert caught.value.reasons.keys() == {1, 2}
    black = np.zeros((3, 4, 4, 3), np.uint8)
    black[1] = 7
    with pytest.raises(EncodeError, match="picture 0 of a batch") as caught:
        teacher.encode_image(black)
    assert caught.value.reasons.keys() == {0, 2}


def test_the_error_crosses_processes():
    error = EncodeError("toy", {2: "the text 'x' breaks the tokenizer", 5: "another"})
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.reasons) == (str(error), error.reasons)


# Digests


def test_the_digest_is_of_weights_and_configuration():
    weights = {
        "a": torch.arange(6.0).view(2, 3),
        "b": torch.tensor(1.0),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }
    digest = weights_digest(weights, {"size": 4})
    assert weights_digest(dict(reversed(weights.items())), {"size": 4}) == digest
    assert weights_digest({**weights, "a": weights["a"].t().contiguous().t()}, {"size": 4}) == digest
    for other in (
        weights_digest(weights, {"size": 5}),
        weights_digest({**weights, "b": torch.tensor(1.5)}, {"size": 4}),
        weights_digest({**weights, "b": torch.tensor(1.0, dtype=torch.float64)}, {"size": 4}),
        weights_digest({**weights, "a": weights["a"].view(3, 2)}, {"size": 4}),
        weights_digest({"a": weights["a"], "c": weights["b"], "half": weights["half"]}, {"size": 4}),
    ):
        assert other != digest


# What cannot be built


@pytest.mark.parametrize(
    "fields",
    [{"name": "a/b"}, {"name": ""}, {"source": ""}, {"logit_scale": 0.0}, {"logit_scale": float("nan")}],
)
def test_a_spec_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValueError, match="teacher"):
        TeacherSpec(**{"name": "t", "source": "t.safetensors", **fields})


def test_missing_checkpoints_and_devices_are_told(spec, tmp_path):
    gone = TeacherSpec(name="gone", source=str(tmp_path / "gone.safetensors"))
    with pytest.raises(
        FileNotFoundError, match=r"teacher gone: .*gone\.safetensors does not exist: give .*open_clip:"
    ):
        build_teacher(gone)
    # A variant's name would be a teacher with random weights.
    with pytest.raises(FileNotFoundError, match="teacher named: pocketclip_tiny does not exist"):
        build_teacher(TeacherSpec(name="named", source="pocketclip_tiny"))
    with pytest.raises(FileNotFoundError, match="openclip:ViT-B-32/openai does not exist"):
        build_teacher(TeacherSpec(name="typo", source="openclip:ViT-B-32/openai"))
    for device in ("tpu9", "cuda:99"):
        with pytest.raises(ValueError, match=f"teacher conv cannot run on device '{device}'.*try cpu"):
            build_teacher(spec, device=device)


# Anything else


def plugged(spec, *, device, precision, compiled):
    """What a user would write."""
    assert (device, precision, compiled) == ("cpu", "bf16", False)
    return toy()


def not_a_teacher(spec, **settings):
    return object()


def test_any_function_can_make_a_teacher():
    spec = TeacherSpec(name="mine", source=f"python:{__name__}:plugged")
    teacher = build_teacher(spec, precision="bf16")
    assert isinstance(teacher, Teacher)
    assert teacher.encode_text(["one"]).shape == (1, 2)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere_at_all:make", "cannot be imported .*nowhere_at_all.*PYTHONPATH"),
        (f"{__name__}:gone", "cannot be imported .*gone"),
        (__name__, "is not of the form python:MODULE:FUNCTION"),
        (f"{__name__}:not_a_teacher", "returned a object, which lacks record"),
    ],
)
def test_functions_that_make_none_are_told(place, message):
    with pytest.raises(ValueError, match=f"teacher mine: python:{place} {message}"):
        build_teacher(TeacherSpec(name="mine", source=f"python:{place}"))
