"""Rules keep the rows that meet them; what has no value is told apart from what has a bad one."""

from __future__ import annotations

import numpy as np
import pytest

from pocketclip.filter import BASELINES
from pocketclip.filter.language import code_number, code_of, find_detector, script_of
from pocketclip.filter.rules import Clusters, parse_rule

COLUMNS = {
    "score/l14": np.float32([0.1, 0.28, 0.5, np.nan]),
    "width": np.int32([100, 400, 900, 0]),
    "height": np.int32([100, 200, 300, 0]),
    "words": np.int32([1, 3, 5, 0]),
    "language": np.int32([code_number(code) for code in ("en", "de", "latn", "und")]),
    "meta/punsafe": np.float32([0.1, 0.9, np.nan, 0.5]),
}


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("score/l14>=0.28", [0, 1, 1, 0]),
        ("score/l14<0.5", [1, 1, 0, 0]),
        ("min_side>=200", [0, 1, 1, 0]),
        ("aspect<=2", [1, 1, 0, 0]),
        ("max_side>400", [0, 0, 1, 0]),
        ("pixels>=10000", [1, 1, 1, 0]),
        ("words=1,5", [1, 0, 1, 0]),
        ("words!=1", [0, 1, 1, 1]),
        ("language=en,de", [1, 1, 0, 0]),
        ("language != en", [0, 1, 1, 1]),
        ("meta/punsafe<0.5", [1, 0, 1, 0]),
    ],
)
def test_keeps_rows_that_meet_it(rule: str, kept: list[int]) -> None:
    # float32 scores are compared as they are stored, so 0.28 is the nearest float32 to it
    columns = {name: column.copy() for name, column in COLUMNS.items()}
    columns["score/l14"][1] = np.nextafter(np.float32(0.28), np.float32(1))
    assert parse_rule(rule).keeps(columns).tolist() == [bool(flag) for flag in kept]


def test_a_rule_reads_its_own_columns_alone() -> None:
    assert parse_rule("aspect<=3").needs == ("width", "height")
    assert parse_rule("chars>5").needs == ("chars",)
    assert parse_rule(" chars > 5 ").name == "chars>5"


@pytest.mark.parametrize(
    "text", ["chars", "chars>=", ">=5", "chars>=five", "language>=en", "language=English", "chars>=1,2"]
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="rule"):
        parse_rule(text)


def test_clusters_keep_pictures_nearest_to_wanted_ones() -> None:
    clusters = Clusters(centroids_KD=np.eye(3, dtype=np.float32), wanted=frozenset([0, 2]))
    rows = np.float32([[0.9, 0.1, 0.2], [0.1, 0.9, 0.0], [0.0, 0.2, 0.9], [0.0, 0.0, 0.0]])
    assert clusters.keeps(rows).tolist() == [True, False, True, False]


def test_baselines_are_those_of_datacomp() -> None:
    names = [rule.name for rule in BASELINES["basic_filtering"].rules]
    assert names == ["language=en", "words>=3", "chars>=6", "min_side>=200", "aspect<=3"]
    assert [rule.name for rule in BASELINES["laion2b"].rules] == ["language=en", "score/b32>=0.28"]
    assert BASELINES["clip_score_l14_30"].tops[0].num(10) == 3
    assert BASELINES["image_based"].has_clusters


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("красный автобус", "cyrl"),
        ("a red bus", "latn"),
        ("街上的红色公共汽车", "zh"),
        ("通りの赤いバス", "ja"),
        ("빨간 버스", "ko"),
        ("12 % !", "und"),
        ("", "und"),
    ],
)
def test_scripts_tell_what_they_can(text: str, code: str) -> None:
    assert script_of(text) == code


def test_codes_survive_as_numbers() -> None:
    for code in ("en", "latn", "und", "a"):
        assert code_of(code_number(code)) == code
    assert code_of(code_number("nonsense")) == "und"


def test_py3langid_tells_languages_of_one_script() -> None:
    pytest.importorskip("py3langid")
    name, detect = find_detector(("en", "de", "fr"))
    assert name.startswith("py3langid")
    assert detect("ein roter Bus auf der Straße") == "de"
    assert detect("two dogs playing in the snow") == "en"
    assert detect("12 %") == "und"
