"""The ablations: every variant changes one thing, and what shards are to say is taken out of them unharmed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import numpy as np
import pytest

pytest.importorskip("torch")

from pocketclip.checkpoint import unstructure
from pocketclip.data.index import split_shards
from pocketclip.data.reinforced import embeddings_of, reinforcement_of
from pocketclip.data.shard import ShardReader
from pocketclip.recipes import ablation, emoji
from pocketclip.recipes.registry import recipe
from pocketclip.train import TrainConfig, train

Golden = Callable[[str, str], None]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/ablation.py."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("ablation")


@pytest.fixture
def report(runner: ModuleType) -> ModuleType:
    """benchmarks/ablation_report.py."""
    return importlib.import_module("ablation_report")


def changed(one: object, other: object, *, at: str = "") -> set[str]:
    """Paths of the fields in which two resolved recipes differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return set().union(*(changed(one[key], other[key], at=f"{at}.{key}") for key in one))
    return set() if one == other else {at.removeprefix(".")}


@pytest.mark.parametrize(
    ("variant", "fields"),
    [
        ("plain", {"objective.distill_weight", "stream.replay"}),
        ("lambda_half", {"objective.distill_weight"}),
        ("lambda_one", {"objective.distill_weight"}),
        ("synthetic", {"objective.caption_weight", "objective.synthetic_weight", "stream.synthetic"}),
        ("both", {"objective.synthetic_weight", "stream.synthetic"}),
    ],
)
def test_a_variant_changes_one_thing(variant: str, fields: set[str]) -> None:
    reference, other = recipe("ablation.reinforced"), recipe(f"ablation.{variant}")
    assert changed(unstructure(reference), unstructure(other)) == fields | {"name"}


def test_a_seed_draws_everything_anew() -> None:
    assert changed(unstructure(ablation.both()), unstructure(ablation.both(seed=3))) == {
        "seed",
        "stream.seed",
    }


