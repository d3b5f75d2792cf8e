"""Every target: what is written agrees with the checkpoint, or says why it cannot be told."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.test_run import save_small

from pocketclip.checkpoint import load
from pocketclip.export import (
    ExportConfig,
    Material,
    Pairs,
    ParityError,
    export,
    export_all,
    read_pairs,
    splits_for,
)
from pocketclip.export.agreement import agreement
from pocketclip.export.half import to_half
from pocketclip.export.targets import litert_target
from pocketclip.export.towers import TowerRequest
from pocketclip.runtime import ExportedModel

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("checkpoint") / "small.safetensors")


@pytest.fixture(scope="module")
def material(shapes: Path) -> Material:
    calibrate, judge = splits_for(shapes)
    return Material(
        judged_by=read_pairs(shapes, splits=judge, num=24, seed=0),
        calibrated_on=read_pairs(shapes, splits=calibrate, num=8, seed=1),
        labels=("red circle", "blue square"),
    )


def test_pairs_are_the_same_again_and_no_caption_comes_twice(shapes: Path):
    first, again = (read_pairs(shapes, splits=("train",), num=30, seed=3) for _ in range(2))
    assert first.texts == again.texts
    assert len(set(first.texts)) == len(first) == 30
    assert first.texts != read_pairs(shapes, splits=("train",), num=30, seed=4).texts


def test_onnx_in_half_the_bytes(checkpoint: Path, tmp_path: Path):
    num_bytes = {}
    for precision in ("fp32", "fp16"):
        out = tmp_path / precision
        assert export(checkpoint, out, config=ExportConfig(precision=precision)).passed
        num_bytes[precision] = sum((out / name).stat().st_size for name in ("image.onnx", "text.onnx"))
    assert num_bytes["fp16"] < 0.75 * num_bytes["fp32"]


def test_eight_bit_pixels_go_in_as_they_are(checkpoint: Path, tmp_path: Path):
    assert export(checkpoint, tmp_path / "out", config=ExportConfig(pixels="uint8", towers=("image",))).passed
    model = ExportedModel(tmp_path / "out", backend="onnxruntime")
    assert model.manifest.towers == ("image",)
    pixels_BHWC = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    loaded = load(checkpoint)
    with torch.inference_mode():
        normalised = torch.from_numpy(loaded.config.preprocess.normalise(pixels_BHWC))
        expected = loaded.model.encode_image(normalised, normalize=True).numpy()
    np.testing.assert_allclose(model.embed_pixels(pixels_BHWC), expected, atol=1e-5)
    with pytest.raises(ValueError, match="without its text tower"):
        model.embed_texts(["a"])


@pytest.mark.slow
def test_openvino_in_every_precision(checkpoint: Path, tmp_path: Path, material: Material):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    rows = export_all(
        load(checkpoint),
        tmp_path,
        targets=["openvino"],
        precisions=["fp32", "fp16", "int8", "int8-weights"],
        config=ExportConfig(force=True, max_sensitive=0),
        material=material,
    )
    assert [row.verdict in ("passed", "failed") for row in rows] == [True] * 4
    assert rows[0].verdict == rows[1].verdict == "passed"
    assert rows[0].num_megabytes > rows[1].num_megabytes
    assert rows[2].report.worst("text").mean_cosine > 0.99
    assert all(row.latency_ms["image"] > 0 for row in rows)
    assert len(json.loads((tmp_path / "exports.json").read_text())) == 4
    for row in rows:
        model = ExportedModel(tmp_path / f"openvino-{row.precision}", backend="openvino")
        assert model.manifest.parity["passed"] == row.report.passed
        assert model.embed_texts(["red"]).shape == (1, 24)


def test_int8_with_a_wrong_scale_is_refused_unless_forced(
    checkpoint: Path, tmp_path: Path, material: Material, monkeypatch
):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from pocketclip.export.targets import onnx_target

    def wrong(request: TowerRequest, target: Path) -> list[str]:
        quantize_dynamic(request.plain(), target, weight_type=QuantType.QInt8, per_channel=False)
        model = onnx.load(target)
        scale = next(one for one in model.graph.initializer if one.name.endswith("_scale"))
        raw = onnx.numpy_helper.to_array(scale) * np.float32(3)
        scale.CopyFrom(onnx.numpy_helper.from_array(np.asarray(raw), scale.name))
        onnx.save(model, target)
        return []

    monkeypatch.setattr(onnx_target, "quantise", wrong)
    config = ExportConfig(precision="int8", max_sensitive=0)
    with pytest.raises(ParityError, match=r"the layers that differ most: \w+ [\w.]+/\w+ \(cosine"):
        export(checkpoint, tmp_path / "out", config=config, material=material)
    assert not (tmp_path / "out").exists()
    report = export(checkpoint, tmp_path / "out", config=replace(config, force=True), material=material)
    assert not report.passed
    assert ExportedModel(tmp_path / "out").manifest.parity["passed"] is False
    assert "**FAILED**" in (tmp_path / "out" / "README.md").read_text()


def test_int8_needs_real_pictures(checkpoint: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="--data FOLDER"):
        export(checkpoint, tmp_path / "out", config=ExportConfig(precision="int8"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ExecuTorch about itself
def test_executorch_and_torch_agree(checkpoint: Path, tmp_path: Path, material: Material):
    pytest.importorskip("executorch")
    assert export(
        checkpoint, tmp_path / "x", config=ExportConfig(target="executorch"), material=material
    ).passed
    assert export(checkpoint, tmp_path / "t", config=ExportConfig(target="pt2"), material=material).passed
    assert (tmp_path / "x" / "labels.txt").read_text() == "red circle\nblue square\n"
    with pytest.raises(ValueError, match="exported for executorch"):
        ExportedModel(tmp_path / "x").embed_texts(["a"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of coremltools about itself
@pytest.mark.skipif(sys.platform == "darwin", reason="there Core ML runs")
def test_core_ml_is_checked_by_its_structure(checkpoint: Path, tmp_path: Path):
    pytest.importorskip("coremltools")
    report = export(checkpoint, tmp_path / "out", config=ExportConfig(target="coreml", precision="fp16"))
    assert (report.was_run, report.passed) == (False, False)
    model = ExportedModel(tmp_path / "out")  # hashes hold
    assert model.manifest.parity["was_run"] is False
    weights = next((tmp_path / "out" / "image.mlpackage").rglob("*.bin"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"image\.mlpackage has"):
        ExportedModel(tmp_path / "out")


def test_litert_without_its_python_says_how_to_get_one(checkpoint: Path, tmp_path: Path, monkeypatch):
    monkeypatch.delenv(litert_target.PYTHON, raising=False)
    with pytest.raises(ImportError, match=r"make litert"):
        export(checkpoint, tmp_path / "out", config=ExportConfig(target="litert"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get(litert_target.PYTHON), reason="needs the Python that `make litert` builds"
)
def test_litert_agrees(checkpoint: Path, tmp_path: Path):
    assert export(checkpoint, tmp_path / "out", config=ExportConfig(target="litert")).passed


class Overflowing(torch.nn.Module):
    """Large numbers between two layers, small ones outside."""

    def __init__(self) -> None:
        super().__init__()
        self.calm = torch.nn.Linear(4, 4)
        self.wild = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        with torch.no_grad():
            self.wild[0].weight.fill_(1e5)
            self.wild[1].weight.mul_(1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.wild(self.calm(x))


def test_what_overflows_in_float16_stays_in_float32():
    torch.manual_seed(0)
    module, x = Overflowing().eval(), torch.rand(3, 4)
    with torch.inference_mode():
        expected = module(x)
        half, islands = to_half(module, x)
        found = half(x)
    assert islands == ("wild",)
    assert module.calm.weight.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=5e-3, atol=5e-3)


def test_agreement_is_one_with_itself_and_sees_a_collapse():
    rng = np.random.default_rng(0)
    rows = {tower: rng.normal(size=(40, 8)).astype(np.float32) for tower in ("image", "text")}
    rows = {tower: row / np.linalg.norm(row, axis=1, keepdims=True) for tower, row in rows.items()}
    same = agreement(rows, rows, seed=0)
    assert (same.top1, same.recall10, same.zero_shot) == (1, 1, 1)
    assert same.margin == pytest.approx(1)
    collapsed = {tower: row * 0.01 + row.mean(axis=0) for tower, row in rows.items()}
    assert agreement(collapsed, rows, seed=0).margin < 0.1
    assert agreement({t: r[:5] for t, r in rows.items()}, {t: r[:5] for t, r in rows.items()}, seed=0) is None


def test_pairs_must_pair():
    with pytest.raises(ValueError, match="no pairs"):
        Pairs(texts=("a",))
