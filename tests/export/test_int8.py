"""int8: what is left alone, what tuning and a 4-bit token table do, and what the gate must not let through."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.test_run import FASTVIT, save_small, small_clip
from torch import nn

from pocketclip.checkpoint import load, save
from pocketclip.data.tokenize import Tokenizer
from pocketclip.export import ExportConfig, Material, ParityError, export, read_pairs, splits_for
from pocketclip.export.towers import TowerRequest, build_tower, is_delicate
from pocketclip.export.tune import tune
from pocketclip.runtime import ExportedModel
from pocketclip.runtime.probes import read_probes, worst_cosine

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("checkpoint") / "small.safetensors")


@pytest.fixture(scope="module")
def material(shapes: Path) -> Material:
    calibrate, judge = splits_for(shapes)
    return Material(
        judged_by=read_pairs(shapes, splits=judge, num=24, seed=0),
        calibrated_on=read_pairs(shapes, splits=calibrate, num=16, seed=1),
    )


def with_loud_channels(folder: Path) -> Path:
    """One channel of some depthwise convolutions is 3,000 times as large as the others, and what follows takes it back.

    Trained networks have such channels. One scale for a whole layer leaves nothing of the others.
    """
    model, config = small_clip(FASTVIT)
    with torch.no_grad():
        for name, module in model.image.named_modules():
            if name.endswith("ffn.branch"):
                module.up.weight *= 10  # at their start these branches say next to nothing
                module.down.weight *= 10
                module.conv.norm.weight[3] *= 3000
                module.conv.norm.bias[3] *= 3000
                module.up.weight[:, 3] /= 3000
    path = folder / "loud.safetensors"
    save(path, model, config=config, tokenizer=Tokenizer(config.tokenizer))
    return path


def test_dynamic_int8_over_everything_is_refused_and_a_layer_is_named(
    tmp_path: Path, material: Material, monkeypatch
):
    from onnxruntime.quantization import quantize_dynamic

    from pocketclip.export.targets import onnx_target

    def everything(request: TowerRequest, target: Path) -> list[str]:
        quantize_dynamic(str(request.plain()), str(target))
        return []

    monkeypatch.setattr(onnx_target, "quantise", everything)
    loud = with_loud_channels(tmp_path)
    culprit = r"the layers that differ most: .*image stages\.\d\.blocks\.0\.ffn\.branch\.\w+/\w+ \(cosine"
    with pytest.raises(ParityError, match=culprit):
        export(
            loud, tmp_path / "out", config=ExportConfig(precision="int8", max_sensitive=0), material=material
        )
    assert not (tmp_path / "out").exists()


def test_probes_carry_what_the_export_gives_not_what_the_checkpoint_gave(
    checkpoint: Path, tmp_path: Path, material: Material
):
    config = ExportConfig(precision="int8", force=True, max_sensitive=0)
    export(checkpoint, tmp_path, config=config, material=material)
    model = ExportedModel(tmp_path, backend="onnxruntime")
    carried = read_probes(tmp_path / "probes.safetensors")["image"]
    assert worst_cosine(model.embed_pixels(carried.inputs), carried.embed_PD) > 0.999999
    loaded = load(checkpoint)
    pixels_PCHW = torch.from_numpy(loaded.config.preprocess.normalise(carried.inputs))
    with torch.inference_mode():
        original_PD = loaded.model.encode_image(pixels_PCHW, normalize=True).numpy()
    assert worst_cosine(original_PD, carried.embed_PD) < 0.999999


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_four_bit_token_table_is_smaller_and_agrees(
    checkpoint: Path, tmp_path: Path, material: Material, target
):
    if target == "openvino":
        pytest.importorskip("nncf")
    base = ExportConfig(target=target, towers=("text",), precision="fp32", force=True)
    sizes = {}
    for table in ("same", "int4"):
        report = export(checkpoint, tmp_path / table, config=replace(base, table=table), material=material)
        sizes[table] = sum(path.stat().st_size for path in (tmp_path / table).glob("text.*"))
    text = load(checkpoint).config.model.text
    table_bytes = 4 * text.vocab_size * text.width
    assert sizes["same"] - sizes["int4"] > 0.75 * table_bytes
    assert report.worst("text").mean_cosine > 0.99


def test_a_target_without_four_bit_tables_keeps_its_own():
    assert not ExportConfig(target="coreml", table="int4").has_small_table
    assert not ExportConfig(target="onnx", precision="fp16", table="int4").has_small_table
    assert ExportConfig(target="onnx", table="int4").has_small_table
    assert ExportConfig(target="onnx", precision="fp32", tuning_steps=9).tunes == 0


def rounded_once(tower: nn.Module, inputs: np.ndarray) -> torch.Tensor:
    """The tower with its weights rounded to int8, channel by channel."""
    tower = copy.deepcopy(tower)
    with torch.no_grad():
        for name, module in tower.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and not is_delicate(name, module):
                scale = module.weight.flatten(1).abs().amax(dim=1) / 127
                scale = scale.view(-1, *[1] * (module.weight.dim() - 1)).clamp(min=1e-8)
                module.weight.copy_((module.weight / scale).round() * scale)
        return tower(torch.from_numpy(inputs))


def test_tuned_weights_bear_rounding_better_and_the_tower_is_left_alone(checkpoint: Path, material: Material):
    loaded = load(checkpoint)
    tower, _ = build_tower(loaded, "image")
    pictures = [loaded.config.preprocess.pixels(image) for image in material.calibrated_on.images]
    inputs = loaded.config.preprocess.normalise(np.stack(pictures))
    before = copy.deepcopy(tower.state_dict())
    with torch.no_grad():
        target_BD = tower(torch.from_numpy(inputs))
    tuned = tune(tower, inputs, steps=40, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())
    assert tuned.state_dict().keys() == before.keys()

    def error(of: nn.Module) -> float:
        return float((1 - (rounded_once(of, inputs) * target_BD).sum(dim=1)).mean())

    assert error(tuned) < 0.8 * error(tower)


def test_tuning_needs_real_pictures(checkpoint: Path):
    tower, _ = build_tower(load(checkpoint), "image")
    with pytest.raises(ValueError, match="--data FOLDER"):
        tune(tower, np.empty((0, 3, 32, 32), dtype=np.float32), steps=1, seed=0)


def test_tuned_int8_passes_through_the_gate_as_any_other(
    checkpoint: Path, tmp_path: Path, material: Material
):
    config = ExportConfig(precision="int8", tuning_steps=3, force=True, max_sensitive=0, batch_sizes=(1,))
    report = export(checkpoint, tmp_path, config=config, material=material)
    assert report.worst("image").mean_cosine > 0.9