def test_a_shortened_run_is_complete() -> None:
    whole = ablation.plain()
    short = ablation.shortened(whole, num_steps=whole.loop.num_steps // 5)
    assert changed(unstructure(whole), unstructure(short)) == {"loop.num_steps", "optim.warmup_steps"}
    shares = [run.optim.warmup_steps / run.loop.num_steps for run in (whole, short)]
    assert shares[0] == shares[1]


def test_the_reinforcement_is_the_demos_with_more_views(golden: Golden) -> None:
    teachers = {"conv": Path("conv.safetensors"), "vit": Path("vit.safetensors")}
    config = ablation.reinforcement(teachers)
    assert config == replace(emoji.reinforcement(teachers), num_views=30)
    text = json.dumps(unstructure(config), indent=1, sort_keys=True, default=str) + "\n"
    golden("recipes/ablation.reinforcement.json", text)


def test_every_row_of_every_table_has_its_student(runner: ModuleType) -> None:
    keys = {key for table in runner.TABLES.values() for key in table.rows.values()}
    assert keys == set(runner.STUDENTS)
    for student in runner.STUDENTS.values():
        config = student.recipe(seed=2)
        assert isinstance(config, TrainConfig)
        assert config.seed == 2


def test_runs_come_once_and_the_first_seed_of_all_comes_first(runner: ModuleType) -> None:
    order = list(runner.in_order(runner.TABLES, seeds=(4, 1)))
    assert len(order) == len(set(order)) == 2 * len(runner.STUDENTS)
    assert [seed for _, seed in order] == [4] * len(runner.STUDENTS) + [1] * len(runner.STUDENTS)


@pytest.mark.slow
def test_what_is_taken_out_is_as_it_was(runner: ModuleType, reinforced: Path, tmp_path: Path) -> None:
    with ShardReader(split_shards(reinforced, "train")[0]) as shard:
        whole = reinforcement_of(shard)
    name = whole.header.teachers[-1].name
    choice = runner.Choice(teachers=(name,), scale=2.0, num_views=2, num_shards=1)
    runner.take_out(reinforced, tmp_path / "part", choice=choice)
    (path,) = split_shards(tmp_path / "part", "train")
    with ShardReader(path) as shard:
        part = reinforcement_of(shard)
    (record,) = part.header.teachers
    assert record == replace(
        whole.header.teachers[-1], logit_scale=2.0 * whole.header.teachers[-1].logit_scale
    )
    assert np.array_equal(part.augment_params_NAP, whole.augment_params_NAP[:, :2])
    rows = np.arange(len(part))
    before, after = embeddings_of(whole, rows)[-1], embeddings_of(part, rows)[0]
    assert np.array_equal(after.image_NAD, before.image_NAD[:, :2])
    assert np.array_equal(after.text_TD, before.text_TD)
    assert part.header.config_digest != whole.header.config_digest
    assert train(recipe("ablation.debug_reinforced"), data=tmp_path / "part", out=tmp_path / "run").is_file()


def test_a_claim_is_let_go_of(runner: ModuleType, tmp_path: Path) -> None:
    with runner.claim(tmp_path / "run") as mine, runner.claim(tmp_path / "run") as also_mine:
        assert (mine, also_mine) == (True, False)
    with runner.claim(tmp_path / "run") as mine:
        assert mine


@pytest.fixture
def results(report: ModuleType) -> dict[tuple[str, int], object]:
    """Two seeds of a reinforced student that is at 2% where the plain one is at 1%, whatever the samples."""

    def result(key: str, seed: int, share: float, height: float) -> object:
        score = {"mean_recall@1": height * share + 0.1 * seed, "mean_recall@5": 50.0}
        return report.RunResult(
            key=key,
            seed=seed,
            num_steps=10,
            num_samples=round(1000 * share),
            cpu_s=1.0,
            scores=dict.fromkeys(report.SPLITS, score),
        )

    found = {}
    for kind, height in zip(report.KINDS, (10.0, 20.0), strict=True):
        for key, share in {**{f"{kind}-{s}": s for s in report.SHARES}, kind: 1.0}.items():
            found |= {(key, seed): result(key, seed, share, height) for seed in (0, 1)}
    return found


def test_results_are_kept_and_read(runner: ModuleType, results: dict, tmp_path: Path) -> None:
    for result in results.values():
        runner.keep(tmp_path, result)
    assert runner.read_results(tmp_path) == results


def test_a_table_says_how_far_rows_are_from_the_first(report: ModuleType, results: dict) -> None:
    table = report.Table(title="Kinds", rows={"no teacher": "plain", "teachers": "reinforced", "none": "x"})
    lines = report.markdown(table, results).splitlines()
    assert len(lines) == 6  # a row without a result is left out
    assert report.markdown(replace(table, rows={"no teacher": "plain", "none": "x"}), results) == ""
    assert lines[4].startswith("| no teacher | 2 | 10.1 ± 0.1 |")
    assert "| +10.0 ± 0.0 | 2 of 2 |" in lines[5]
    assert lines[5].endswith("| 100 |")  # milliseconds a step


def test_the_samples_to_the_same_recall_are_found(report: ModuleType, results: dict) -> None:
    assert "Plain ends at 10.1 after 1,000 samples" in report.reached(results)
    assert "with 2.0 times fewer" in report.reached(results)
    assert report.reached({}) == ""
    assert report.crossing([(10.0, 4.0), (20.0, 8.0)], 6.0) == 15.0
    assert report.crossing([(10.0, 4.0)], 5.0) is None


def test_the_figures_are_drawn(runner: ModuleType, report: ModuleType, results: dict) -> None:
    for text in (report.draw_samples(results), report.draw_tables(runner.TABLES, results)):
        drawing = ET.fromstring(text)
        assert drawing.get("viewBox")
    assert "recall@1" in report.draw_samples(results)
    assert report.draw_samples({}) == ""


def test_the_lines_of_results_are_json(runner: ModuleType, results: dict, tmp_path: Path) -> None:
    runner.keep(tmp_path, results["plain", 0])
    (line,) = (tmp_path / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == "plain"
