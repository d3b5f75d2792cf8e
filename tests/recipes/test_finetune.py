"""Fine-tuning in one command: better on one's own pictures, what it cost is told, and nothing is done twice."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import PackShapes, RunCli, shape_samples

from pocketclip.checkpoint import create, load, save
from pocketclip.data.augment import AugmentSpec
from pocketclip.data.stream import StreamConfig
from pocketclip.evaluate import Report
from pocketclip.fit import LoopConfig, OptimConfig, read_journal
from pocketclip.recipes.finetune import FOREIGN_LR, FinetuneConfig, finetune, finetune_run
from pocketclip.teachers import TeacherSpec
from pocketclip.train import TrainConfig, train

torch.set_num_threads(1)
QUICK = FinetuneConfig(epochs=2, batch_size=16, num_views=1, shares=(0.0, 0.5, 1.0), lr_peak=1e-3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people have them: 40 pictures with a caption beside each."""
    folder = tmp_path_factory.mktemp("photos")
    for number, sample in enumerate(shape_samples(40)):
        (folder / f"{number:03d}.png").write_bytes(sample.image)
        (folder / f"{number:03d}.txt").write_text(sample.captions[0])
    return folder


@pytest.fixture(scope="module")
def done(photos: Path, shapes: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick fine-tuning. Do not change its folder."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    finetune(
        photos, start=str(tiny_checkpoint), out=out, config=QUICK, general=shapes, announce=lambda _: None
    )
    return out


