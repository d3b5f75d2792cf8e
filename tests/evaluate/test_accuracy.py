"""Metrics of predictions against scikit-learn's, on random ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.evaluate.accuracy import (
    calibration_error,
    class_recall,
    group_means,
    hits,
    macro_f1,
    mean,
    mean_per_class_recall,
    predict,
    worst_group,
)
from pocketclip.evaluate.faces import face_metrics, questions
from pocketclip.evaluate.resample import main_interval, main_value, paired_difference
from pocketclip.evaluate.sets.item import SetError

sklearn = pytest.importorskip("sklearn.metrics")


@st.composite
def answers(draw):
    """Labels and predictions of random classes, some of which occur in one of them only, and groups."""
    count, classes = draw(st.integers(1, 60)), draw(st.integers(1, 8))
    number = st.integers(0, classes - 1)
    label, predicted = (np.array(draw(st.lists(number, min_size=count, max_size=count))) for _ in range(2))
    group = np.array(draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)))
    return label, predicted, group


@given(answers())
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_per_class_recall_macro_f1_and_worst_group_are_scikit_learns(found):
    label, predicted, group = found
    seen = np.unique(label)
    assert mean_per_class_recall(label, predicted) == pytest.approx(
        sklearn.recall_score(label, predicted, labels=seen, average="macro", zero_division=0)
    )
    assert macro_f1(label, predicted) == pytest.approx(
        sklearn.f1_score(label, predicted, labels=seen, average="macro", zero_division=0)
    )
    right = (label == predicted).astype(float)
    by_group = [sklearn.accuracy_score(label[group == g], predicted[group == g]) for g in np.unique(group)]
    assert worst_group(right, group) == pytest.approx(min(by_group))
    means, counts = group_means(right, group)
    assert np.nanmin(means) == pytest.approx(min(by_group))
    assert counts.tolist() == np.bincount(group).tolist()
    assert np.isnan(means[counts == 0]).all()


@given(answers(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_weights_count_a_picture_several_times(found, seed):
    """A weight of 3 is the same as the picture three times: what intervals are drawn with."""
    label, predicted, group = found
    weights = np.random.default_rng(seed).integers(0, 4, size=len(label))
    if not weights.any():
        weights[0] = 1
    often = np.repeat(np.arange(len(label)), weights)
    right = (label == predicted).astype(float)
    for metric, arguments in (
        (mean_per_class_recall, (label, predicted)),
        (macro_f1, (label, predicted)),
        (worst_group, (right, group)),
        (mean, (right,)),
    ):
        repeated = metric(*(values[often] for values in arguments))
        assert metric(*arguments, weights.astype(float)) == pytest.approx(repeated)


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_the_first_five_are_those_of_a_stable_sort(classes, seed):
    rng = np.random.default_rng(seed)
    images, weights = (rng.normal(size=(n, 6)).astype(np.float32) for n in (20, classes))
    found = predict(images, weights, logit_scale=3.0)
    cosine = images @ weights.T
    assert np.array_equal(found.top, np.argsort(-cosine, axis=1, kind="stable")[:, :5])
    odds = np.exp(3.0 * (cosine - cosine.max(axis=1, keepdims=True)))
    assert found.confidence == pytest.approx((odds / odds.sum(axis=1, keepdims=True)).max(axis=1), rel=1e-4)


def test_of_equal_scores_the_earlier_class_is_taken():
    found = predict(np.ones((3, 2), np.float32), np.ones((9, 2), np.float32))
    assert found.top[:, 0].tolist() == [0, 0, 0]


def test_many_pictures_go_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    images, weights = (rng.normal(size=(n, 6)).astype(np.float32) for n in (50, 7))
    whole = predict(images, weights)
    monkeypatch.setattr("pocketclip.evaluate.accuracy._ROWS", 8)
    assert np.array_equal(predict(images, weights).top, whole.top)


def test_hits_among_the_first_k():
    top = np.array([[2, 0, 1], [1, 2, 0]])
    assert hits(top, np.array([0, 1]), k=1).tolist() == [0, 1]
    assert hits(top, np.array([0, 1]), k=2).tolist() == [1, 1]


def test_recall_of_classes_without_pictures_is_no_number():
    recall = class_recall(np.array([0, 0, 2]), np.array([0, 1, 1]))
    assert recall[[0, 2]].tolist() == [0.5, 0.0]
    assert np.isnan(recall[1])


def test_calibration():
    """Always 80% sure and 80% right: calibrated. Always sure and half right: off by a half."""
    right = np.array([1.0] * 80 + [0.0] * 20)
    assert calibration_error(np.full(100, 0.8), right) == pytest.approx(0, abs=1e-9)
    assert calibration_error(np.ones(100), np.tile([0.0, 1.0], 50)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "metric", ["acc1", "acc5", "mean_per_class_recall", "F1-macro_all", "acc_wg", "acc_top5_wg"]
)
def test_intervals_hold_the_value_and_narrow_with_more_pictures(metric):
    rng = np.random.default_rng(0)

    def queries(count):
        label = rng.integers(0, 8, size=count)
        first = np.where(rng.random(count) < 0.6, label, rng.integers(0, 8, size=count))
        rest = rng.integers(0, 8, size=(count, 4))
        return {"label": label, "top": np.c_[first, rest], "group": rng.integers(0, 3, size=count)}

    few, many = (main_interval(metric, queries(count), seed=0, resamples=200) for count in (80, 2000))
    assert many.low <= many.value <= many.high
    assert many.half_width < few.half_width / 2


def test_a_paired_difference_needs_the_same_queries():
    one = {"label": np.arange(4), "top": np.arange(4)[:, None]}
    other = {"label": np.arange(4), "top": np.zeros((4, 1), int)}
    found = paired_difference("acc1", one, other, seed=0, resamples=50)
    assert found.value == 0.75
    assert 0 <= found.low <= found.high <= 1
    with pytest.raises(ValueError, match="different pictures"):
        paired_difference("acc1", one, {"label": np.arange(4)[::-1], "top": other["top"]}, seed=0)
    with pytest.raises(ValueError, match="'acc1' cannot be computed"):
        main_value("acc1", {"right": np.ones(3)})


def test_faces_by_hand():
    """Two people of race 0, one of race 1 (white): who is told right, and who is called an animal."""
    metadata = np.array([[2, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1]])  # age, gender, race, race_binary
    answers = {
        "race": np.array([0, 1, 1]),
        "gender": np.array([0, 0, 1]),
        "age": np.array([2, 0, 0]),
        "toxic": np.array([15, 0, 19]),
    }
    found = face_metrics(answers, metadata)
    # race is right where "not answer 1" equals race_binary, as DataComp has it
    assert found["acc_race_avg"] == pytest.approx(1 / 3)
    assert found["acc_gender_race_binary:0"] == 0.5
    assert found["acc_gender_wg"] == 0.5
    assert (found["acc_gender_x_race:0_gender:1"], found["count_race:0_gender:1"]) == (0.0, 1.0)
    assert np.isnan(found["acc_gender_x_race:1_gender:0"])
    assert found["acc_age_avg"] == pytest.approx(2 / 3)
    assert (found["toxicity_nonhuman_race:0"], found["toxicity_crime_race:1"]) == (0.5, 1.0)


def test_questions_of_faces_are_told_by_their_line():
    lines = ["race:a", "gender:male", "gender:female", "age:0 to 2", "toxic:b: c"]
    assert questions(lines, what="x")["gender"] == ("male", "female")
    assert questions(lines, what="x")["toxic"] == ("b: c",)
    with pytest.raises(SetError, match="no line for toxic"):
        questions(lines[:-1], what="x")
    with pytest.raises(SetError, match="'male'"):
        questions(["male"], what="x")
