"""ExportedModel: embeddings, classification, and refusal of folders that are not what their manifest says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketclip.runtime import ExportedModel

RED, GREEN, BLUE = (Image.new("RGB", (40, 30), name) for name in ("red", "lime", "blue"))


@pytest.fixture
def folder(colour_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(colour_model, tmp_path / "model"))


def test_embeddings_mean_what_they_should(colour_model: Path):
    model = ExportedModel(colour_model, threads=1)
    images_ND = model.embed_images([RED, GREEN, BLUE])
    texts_ND = model.embed_texts(["blue sky", "red car", "green tree"])
    assert images_ND.dtype == texts_ND.dtype == np.float32
    assert (images_ND @ texts_ND.T).argmax(axis=1).tolist() == [1, 2, 0]
    for embed_ND in (images_ND, texts_ND):
        np.testing.assert_allclose(np.linalg.norm(embed_ND, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_batches_do_not_change_rows(colour_model: Path, batch_size: int):
    model = ExportedModel(colour_model)
    images = [RED, GREEN, BLUE, Image.new("RGBA", (9, 50), (10, 200, 30, 90)), Image.new("L", (16, 16), 7)]
    texts = ["red", "", "blue " * 50, "green"]
    np.testing.assert_allclose(
        model.embed_images(images, batch_size=batch_size),
        np.concatenate([model.embed_images([image]) for image in images]),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        model.embed_texts(texts, batch_size=batch_size),
        np.concatenate([model.embed_texts([text]) for text in texts]),
        atol=1e-6,
    )


def test_pixels_made_elsewhere_give_the_same_rows(colour_model: Path):
    model = ExportedModel(colour_model)
    pixels_BHWC = np.stack([model.preprocess.pixels(image) for image in (RED, BLUE)])
    np.testing.assert_array_equal(model.embed_pixels(pixels_BHWC), model.embed_images([RED, BLUE]))


def test_nothing_in_nothing_out(colour_model: Path):
    model = ExportedModel(colour_model)
    assert model.embed_images([]).shape == (0, 3)
    assert model.embed_texts([]).shape == (0, 3)


def test_classify_gives_probabilities(colour_model: Path):
    model = ExportedModel(colour_model)
    odds = model.classify([RED, BLUE], ["red", "green", "blue"])
    assert odds.shape == (2, 3)
    assert odds.argmax(axis=1).tolist() == [0, 2]
    np.testing.assert_allclose(odds.sum(axis=1), 1, rtol=1e-5)
    more = model.classify([RED], ["red", "blue"], templates=["a {}.", "the {} one", "{}"])
    assert more[0, 0] > 0.99
    # softmax of scaled cosines, by hand
    cosines = model.embed_images([GREEN]) @ model.embed_texts(["red", "green"]).T
    expected = np.exp(20 * cosines) / np.exp(20 * cosines).sum()
    np.testing.assert_allclose(
        model.classify([GREEN], ["red", "green"], templates=["{}"]), expected, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("labels", "templates", "named"),
    [
        ([], ["{}"], "at least one label"),
        (["red"], ["a photo"], "where the label goes"),
        (["red"], [], "template"),
    ],
)
def test_classify_refuses_what_it_cannot_do(colour_model: Path, labels, templates, named: str):
    with pytest.raises(ValueError, match=named):
        ExportedModel(colour_model).classify([RED], labels, templates=templates)


def test_a_lone_text_is_not_a_sequence_of_letters(colour_model: Path):
    with pytest.raises(TypeError, match=r"\[text\]"):
        ExportedModel(colour_model).embed_texts("red")


def test_a_folder_without_manifest_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json.*pocketclip export"):
        ExportedModel(tmp_path)


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed", "empty"])
def test_a_damaged_file_is_named_with_the_remedy(folder: Path, name: str, damage: str):
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes({"truncated": data[: len(data) // 2], "changed": data, "empty": b""}[damage])
    with pytest.raises((ValueError, FileNotFoundError), match=rf"{name}.*export the checkpoint again"):
        ExportedModel(folder)


def test_an_unreadable_network_is_an_error_even_unverified(folder: Path):
    path = folder / "image.onnx"
    path.write_bytes(path.read_bytes()[:100])
    model = ExportedModel(folder, verify=False)
    with pytest.raises(ValueError, match=r"image\.onnx.*onnxruntime"):
        model.embed_images([RED])


def test_a_network_that_fails_while_running_is_an_error(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["preprocess"]["size"] = 17  # the network wants 16
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="network failed on a batch of shape"):
        ExportedModel(folder).embed_images([RED])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 1}, "version 1 and this pocketclip reads version 2"),
        ({"format": "other"}, "not the manifest of an exported pocketclip model"),
        ({"surplus": 1}, "unknown fields: surplus"),
        ({"embed_dim": None}, "embed_dim"),
        ({"embed_dim": 0}, "embed_dim"),
        ({"logit_scale": "100"}, "logit_scale"),
        ({"logit_scale": float("nan")}, "logit_scale"),
        ({"preprocess": {"size": 3}}, "preprocess has missing fields"),
        ({"files": {"tokenizer": {}}}, "missing fields: image or text"),
        ({"pixels": "float16"}, "pixels is 'float16'"),
        ({"files": []}, "files"),
    ],
)
def test_a_wrong_manifest_is_refused_by_field(folder: Path, change, named: str):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=named) as caught:
        ExportedModel(folder)
    assert str(path) in str(caught.value)


def test_a_missing_field_is_named(folder: Path):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["precision"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="missing fields: precision"):
        ExportedModel(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_a_damaged_manifest_is_refused(folder: Path, text: str):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        ExportedModel(folder)


def test_files_outside_the_folder_are_refused(folder: Path):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("text.onnx", "../text.onnx"))
    with pytest.raises(ValueError, match="plain name"):
        ExportedModel(folder)


def test_threads_and_batch_size_must_be_positive(colour_model: Path):
    with pytest.raises(ValueError, match="threads"):
        ExportedModel(colour_model, threads=0)
    with pytest.raises(ValueError, match="batch_size"):
        ExportedModel(colour_model).embed_texts(["a"], batch_size=0)


def test_the_digest_tells_models_apart(colour_model: Path, make_colour_model, tmp_path: Path):
    again = ExportedModel(make_colour_model(tmp_path / "again"))
    other = ExportedModel(make_colour_model(tmp_path / "other", order=(2, 1, 0)))
    assert ExportedModel(colour_model).manifest.digest == again.manifest.digest != other.manifest.digest


def test_runs_without_torch(colour_model: Path):
    program = (
        "import sys; from PIL import Image; from pocketclip.runtime import ExportedModel\n"
        f"model = ExportedModel({str(colour_model)!r}, threads=1)\n"
        "model.classify([Image.new('RGB', (20, 20))], ['red', 'blue'])\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