def snapshot(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


def test_it_leaves_a_model_and_a_report(done: Path, tiny_checkpoint: Path) -> None:
    kept = load(done / "checkpoint.safetensors")
    assert kept.config.run["start_digest"] == load(tiny_checkpoint).digest
    assert kept.config.run["interpolated"]["share"] in QUICK.shares
    own, general = Report.read(done / "results.json"), Report.read(done / "general.json")
    assert list(own.models) == list(general.models) == ["before", "end of training", "after"]
    text = (done / "report.md").read_text()
    assert re.search(r"- On your pictures \(validation\): mean recall@1 [\d.]+% before, [\d.]+% after", text)
    assert "- On the general set (validation): mean recall@1" in text
    assert "a little flattered" in text
    assert (done / "curves.svg").read_text().startswith("<svg")


def test_the_kept_point_is_the_best_on_validation_and_the_nearest_to_the_start(done: Path) -> None:
    record = json.loads((done / "shares.json").read_text())
    scores = {float(share): score for share, score in record["scores"].items()}
    best = max(scores.values())
    assert record["share"] == min(share for share, score in scores.items() if score == best)
    report = Report.read(done / "results.json")
    after = report.result("after", "validation").scores["mean_recall@1"].value
    assert after == pytest.approx(best)
    assert after >= report.result("before", "validation").scores["mean_recall@1"].value


def test_run_again_it_does_nothing_twice(
    done: Path, photos: Path, shapes: Path, tiny_checkpoint: Path
) -> None:
    before = snapshot(done)
    finetune(
        photos, start=str(tiny_checkpoint), out=done, config=QUICK, general=shapes, announce=lambda _: None
    )
    changed = {path.name for path, found in snapshot(done).items() if found[0] != before[path][0]}
    assert changed <= {"report.md", "curves.svg"}  # these are drawn anew, the same
    assert {path: found[1] for path, found in snapshot(done).items()} == {
        path: found[1] for path, found in before.items()
    }


def test_other_settings_or_another_start_are_refused(
    done: Path, photos: Path, teachers: dict[str, Path], tiny_checkpoint: Path
) -> None:
    with pytest.raises(ValueError, match="holds a fine-tuning with other settings"):
        finetune(photos, start=str(tiny_checkpoint), out=done, config=replace(QUICK, seed=1))
    with pytest.raises(ValueError, match="or from another checkpoint"):
        finetune(photos, start=str(teachers["vit"]), out=done, config=QUICK)


@pytest.mark.slow
def test_it_is_better_on_ones_own_pictures(shapes: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    still = AugmentSpec(scale=(0.8, 1.0), num_ops=0)
    config = replace(QUICK, epochs=15, distill_weight=0.1, lr_peak=2e-3, patience=0, augment=still)
    result = finetune(
        shapes, start=str(tiny_checkpoint), out=tmp_path, config=config, announce=lambda _: None
    )
    assert result.tuned.share > 0.0
    own = result.tuned.values()["own"]["validation"]
    assert own["after"] > own["before"] + 0.2
    assert "points (95% interval +" in result.tuned.text()
    assert ": gained." in result.tuned.text()


def test_without_distillation_there_is_no_teacher(
    shapes: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = replace(QUICK, distill_weight=0.0, freeze="image", epochs=1)
    result = finetune(
        shapes, start=str(tiny_checkpoint), out=tmp_path, config=config, announce=lambda _: None
    )
    assert not (tmp_path / "reinforced").exists()
    assert not (tmp_path / "data").exists()  # it was packed already
    assert not any(name.startswith("distill") for name in read_journal(tmp_path / "run" / "metrics.jsonl")[0])
    before, after = (load(path).model.image.state_dict() for path in (tiny_checkpoint, result.checkpoint))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_test_splits_are_what_before_and_after_are_compared_on(
    pack_shapes: PackShapes, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    data = pack_shapes(tmp_path / "data", train=20, validation=8, test_own=8)
    config = replace(QUICK, distill_weight=0.0, epochs=1)
    result = finetune(
        data, start=str(tiny_checkpoint), out=tmp_path / "out", config=config, announce=lambda _: None
    )
    assert list(result.tuned.own.splits) == ["test-own"]
    assert "flattered" not in result.tuned.text()


def test_too_few_pictures_are_told(pack_shapes: PackShapes, tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = pack_shapes(tmp_path / "data", train=8, validation=1)
    with pytest.raises(ValueError, match="8 pictures to train on and 1 for validation: both need at least 2"):
        finetune(data, start=str(tiny_checkpoint), out=tmp_path / "out", config=QUICK)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"shares": ()}, "shares must be"),
        ({"shares": (0.5, 2.0)}, "shares must be"),
        ({"teachers": (TeacherSpec(name="start", source="a"),)}, "'start' is the starting checkpoint's name"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**fields)


class TestLearningRate:
    def peak(self, history: dict[str, object], **fields: object) -> float:
        config = FinetuneConfig(batch_size=64, **fields)
        return finetune_run("a", config=config, num_samples=640, history=history).optim.lr_peak

    def test_it_is_half_of_the_checkpoints_own_scaled_to_the_batch(
        self, shapes: Path, tmp_path: Path
    ) -> None:
        run = TrainConfig(
            name="test",
            variant="pocketclip_tiny",
            stream=StreamConfig(batch_size=16),
            optim=OptimConfig(lr_peak=2e-3, warmup_steps=0),
            loop=LoopConfig(num_steps=1),
        )
        history = load(train(run, data=shapes, out=tmp_path)).config.run
        assert self.peak(dict(history)) == pytest.approx(0.5 * 2e-3 * 2.0)
        large = {
            "config": {"optim": {"lr_peak": 1e-3}, "global_batch": 65_536, "stream": {"batch_size": 512}}
        }
        assert self.peak(large) == pytest.approx(0.5 * 1e-3 / 32)

    def test_of_a_foreign_checkpoint_it_is_small(self) -> None:
        assert self.peak({"converted": {"file": "a.pt"}}) == FOREIGN_LR
        assert self.peak({}, lr_peak=0.1) == 0.1


def test_the_command(
    cli: RunCli, done: Path, photos: Path, tiny_checkpoint: Path, shapes: Path, tmp_path: Path
) -> None:
    made = create("pocketclip_tiny")
    save(tmp_path / "other.safetensors", made.model, config=made.config, tokenizer=made.tokenizer)
    # fmt: off
    arguments = [
        "finetune", "--data", photos, "--from", tiny_checkpoint, "--out", tmp_path / "out", "--epochs", "1",
        "--views", "1", "--batch-size", "16", "--teacher", f"other={tmp_path / 'other.safetensors'}@20",
    ]
    # fmt: on
    ran = cli(*arguments, "--general", shapes)
    assert ran.code == 0, ran.err
    assert "the general set, not trained on" in ran.out
    assert f"checkpoint: {tmp_path / 'out' / 'checkpoint.safetensors'}" in ran.out
    again = json.loads(cli(*arguments, "--general", shapes, "--json").out)
    assert set(again["general"]["validation"]) == {"before", "end of training", "after"}
    index = json.loads((tmp_path / "out" / "reinforced" / "index.json").read_text())
    assert [teacher["name"] for teacher in index["config"]["teachers"]] == ["start", "other"]
