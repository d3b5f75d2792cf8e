"""Folders for other programs: loaded by the program, where it is installed, or read as the program reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from tests.export.test_run import save_small

from pocketclip.checkpoint import Loaded, create, load
from pocketclip.cli import main
from pocketclip.export import ExportConfig
from pocketclip.export.hosts import RECORD_FILE, export_for
from pocketclip.export.probes import PROBE_TEXTS, make_pictures

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

# Texts that need no repair: hosts repair none.
TEXTS = [text for text in PROBE_TEXTS if "&" not in text]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("checkpoint") / "small.safetensors")


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> Loaded:
    return load(checkpoint)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return make_pictures(1, seed=4)[0]


def embed(loaded: Loaded, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        picture = loaded.model.encode_image(loaded.preprocess(image)[None], normalize=True)
        texts = loaded.model.encode_text(loaded.tokenize(TEXTS), normalize=True)
    return picture.numpy(), texts.numpy()


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_immich_feeds_it_as_it_feeds_its_own(
    loaded: Loaded, image: Image.Image, tmp_path: Path, precision: str
):
    """What immich's machine learning does with a folder, with what it takes from the folder."""
    from tokenizers import Tokenizer

    report = export_for(loaded, tmp_path / "out", host="immich", config=ExportConfig(precision=precision))
    assert report is not None
    assert report.passed
    out = tmp_path / "out"
    expected_image, expected_texts = embed(loaded, image)
    tolerance = 1e-5 if precision == "fp32" else 0.02

    length = read(out / "config.json")["text_cfg"]["context_length"]
    pad_token = read(out / "textual" / "tokenizer_config.json")["pad_token"]
    tokenizer = Tokenizer.from_file(str(out / "textual" / "tokenizer.json"))
    tokenizer.enable_padding(length=length, pad_token=pad_token, pad_id=tokenizer.token_to_id(pad_token))
    tokenizer.enable_truncation(max_length=length)
    textual = onnxruntime.InferenceSession(out / "textual" / "model.onnx")
    for text, expected in zip(TEXTS, expected_texts, strict=True):
        ids = np.array([tokenizer.encode(" ".join(text.split())).ids], dtype=np.int32)
        (found,) = textual.run(None, {"text": ids})
        np.testing.assert_allclose(found[0], expected, atol=tolerance)

    how = read(out / "visual" / "preprocess_cfg.json")
    assert how["resize_mode"] == "shortest"
    (size, _), resampling = how["size"], Image.Resampling[how["interpolation"].upper()]
    ratio = size / min(image.size)
    resized = image.resize(tuple(max(size, int(side * ratio)) for side in image.size), resampling)
    left, top = ((side - size) // 2 for side in resized.size)
    pixels_HWC = np.asarray(resized.crop((left, top, left + size, top + size)), dtype=np.float32) / 255
    pixels_HWC = (pixels_HWC - np.float32(how["mean"])) / np.float32(how["std"])
    visual = onnxruntime.InferenceSession(out / "visual" / "model.onnx")
    (found,) = visual.run(None, {"image": pixels_HWC.transpose(2, 0, 1)[None]})
    assert found @ expected_image.T > 0.999


@pytest.mark.slow
@pytest.mark.reference
def test_sentence_transformers_loads_embeds_and_saves_it(
    checkpoint: Path, image: Image.Image, tmp_path: Path
):
    """In a process of its own: what it imports warns about itself."""
    pytest.importorskip("sentence_transformers")
    export_for(checkpoint, tmp_path / "out", host="sentence-transformers")
    image.save(tmp_path / "image.png")
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    script = """
import json, sys
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
folder = sys.argv[1]
texts, image = json.load(open(f"{folder}/texts.json")), Image.open(f"{folder}/image.png")
model = SentenceTransformer(f"{folder}/out", trust_remote_code=True, device="cpu")
model.save(f"{folder}/again")
again = SentenceTransformer(f"{folder}/again", trust_remote_code=True, device="cpu")
assert model.get_embedding_dimension() == 24
np.savez(f"{folder}/found.npz", texts=again.encode(texts), image=model.encode([image]), one=model.encode(image))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected_image, expected_texts = embed(load(checkpoint), image)
    with np.load(tmp_path / "found.npz", allow_pickle=False) as found:
        np.testing.assert_allclose(found["texts"], expected_texts, atol=1e-6)
        np.testing.assert_allclose(found["image"], expected_image, atol=1e-6)
        np.testing.assert_allclose(found["one"], expected_image[0], atol=1e-6)


def test_transformers_js_finds_what_it_looks_for(loaded: Loaded, image: Image.Image, tmp_path: Path):
    """File names, and the names and shapes of what goes in and comes out."""
    out = tmp_path / "out"
    export_for(loaded, out, host="transformers.js", config=ExportConfig(precision="fp16"))
    config, size = read(out / "config.json"), loaded.config.preprocess.size
    assert config["model_type"] == "clip"
    assert config["transformers.js_config"]["dtype"] == "fp16"
    how = read(out / "preprocessor_config.json")
    assert (how["size"], how["resample"]) == ({"shortest_edge": size}, 2)
    assert read(out / "tokenizer_config.json")["tokenizer_class"] == "CLIPTokenizer"
    expected_image, expected_texts = embed(loaded, image)
    text = onnxruntime.InferenceSession(out / "onnx" / "text_model_fp16.onnx")
    (found,) = text.run(["text_embeds"], {"input_ids": loaded.tokenize(TEXTS).numpy()})
    np.testing.assert_allclose(found, expected_texts, atol=0.02)
    vision = onnxruntime.InferenceSession(out / "onnx" / "vision_model_fp16.onnx")
    (found,) = vision.run(["image_embeds"], {"pixel_values": loaded.preprocess(image)[None].numpy()})
    np.testing.assert_allclose(found, expected_image, atol=0.02)


TRANSFORMERS_JS = Path(__file__).parents[2] / "web" / "hosts"


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.skipif(
    shutil.which("node") is None or not (TRANSFORMERS_JS / "node_modules").is_dir(),
    reason="needs node, and `npm ci` in web/hosts",
)
def test_transformers_js_loads_it(loaded: Loaded, image: Image.Image, tmp_path: Path):
    export_for(loaded, tmp_path / "out", host="transformers.js")
    size = loaded.config.preprocess.size
    square = Image.fromarray(loaded.config.preprocess.pixels(image))  # its resize is not ours
    square.save(tmp_path / "image.png")
    assert square.size == (size, size)
    # of a text that is too long it cuts the end mark too
    fit = [len(loaded.tokenizer.encode(text)) <= loaded.config.tokenizer.context_length - 2 for text in TEXTS]
    texts = [text for text, fits in zip(TEXTS, fit, strict=True) if fits]
    request = json.dumps([str(tmp_path), "out", texts, str(tmp_path / "image.png")])
    done = subprocess.run(
        ["node", str(TRANSFORMERS_JS / "embed.mjs")],
        input=request,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected_image, expected_texts = embed(loaded, image)
    np.testing.assert_array_equal(found["ids"], loaded.tokenize(texts).numpy())
    np.testing.assert_allclose(found["texts"], expected_texts[fit], atol=1e-5)
    np.testing.assert_allclose(found["image"], expected_image, atol=1e-5)


@pytest.mark.slow
@pytest.mark.reference
def test_open_clip_loads_it(image: Image.Image, tmp_path: Path):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    loaded = create("mobileclip2_s0")
    assert export_for(loaded, tmp_path / "out", host="open_clip") is None
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    model.eval()
    with torch.inference_mode():
        found = model.encode_image(preprocess(image)[None], normalize=True)
        expected = loaded.model.encode_image(loaded.preprocess(image)[None], normalize=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_what_a_host_cannot_hold_is_told(loaded: Loaded, tmp_path: Path):
    with pytest.raises(ValueError, match="timm's names"):
        export_for(loaded, tmp_path / "out", host="open_clip")
    with pytest.raises(ValueError, match="sentence-transformers takes fp32"):
        export_for(
            loaded, tmp_path / "out", host="sentence-transformers", config=ExportConfig(precision="fp16")
        )
    with pytest.raises(ValueError, match="feeds both towers itself"):
        export_for(loaded, tmp_path / "out", host="immich", config=ExportConfig(pixels="uint8"))
    with pytest.raises(ValueError, match="host is 'abacus'"):
        export_for(loaded, tmp_path / "out", host="abacus")  # ty: ignore[invalid-argument-type]
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_folder_is_left_alone(loaded: Loaded, tmp_path: Path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="choose another output folder"):
        export_for(loaded, tmp_path, host="sentence-transformers")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_the_command_lays_it_out(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert main(["export", str(checkpoint), str(out), "--host", "sentence-transformers"]) == 0
    assert f"wrote the weights to {out}, for sentence-transformers" in capsys.readouterr().out
    assert read(out / RECORD_FILE)["host"] == "sentence-transformers"
    assert main(["export", str(checkpoint), str(tmp_path / "x"), "--host", "immich", "--to", "web"]) != 0
    assert "--host takes one --precision" in capsys.readouterr().err
