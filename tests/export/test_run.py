"""Export: what is published equals its checkpoint, and what does not is never published."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pocketclip.checkpoint import CheckpointConfig, create, load, save
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.export import ExportConfig, Material, Pairs, ParityError, check, export, run
from pocketclip.export.judge import Judge
from pocketclip.export.probes import PROBE_TEXTS, make_pictures
from pocketclip.export.report import require
from pocketclip.models import ClipConfig, FastViTConfig, TextConfig, ViTConfig
from pocketclip.models.clip import Clip
from pocketclip.runtime import ExportedModel

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

FILES = ["README.md", "image.onnx", "manifest.json", "probes.safetensors", "text.onnx", "tokenizer.json"]
FASTVIT = FastViTConfig(widths=(16, 32), depths=(1, 1), head_channels=16, layer_scale_init=0.5)
VIT = ViTConfig(image_px=32, patch_px=8, width=32, heads=2, layers=1, stem="conv", pool="avg")


def small_clip(image: FastViTConfig | ViTConfig) -> tuple[Clip, CheckpointConfig]:
    """A random model whose BatchNorm statistics are random too, so that folding has something to do."""
    tokenizer = TokenizerConfig(vocab_size=600, context_length=12)
    text = TextConfig(vocab_size=600, context_length=12, width=32, heads=2, layers=1, causal=True)
    torch.manual_seed(0)
    model = Clip(ClipConfig(image=image, text=text, embed_dim=24)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    preprocess = Preprocess(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bilinear")
    return model, CheckpointConfig(model=model.config, preprocess=preprocess, tokenizer=tokenizer)


def save_small(path: Path, *, image: FastViTConfig | ViTConfig = FASTVIT) -> Path:
    model, config = small_clip(image)
    save(path, model, config=config, tokenizer=Tokenizer(config.tokenizer))
    return path


TOWER_FILES = {"image": "image.onnx", "text": "text.onnx", "tokenizer": "tokenizer.json"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("checkpoint") / "small.safetensors")


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    """An export that passed. Do not change it."""
    export(checkpoint, checkpoint.parent / "exported")
    return checkpoint.parent / "exported"


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copied"))


def test_the_folder_holds_all_and_nothing_else(exported: Path):
    assert sorted(path.name for path in exported.iterdir()) == FILES
    assert [path.name for path in exported.parent.iterdir() if path.name.startswith(".")] == []
    for name in ("image.onnx", "text.onnx"):
        data = (exported / name).read_bytes()
        assert b"site-packages" not in data
        assert str(Path(__file__).parent.parent.parent).encode() not in data


def test_the_manifest_says_what_was_measured(exported: Path, checkpoint: Path):
    manifest = ExportedModel(exported).manifest
    assert manifest.checkpoint == load(checkpoint).digest
    assert (manifest.embed_dim, manifest.context_length, manifest.precision) == (24, 12, "fp32")
    assert manifest.logit_scale == pytest.approx(1 / 0.07)
    assert manifest.parity["passed"] is True
    measured = json.loads(json.dumps(manifest.parity))["towers"]
    assert {(row["tower"], row["batch_size"]) for row in measured} == {
        (tower, size) for tower in ("image", "text") for size in (1, 2, 7)
    }
    assert all(row["finite"] and row["max_difference"] < 1e-5 for row in measured)


def test_new_pictures_and_texts_embed_as_the_checkpoint_embeds_them(exported: Path, checkpoint: Path):
    loaded, model = load(checkpoint), ExportedModel(exported, threads=1, backend="onnxruntime")
    images = make_pictures(5, seed=123)
    texts = ["something else", "a cat's tail", "x" * 300]
    with torch.inference_mode():
        pixels = torch.stack([loaded.preprocess(image) for image in images])
        expected_images = loaded.model.encode_image(pixels, normalize=True).numpy()
        expected_texts = loaded.model.encode_text(loaded.tokenize(texts), normalize=True).numpy()
    np.testing.assert_allclose(model.embed_images(images, batch_size=3), expected_images, atol=1e-5)
    np.testing.assert_allclose(model.embed_texts(texts, batch_size=2), expected_texts, atol=1e-5)


def test_exporting_again_gives_the_same_bytes(checkpoint: Path, exported: Path, tmp_path: Path):
    export(checkpoint, tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes(), name


def test_a_vit_exports_and_given_inputs_join_the_gate(tmp_path: Path):
    checkpoint = save_small(tmp_path / "vit.safetensors", image=VIT)
    pairs = Pairs(images=(Image.new("RGB", (50, 20), "red"),) * 2, texts=("mine", "yours"))
    report = export(load(checkpoint), tmp_path / "out", material=Material(judged_by=pairs))
    assert report.passed
    assert {entry.tower: entry.num_probes for entry in report.towers} == {
        "image": 16,
        "text": len(PROBE_TEXTS) + 2,
    }


# ---- what must fail ----


def change_initializer(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes the largest weight of a graph."""
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    changed = onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(weight)), weight.name)
    weight.CopyFrom(changed)
    onnx.save(model, path)


def noisy(weight: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.2 * weight.std(), weight.shape)
    return (weight + noise).astype(weight.dtype)


