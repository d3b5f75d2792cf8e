"""score and filter as commands: what they print, and what they say of mistakes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

Cli = Callable[..., Any]
TEACHERS = Path(__file__).parents[1] / "teachers"


@pytest.fixture
def scores(cli: Cli, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tests.teachers.plain_teachers import SOURCE

    monkeypatch.syspath_prepend(str(TEACHERS))
    ran = cli("score", shapes, tmp_path / "scores", "--teacher", f"even={SOURCE}", "--threads", "1")
    assert ran.code == 0, ran.err
    assert "48 samples" in ran.out
    sys.modules.pop("plain_teachers", None)
    return tmp_path / "scores"


def test_says_what_each_step_dropped(cli: Cli, scores: Path, tmp_path: Path) -> None:
    ran = cli(
        "filter", scores, tmp_path / "kept", "--rule", "words>=3", "--top", "score/even=50%", "--samples", "5"
    )
    assert ran.code == 0, ran.err
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["48", "samples"]
    assert [line[1] for line in lines[1:4]] == ["words>=3", "top", "uniform"]
    assert lines[4][:2] == ["5", "kept"]
    assert (tmp_path / "kept" / "report.html").is_file()


def test_json_says_the_same(cli: Cli, scores: Path, tmp_path: Path) -> None:
    ran = cli("filter", scores, tmp_path / "kept", "--top", "score/even=12", "--output", "ids", "--json")
    values = json.loads(ran.out)
    assert values["num_kept"] == 12
    assert values["steps"][0]["dropped"] == 36


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (("--top", "score/even"), "not of the form COLUMN=15%", 1),
        (("--baseline", "nonsense"), "there is no baseline 'nonsense'", 2),
        (("--baseline", "image_based"), "needs clusters of pictures", 2),
        (("--weights", "1", "2"), "2 weights for 1 pools", 1),
        (("--rule", "words>=99"), "nothing of the 48 samples is kept; words>=99 dropped 48", 1),
    ],
)
def test_mistakes_are_one_sentence(
    cli: Cli, scores: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str, code: int
) -> None:
    ran = cli("filter", scores, tmp_path / "kept", *arguments)
    assert ran.code == code
    assert sentence in ran.sentence()


def test_one_folder_alone_is_not_enough(cli: Cli, tmp_path: Path) -> None:
    ran = cli("filter", tmp_path)
    assert ran.code == 2
    assert "needs a folder of scores and one to make" in ran.sentence()
