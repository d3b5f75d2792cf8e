"""Curves: what was recorded is drawn, whatever is missing, short, damaged at its end or not finite."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("torch")

from tests.conftest import RunCli

from pocketclip.recipes.plot import arranged, plot, read_run, summary

NAMESPACE = "{http://www.w3.org/2000/svg}"


def write_run(folder: Path, records: list[dict[str, float]], *, cut: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(lines + cut)
    return folder


def losses(num: int, *, level: float = 1.0) -> list[dict[str, float]]:
    return [
        {"step": 10 * n, "loss": level + 2 / n, "clip/caption": level, "lr": 1e-3 / n, "samples_per_s": 500.0}
        for n in range(1, num + 1)
    ]


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    judged = [{"step": 200, "validation/mean_recall@1": 0.25}, {"step": 400, "validation/mean_recall@1": 0.2}]
    nan = [{"step": 15, "loss": math.nan}, {"step": 16, "loss": math.inf}]
    return {
        "long": write_run(tmp_path / "long", losses(60) + judged),
        "short <&>": write_run(tmp_path / "short", losses(1)),
        "nan": write_run(tmp_path / "nan", nan + losses(5, level=2.0), cut='{"step": 60, "lo'),
        "empty": write_run(tmp_path / "empty", []),
    }


@pytest.mark.parametrize("suffix", [".svg", ".html", ".png"])
def test_every_kind_of_file_is_drawn(runs: dict[str, Path], suffix: str, tmp_path: Path) -> None:
    if suffix == ".png":
        pytest.importorskip("resvg_py")
    out = tmp_path / f"curves{suffix}"
    plot(runs, out)
    data = out.read_bytes()
    assert data.startswith(
        {".svg": b"<svg", ".html": b"<!doctype html>", ".png": b"\x89PNG\r\n\x1a\n"}[suffix]
    )
    first = out.read_bytes()
    plot(runs, out)
    assert out.read_bytes() == first
    if suffix == ".svg":
        drawing = ET.fromstring(first)
        assert {text.text for text in drawing.iter(f"{NAMESPACE}text")} >= {
            "Loss",
            "Evaluation",
            "short <&>",
            "25.0%",
        }
        assert "nan" not in "".join(line.get("points", "") for line in drawing.iter(f"{NAMESPACE}polyline"))
    if suffix == ".html":
        assert b"default-src 'none'" in data
        assert b"<script" not in data


def test_a_metric_is_a_panel_with_a_line_for_each_run(runs: dict[str, Path]) -> None:
    read = [read_run(name, path) for name, path in runs.items()]
    panels = {panel.title: panel for panel in arranged(read)}
    assert [panel.group for panel in arranged(read)] == [
        *("Loss", "Loss", "Evaluation", "Optimisation", "Speed and memory")
    ]
    assert [len(line.points) for line in panels["loss"].lines] == [60, 1, 5, 0]
    assert panels["loss"].lines[0].raw  # smoothed, because it is long
    assert panels["validation/mean_recall@1"].lines[0].points == [(200, 25.0), (400, 20.0)]
    assert panels["validation/mean_recall@1"].unit == "%"
    assert len({line.tone for line in panels["loss"].lines}) == 4


def test_the_table_tells_the_end_the_best_and_what_is_not_finite(runs: dict[str, Path]) -> None:
    rows = {row.name: row.cells for row in summary(read_run(name, path) for name, path in runs.items())}
    assert rows["long"]["steps"] == "600"
    assert rows["long"]["best validation/mean_recall@1"] == "25.0%"
    assert float(rows["long"]["loss at the end"]) == pytest.approx(1.034, abs=0.001)
    assert rows["nan"]["not finite"] == "2"
    assert rows["empty"]["loss at the end"] == ""
    assert len({tuple(cells) for cells in rows.values()}) == 1


def test_a_smoothed_line_does_not_end_in_noise(tmp_path: Path) -> None:
    records = [{"step": n, "loss": 1.0} for n in range(1, 100)] + [{"step": 100, "loss": 9.0}]
    (panel,) = arranged([read_run("a", write_run(tmp_path / "a", records))])
    (line,) = panel.lines
    assert line.points[-1][1] < 4.0
    assert line.raw[-1] == (100, 9.0)


def test_steps_without_a_skip_have_no_panel(tmp_path: Path) -> None:
    records = [{"step": 1, "loss": 1.0, "skipped_steps": 0}]
    assert [p.title for p in arranged([read_run("a", write_run(tmp_path / "a", records))])] == ["loss"]
    records[0]["skipped_steps"] = 1
    titles = [p.title for p in arranged([read_run("a", write_run(tmp_path / "a", records))])]
    assert titles == ["loss", "skipped_steps"]


def test_what_cannot_be_drawn_is_told(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"curves.pdf ends in none of \.svg, \.png, \.html"):
        plot(runs, tmp_path / "curves.pdf")
    with pytest.raises(FileNotFoundError, match=r"none has no metrics\.jsonl: give the folder of a run"):
        plot({"a": tmp_path / "none"}, tmp_path / "c.svg")
    with pytest.raises(ValueError, match="nothing is recorded yet in .*empty"):
        plot({"a": runs["empty"]}, tmp_path / "c.svg")
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ImportError, match=r"pip install 'pocketclip\[demo\]', or draw a \.svg"):
        plot(runs, tmp_path / "c.png")


class TestCommand:
    def test_it_draws_and_prints_the_table(self, cli: RunCli, runs: dict[str, Path], tmp_path: Path) -> None:
        ran = cli("plot", runs["long"], f"mine={runs['nan']}", "--out", tmp_path / "c.html")
        assert ran.code == 0, ran.err
        head, first, second, *_ = ran.out.splitlines()
        assert head.split()[:2] == ["run", "steps"]
        assert (first.split()[0], second.split()[0]) == ("long", "mine")
        values = json.loads(cli("plot", runs["long"], "--out", tmp_path / "c.svg", "--json").out)
        assert values["runs"]["long"]["steps"] == 600

    def test_folders_of_one_name_are_told_apart(self, cli: RunCli, tmp_path: Path) -> None:
        for parent in ("a", "b"):
            write_run(tmp_path / parent / "run", losses(3))
        ran = cli("plot", tmp_path / "a" / "run", tmp_path / "b" / "run", "--out", tmp_path / "c.svg")
        assert [line.split()[0] for line in ran.out.splitlines()[1:3]] == ["a/run", "b/run"]
        twice = cli("plot", tmp_path / "a", tmp_path / "a", "--out", tmp_path / "c.svg")
        assert (twice.code, "two runs are called" in twice.sentence()) == (2, True)

    def test_no_run_is_wrong_usage(self, cli: RunCli, tmp_path: Path) -> None:
        assert cli("plot", "--out", tmp_path / "c.svg").code == 2
