"""`pocketclip evaluate --tasks`: what is printed, kept and told, and the exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.mirrors import shapes_set

from pocketclip.evaluate.rows import read_rows

Cli = Callable[..., Any]


@pytest.fixture
def demo(tmp_path: Path, packed: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a demo leaves: emoji (here coloured cards) and a student."""
    shutil.copytree(packed, tmp_path / "demo/emoji")
    (tmp_path / "demo/student").mkdir()
    shutil.copy(tiny_checkpoint, tmp_path / "demo/student/checkpoint.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "demo/student/checkpoint.safetensors"


def test_a_set_that_is_missing_is_told_and_the_others_are_kept(cli: Cli, demo: Path) -> None:
    ran = cli("evaluate", demo, "--tasks", "emoji,cifar10")
    assert ran.code == 0, ran.err
    assert "emoji/test-style  mean_recall@1" in ran.out
    assert "missing: 1 set, in no average" in ran.out
    assert "hf download djghosh/wds_cifar10_test" in ran.out
    assert "mean of" not in ran.out
    assert [row.key for row in read_rows(Path("results/student.jsonl"))] == ["emoji/test-style"]


def test_strict_makes_it_an_error_and_still_keeps_what_was_computed(cli: Cli, demo: Path) -> None:
    ran = cli("evaluate", demo, "--tasks", "emoji,cifar10", "--strict", "--out", "r.jsonl")
    assert ran.code == 1
    assert "cifar10 (CIFAR-10): it is not in evalsets" in ran.out
    assert [row.key for row in read_rows(Path("r.jsonl"))] == ["emoji/test-style"]


def test_the_same_command_goes_on_when_the_set_is_there(cli: Cli, demo: Path) -> None:
    cli("evaluate", demo, "--tasks", "emoji,cifar10", "--out", "r.jsonl")
    shapes_set(Path("evalsets/wds_cifar10_test"), count=8)
    ran = cli("evaluate", demo, "--tasks", "emoji,cifar10", "--out", "r.jsonl", "--strict")
    assert ran.code == 0, ran.out
    assert "1 of these were there already: emoji/test-style" in ran.out
    assert "mean of 1 of the 38 sets" in ran.out


def test_nothing_to_measure_is_an_error(cli: Cli, demo: Path) -> None:
    ran = cli("evaluate", demo, "--tasks", "cifar10,pets")
    assert ran.code == 1
    assert "missing: 2 sets" in ran.out


def test_json(cli: Cli, demo: Path) -> None:
    ran = cli("evaluate", demo, "--tasks", "emoji,cifar10", "--json")
    found = json.loads(ran.out)
    assert [row["key"] for row in found["results"]["student"]] == ["emoji/test-style"]
    assert found["missing"][0]["key"] == "cifar10"


def test_several_models_have_a_column_and_a_file_each(cli: Cli, demo: Path) -> None:
    ran = cli("evaluate", f"a={demo}", f"b={demo}", "--tasks", "emoji", "--out", "out")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0].split() == ["set", "main", "metric", "a", "b"]
    assert sorted(path.name for path in Path("out").glob("*.jsonl")) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("m.safetensors",), ("--tasks", "--data")),
        (("m.safetensors", "--tasks", "emoji", "--data", "d"), ("one of the two",)),
        (("a=m", "b=m", "--tasks", "emoji", "--out", "r.jsonl"), ("2 models", "folder")),
        (("=m", "--tasks", "emoji"), ("NAME=CHECKPOINT",)),
    ],
)
def test_usage(cli: Cli, arguments: tuple[str, ...], words: tuple[str, ...], demo: Path) -> None:
    ran = cli("evaluate", *arguments)
    assert ran.code == 2
    assert all(word in ran.err for word in words), ran.err


def test_the_list_says_what_is_there(cli: Cli, tmp_path: Path) -> None:
    shapes_set(tmp_path / "wds_cifar10_test", count=4)
    ran = cli("evaluate", "--list-tasks", "--data-root", tmp_path)
    assert ran.code == 0
    lines = {line.split()[0]: line.split()[-1] for line in ran.out.splitlines() if line}
    assert (lines["cifar10"], lines["stl10"]) == ("webdataset", "missing")
    assert "datacomp (40)" in ran.out
