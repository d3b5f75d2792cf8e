from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pocketclip.evaluate.rows import (
    Row,
    average,
    average_38,
    read_rows,
    robustness_gap,
    shift_average,
    write_rows,
)
from pocketclip.evaluate.tasks import AVERAGED, SHIFTS, SUITES, TASKS, find_tasks

PUBLISHED = Path(__file__).parents[3] / "shared/data/published_results"
# Table 8 of arXiv 2508.20691: average of 38 sets, IN-shift, percent
TABLE_8 = {
    "mobileclip_s0": (58.1, 55.1),
    "mobileclip_s1": (61.3, 60.7),
    "mobileclip_s2": (63.7, 63.1),
    "mobileclip_b": (65.2, 65.6),
    "mobileclip_b_lt": (65.8, 66.1),
    "mobileclip_s3": (66.3, 68.2),
    "mobileclip_l14": (66.9, 69.9),
    "mobileclip_s4": (68.1, 69.7),
    "mobileclip2_s0": (59.7, 57.6),
    "mobileclip2_s2": (64.1, 64.7),
    "mobileclip2_b": (65.8, 66.4),
    "mobileclip2_s3": (66.8, 68.9),
    "mobileclip2_l14": (67.8, 70.2),
    "mobileclip2_s4": (67.5, 70.3),
}


def row(key: str, value: float | None) -> Row:
    return Row(key=key, dataset=key, metrics={"main_metric": value})


def all_38(value: float = 0.5) -> list[Row]:
    return [row(key, value) for key in sorted(AVERAGED)]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published result files are not here")
@pytest.mark.parametrize("model", TABLE_8)
def test_averages_of_the_published_files_are_those_of_the_published_table(model):
    rows = read_rows(PUBLISHED / f"{model}.jsonl")
    mean, shift = TABLE_8[model]
    assert round(100 * average_38(rows), 1) == mean
    assert round(100 * shift_average(rows), 1) == shift


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published result files are not here")
@pytest.mark.parametrize("model", TABLE_8)
def test_the_table_knows_every_published_set_its_name_and_its_main_metric(model):
    for found in read_rows(PUBLISHED / f"{model}.jsonl"):
        task = TASKS[found.key]
        assert task.name == found.dataset
        if task.main_metric is None:
            assert found.main is None
        else:
            assert found.main == found.metrics[task.main_metric]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published result files are not here")
def test_a_published_file_comes_back_as_it_was(tmp_path):
    path = PUBLISHED / "mobileclip2_s0.jsonl"
    write_rows(tmp_path / "again.jsonl", read_rows(path))
    one, other = (
        [json.loads(line) for line in file.read_text().splitlines()]
        for file in (path, tmp_path / "again.jsonl")
    )
    assert json.dumps(one) == json.dumps(other)


def test_there_are_38_sets_and_two_more_of_faces():
    assert len(AVERAGED) == 38
    assert len(SUITES["datacomp"]) == 40
    assert set(SHIFTS) < AVERAGED
    assert not any(key.startswith(("comp/", "longclip/")) for key in AVERAGED)


def test_an_average_says_of_how_many_sets_it_is():
    assert average(all_38()).label == "average of 38"
    some = average(all_38()[:5])
    assert (some.label, some.num_sets, len(some.missing)) == ("mean of 5 of the 38 sets", 5, 33)
    with pytest.raises(ValueError, match="33 are missing"):
        average_38(all_38()[:5])
    assert average([row("emoji", 0.3)]) is None


def test_a_set_that_is_no_number_is_missing_rather_than_zero():
    rows = [*all_38()[:-1], row(sorted(AVERAGED)[-1], math.nan)]
    assert average(rows).value == 0.5
    assert average(rows).missing == (sorted(AVERAGED)[-1],)


def test_what_is_no_part_of_the_38_does_not_move_their_average():
    more = [row("comp/sugarcrepe_add_obj", 1.0), row("longclip/urban1k", 1.0), row("fairness/fairface", None)]
    assert average_38([*all_38(), *more, row("emoji", 0.0)]) == 0.5


def test_datacomps_own_name_of_flickr_counts():
    rows = [r for r in all_38() if "flickr" not in r.key]
    assert average_38([*rows, row("retrieval/flickr30k", 0.5)]) == 0.5


def test_robustness_gap():
    rows = [row("imagenet1k", 0.7), *(row(key, 0.4) for key in SHIFTS)]
    assert robustness_gap(rows) == pytest.approx(0.3)
    assert robustness_gap(rows[:-1]) is None


def test_nan_null_and_details_round_trip(tmp_path):
    rows = [
        Row(
            key="wilds/fmow",
            dataset="FMoW",
            metrics={"acc_region:0": math.nan, "acc5": None, "main_metric": 0.25},
            details={"model": "m", "interval": {"low": 0.2}},
        )
    ]
    write_rows(tmp_path / "r.jsonl", rows)
    (again,) = read_rows(tmp_path / "r.jsonl")
    assert math.isnan(again.metrics["acc_region:0"])
    assert again.metrics["acc5"] is None
    assert again.details == rows[0].details
    assert "NaN" in (tmp_path / "r.jsonl").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"key": "a", "metrics": {}}\n{"ke', "line 2 is not JSON"),
        ('{"key": "a"}', 'line 1 has no "key" and "metrics"'),
        ("[1]", 'no "key"'),
        ('{"key": "a", "metrics": {"acc1": "high"}}', "acc1 is 'high', not a number"),
        ('{"key": "a", "metrics": {}}\n{"key": "a", "metrics": {}}', "a second row for a"),
    ],
)
def test_what_is_no_result_file_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


def test_names():
    assert [task.key for task in find_tasks("pets")] == ["vtab/pets"]
    assert [task.key for task in find_tasks("vtab/pets")] == ["vtab/pets"]
    assert len(find_tasks("sugarcrepe")) == 7
    assert find_tasks("nonsense") == ()
    assert "djghosh/wds_vtab-pets_test" in TASKS["vtab/pets"].fetch_command
    assert "djghosh/wds_geode_test" in TASKS["fairness/geode"].fetch_command