def with_nan(weight: np.ndarray) -> np.ndarray:
    return np.full_like(weight, np.nan)


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize(("change", "named"), [(noisy, "largest difference"), (with_nan, "not finite")])
def test_a_corrupted_graph_fails_and_the_tower_is_named(
    copied: Path, checkpoint: Path, tower: str, change, named
):
    change_initializer(copied / f"{tower}.onnx", change)
    report = check(checkpoint, copied)
    assert {entry.tower for entry in report.failures} == {tower}
    with pytest.raises(
        ParityError, match=rf"{tower} tower, batches of 1, 2, 7: {named}.*differ most.*Nothing was published"
    ):
        require(report)


@pytest.mark.parametrize(
    ("tower", "layer"),
    [("image", "stem.2.conv/Conv"), ("text", "blocks.0.mixer.branch.inner.qkv/MatMul")],
)
def test_a_layer_whose_channels_are_swapped_is_named(copied: Path, checkpoint: Path, tower: str, layer: str):
    path = copied / f"{tower}.onnx"
    model = onnx.load(path)
    (node,) = [node for node in model.graph.node if node.name == layer]
    weight = next(one for one in model.graph.initializer if one.name == node.input[1])
    axis = 0 if tower == "image" else 1  # of output channels
    swapped = np.flip(onnx.numpy_helper.to_array(weight), axis).copy()
    weight.CopyFrom(onnx.numpy_helper.from_array(swapped, weight.name))
    onnx.save(model, path)
    report = check(checkpoint, copied)
    assert {entry.tower for entry in report.failures} == {tower}
    assert report.layers[0].layer == layer


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mean": [0.4, 0.4, 0.3]}, "mean is"),
        ({"interpolation": "bicubic"}, "interpolation is bicubic"),
    ],
)
def test_wrong_preprocessing_fails_and_is_named(copied: Path, checkpoint: Path, change, named):
    path = copied / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"preprocess": content["preprocess"] | change}))
    report = check(checkpoint, copied)
    assert not report.passed
    with pytest.raises(ParityError, match=rf"preprocessing: {named}"):
        require(report)


def break_towers(monkeypatch: pytest.MonkeyPatch, exported: Path, damage: Callable[[Path], None]) -> None:
    """The towers are written as they were before, and damaged before they are measured."""

    def write_damaged(judge: Judge, folder: Path, **_: object) -> tuple[dict, dict]:
        del judge
        for name in TOWER_FILES.values():
            shutil.copy(exported / name, folder / name)
        damage(folder)
        return dict(TOWER_FILES), {}

    monkeypatch.setattr(run, "write_towers", write_damaged)


def test_a_failed_gate_publishes_nothing(
    checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    break_towers(monkeypatch, exported, lambda folder: change_initializer(folder / "text.onnx", noisy))
    with pytest.raises(ParityError, match=r"out: .*text tower") as caught:
        export(checkpoint, tmp_path / "out")
    assert caught.value.report is not None
    assert not caught.value.report.passed
    assert list(tmp_path.iterdir()) == []


def test_a_failed_gate_keeps_the_earlier_export(
    checkpoint: Path, exported: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
):
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    break_towers(monkeypatch, exported, lambda folder: (folder / "image.onnx").write_bytes(b"not a graph"))
    with pytest.raises(ParityError, match=r"does not run: image\.onnx"):
        export(checkpoint, copied)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
    assert [path.name for path in copied.parent.iterdir()] == ["copied"]


def test_weights_that_are_not_finite_are_named(tmp_path: Path):
    model, config = small_clip(FASTVIT)
    with torch.no_grad():
        model.text.head.weight[0, 0] = torch.nan
    save(tmp_path / "nan.safetensors", model, config=config, tokenizer=Tokenizer(config.tokenizer))
    with pytest.raises(ParityError, match=r"text\.head\.weight.*diverged"):
        export(tmp_path / "nan.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_overflows_is_told_from_a_bad_export(tmp_path: Path):
    model, config = small_clip(FASTVIT)
    with torch.no_grad():
        model.image.head.weight.fill_(3e38)
    save(tmp_path / "big.safetensors", model, config=config, tokenizer=Tokenizer(config.tokenizer))
    with pytest.raises(ParityError, match="checkpoint's own image tower"):
        export(tmp_path / "big.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_the_extra_the_remedy_is_named(
    package: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*pip install 'pocketclip\[onnx\]'"):
        export(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_somebody_elses_folder_is_left_alone(checkpoint: Path, tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="choose another output folder"):
        export(checkpoint, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_an_unwritable_place_is_named(checkpoint: Path, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="cannot write"):
        export(checkpoint, tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_sizes", ()),
        ("batch_sizes", (0,)),
        ("num_pictures", 3),
        ("opset", 9),
        ("target", "abacus"),
        ("towers", ()),
    ],
)
def test_an_impossible_config_is_refused(field: str, value):
    with pytest.raises(ValueError, match=field):
        ExportConfig(**{field: value})


@pytest.mark.slow
def test_the_full_size_variant_fits_one_file_a_tower(tmp_path: Path):
    torch.manual_seed(0)
    report = export(create("mobileclip2_s0"), tmp_path / "out", config=ExportConfig(num_pictures=7))
    assert report.passed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert (tmp_path / "out" / "text.onnx").stat().st_size > 250_000_000
