"""Where matches end: what matches is told from what does not, whatever the cosines of a model mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pocketclip.search.direction import Term, balanced, combine, unit, without
from pocketclip.search.threshold import LEAST_ITEMS, calibrate, expected_best

D = 64


def units(num: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, D)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def text(vector_D: np.ndarray) -> Term:
    return Term(vector_D=unit(vector_D), kind="text")


@pytest.fixture(scope="module")
def concepts() -> np.ndarray:
    """What 20 groups of pictures show."""
    return units(20, seed=1)


@pytest.fixture(scope="module")
def sample(concepts: np.ndarray) -> np.ndarray:
    """2,000 pictures in a cone, as CLIP's are, 100 of each concept."""
    noise = units(2000, seed=2)
    middle = units(1, seed=3)
    rows = np.repeat(concepts, 100, axis=0) + 0.8 * noise + middle
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class TestTexts:
    def test_present_concepts_match_and_absent_ones_do_not(self, concepts: np.ndarray, sample: np.ndarray):
        made = calibrate(sample, units(60, seed=4), num_items=len(sample), quantile=0.9)
        assert made is not None
        for concept in concepts:
            assert (sample @ concept).max() > made.threshold([text(concept)])
        absent = [text(row) for row in units(100, seed=5)]
        found = [(sample @ term.vector_D).max() > made.threshold([term]) for term in absent]
        assert np.mean(found) == pytest.approx(0.1, abs=0.08)

    def test_what_texts_have_in_common_with_all_pictures_counts_less(self, sample: np.ndarray):
        shift = units(1, seed=3)[0]
        background = [
            row + share * shift for row, share in zip(units(60, seed=4), np.linspace(0, 1, 60), strict=True)
        ]
        absent = [text(row + 0.7 * shift) for row in units(100, seed=5)]
        found = []
        for share in (0.0, 0.5, 1.0):
            made = calibrate(
                sample, np.stack([unit(row) for row in background]), num_items=2000, offset_share=share
            )
            assert made is not None
            found.append(
                np.mean([(sample @ term.vector_D).max() > made.threshold([term]) for term in absent])
            )
        assert found[0] > found[1] + 0.05 > found[2]

    def test_a_higher_quantile_lets_less_through(self, sample: np.ndarray):
        made = [
            calibrate(sample, units(60, seed=4), num_items=2000, quantile=quantile)
            for quantile in (0.1, 0.5, 0.9)
        ]
        least = [one.least for one in made if one is not None]
        assert least == sorted(set(least))

    def test_a_large_index_asks_for_more(self, sample: np.ndarray):
        small, large = (calibrate(sample, units(60, seed=4), num_items=num) for num in (2000, 2_000_000))
        assert small is not None
        assert large is not None
        assert large.least > small.least


def test_the_best_of_many_is_foretold_from_few():
    scores = np.random.default_rng(0).exponential(0.1, (200_000, 40)).astype(np.float32)
    foretold = expected_best(scores[:4000], num_items=200_000)
    assert foretold.mean() == pytest.approx(scores.max(axis=0).mean(), rel=0.05)
    assert expected_best(scores, num_items=10) == pytest.approx(scores.max(axis=0))


def test_few_pictures_say_nothing(sample: np.ndarray):
    assert calibrate(sample[: LEAST_ITEMS - 1], units(9, seed=0), num_items=LEAST_ITEMS - 1) is None
    assert calibrate(sample[:LEAST_ITEMS], units(9, seed=0), num_items=LEAST_ITEMS) is not None


def test_pictures_match_what_is_nearer_than_most_pairs(sample: np.ndarray):
    made = calibrate(sample, None, num_items=2000)
    assert made is not None
    assert math.isnan(made.least)
    least = made.threshold([Term(vector_D=sample[0], kind="picture")])
    mixed = np.random.default_rng(0).permutation(sample)
    pairs = mixed[:500] @ mixed[500:].T
    assert np.mean(pairs > least) == pytest.approx(0.1, abs=0.03)


class TestParts:
    """A query of several parts asks for as much as its parts do."""

    @pytest.fixture
    def made(self, sample: np.ndarray):
        made = calibrate(sample, units(60, seed=4), num_items=2000)
        assert made is not None
        return made

    def standing(self, sample: np.ndarray, query_D: np.ndarray, least: float) -> float:
        score_S = sample @ query_D
        return (least - score_S.mean()) / score_S.std()

    def test_one_part_alone(self, made, concepts: np.ndarray, sample: np.ndarray):
        terms = [text(concepts[0]), Term(vector_D=sample[0], kind="picture")]
        for weight, alone in ((1.0, terms[0]), (0.0, terms[1])):
            both = balanced(*terms, text_weight=weight, sample_SD=sample)
            assert made.threshold(both) == pytest.approx(made.threshold([alone]), abs=1e-5)
            np.testing.assert_allclose(combine(both), alone.vector_D, atol=1e-6)

    @pytest.mark.parametrize("weight", [0.2, 0.5, 0.9])
    def test_text_and_picture_stand_out_as_their_average(
        self, made, concepts: np.ndarray, sample: np.ndarray, weight: float
    ):
        parts = (text(concepts[0]), Term(vector_D=sample[0], kind="picture"))
        both = balanced(*parts, text_weight=weight, sample_SD=sample)
        one, other = (self.standing(sample, part.vector_D, made.threshold([part])) for part in parts)
        assert self.standing(sample, combine(both), made.threshold(both)) == pytest.approx(
            weight * one + (1 - weight) * other, abs=1e-3
        )

    def test_what_is_excluded_does_not_change_how_far_a_match_stands_out(
        self, made, concepts: np.ndarray, sample: np.ndarray
    ):
        wanted = text(concepts[0])
        terms = without([wanted], concepts[1][None])
        assert self.standing(sample, combine(terms), made.threshold(terms)) == pytest.approx(
            self.standing(sample, wanted.vector_D, made.threshold([wanted])), abs=1e-3
        )


def test_excluding_moves_what_is_unwanted_down(concepts: np.ndarray):
    wanted = text(concepts[0])
    with_it, without_it = unit(concepts[0] + concepts[1]), unit(concepts[0] + concepts[2])
    query_D = combine(without([wanted], concepts[1][None]))
    assert query_D @ without_it - query_D @ with_it > 0.1
    assert np.linalg.norm(query_D) == pytest.approx(1)
    assert without([wanted], np.empty((0, D), np.float32)) == [wanted]
