"""Models side by side: differences are paired, counts add up, published models take part by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from pocketclip.evaluate.book import queries_path
from pocketclip.evaluate.compare import compare
from pocketclip.evaluate.published import published_results
from pocketclip.evaluate.resample import write_queries
from pocketclip.evaluate.rows import Row, write_rows

Cli = Callable[..., Any]


def row(key: str, value: float | None) -> Row:
    return Row(key=key, dataset=key, metrics={"acc1": value, "main_metric": value})


def results(folder: Path, name: str, **values: float | None) -> Path:
    path = folder / name / "results.jsonl"
    path.parent.mkdir()
    write_rows(path, [row(key, value) for key, value in values.items()])
    return path


def test_published_models_by_name() -> None:
    found = compare({"old": "mobileclip_s0", "new": "MobileCLIP2-S0"})
    (difference,) = found.differences
    assert difference.num_sets == 38
    assert difference.wins + difference.losses + difference.ties == 38
    assert difference.over_sets is not None
    assert 100 * difference.over_sets.value == pytest.approx(59.673 - 58.117, abs=2e-3)
    assert difference.over_sets.low < difference.over_sets.value < difference.over_sets.high
    table = found.table()
    assert "old: average of 38 58.12" in table
    assert f"{difference.wins} won" in table


def test_the_other_way_round_everything_changes_its_sign() -> None:
    one = compare({"a": "MobileCLIP-S0", "b": "MobileCLIP2-S0"}).differences[0]
    other = compare({"a": "MobileCLIP-S0", "b": "MobileCLIP2-S0"}, baseline="b").differences[0]
    assert (one.wins, one.losses) == (other.losses, other.wins)
    assert one.over_sets is not None
    assert other.over_sets is not None
    assert other.over_sets.value == pytest.approx(-one.over_sets.value)
    assert (other.over_sets.low, other.over_sets.high) == pytest.approx(
        (-one.over_sets.high, -one.over_sets.low), abs=1e-6
    )


def test_against_itself_there_is_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write_rows(path, published_results()["MobileCLIP2-S2"])
    (difference,) = compare({"mine": tmp_path, "published": "MobileCLIP2-S2"}).differences
    assert (difference.wins, difference.losses, difference.ties) == (0, 0, 38)
    assert difference.over_sets is not None
    assert (difference.over_sets.low, difference.over_sets.high) == (0.0, 0.0)


def test_sets_that_one_lacks_are_shown_and_not_counted(tmp_path: Path) -> None:
    first = results(tmp_path, "first", emoji=0.5, cards=0.25, faces=None)
    second = results(tmp_path, "second", emoji=0.75, stamps=1.0, faces=0.5)
    found = compare({"first": first, "second": second})
    (difference,) = found.differences
    assert (difference.num_sets, difference.wins) == (1, 1)
    lines = {line.split()[0]: line.split() for line in found.table().splitlines() if line}
    assert lines["emoji"] == ["emoji", "50.0", "75.0", "+25.0"]
    assert lines["cards"] == ["cards", "25.0", "-", "-"]
    assert lines["stamps"] == ["stamps", "-", "100.0", "-"]
    assert "none of the 38 sets" in found.table()


def test_queries_give_an_interval_for_each_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 10, 400)
    better = np.where(rng.random(400) < 0.9, label, (label + 1) % 10)
    worse = np.where(rng.random(400) < 0.5, label, (label + 1) % 10)
    paths: dict[str, Path | str] = {}
    for name, top in (("worse", worse), ("better", better), ("others", better[:300])):
        path = results(tmp_path, name, cifar10=float((top == label[: len(top)]).mean()))
        paths[name] = path
        queries = {"label": label[: len(top)], "top": np.stack([top, (top + 1) % 10], axis=1)}
        write_queries(queries_path(path, "cifar10"), queries)
    found = compare(paths, resamples=200)
    better_one, other_one = found.differences
    interval = better_one.of_set["cifar10"]
    assert interval.value == pytest.approx((better == label).mean() - (worse == label).mean())
    assert 0.2 < interval.low < interval.value < interval.high < 0.6
    assert other_one.of_set == {}  # other pictures
    assert "]*" in found.table()


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({}, "nothing to compare"),
        ({"a": "SigLIP-B/16"}, "set by set are not published"),
    ],
)
def test_refusals(models: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compare(models)


def test_an_unknown_baseline_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of a"):
        compare({"a": "MobileCLIP2-S0"}, baseline="b")
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no results"):
        compare({"a": tmp_path})
    with pytest.raises(FileNotFoundError):
        compare({"a": tmp_path / "none.jsonl"})


class TestCli:
    def test_a_map_with_ones_own_model(self, cli: Cli, tmp_path: Path) -> None:
        pytest.importorskip("adjustText")
        path = tmp_path / "results.jsonl"
        write_rows(path, [replace(one, details={}) for one in published_results()["MobileCLIP2-S2"]])
        ran = cli(
            *("compare", f"mine={path}", "MobileCLIP2-S0", "--json"),
            *("--latency", "mine=1.5+2.5", "--plot", tmp_path / "map.svg"),
        )
        assert ran.code == 0, ran.err
        values = json.loads(ran.out)
        assert values["baseline"] == "mine"
        assert values["models"]["mine"]["num_sets"] == 38
        assert values["differences"][0]["wins"] + values["differences"][0]["losses"] == 38
        assert ">mine<" in (tmp_path / "map.svg").read_text()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--plot", "map.svg"), "where does mine stand"),
            (("--plot", "map.svg", "--latency", "mine=fast"), "no number of ms"),
            (("--plot", "map.svg", "--latency", "yours=3"), "--latency names yours"),
        ],
    )
    def test_a_place_that_nobody_told(
        self, cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str
    ) -> None:
        path = results(tmp_path, "mine", imagenet1k=0.7)
        ran = cli("compare", f"mine={path}", *arguments)
        assert ran.code == 2
        assert words in " ".join(ran.err.split())

    def test_two_of_one_name(self, cli: Cli) -> None:
        ran = cli("compare", "MobileCLIP2-S0", "MobileCLIP2-S0")
        assert (ran.code, "two models are called" in ran.err) == (2, True)
