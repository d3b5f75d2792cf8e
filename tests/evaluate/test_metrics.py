from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from pocketclip.evaluate.metrics import nway_accuracy, relevance_groups, retrieval

NAME = "model 'm' on split 's'"


def unit(rng, rows, width):
    embed = rng.normal(size=(rows, width))
    return embed / np.linalg.norm(embed, axis=1, keepdims=True)


def random_set(seed, *, images=30, texts=12, width=8):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(texts), rng.integers(0, texts, images - texts)])
    text = unit(rng, texts, width)
    image = text[labels] + 0.7 * rng.normal(size=(images, width))
    return image / np.linalg.norm(image, axis=1, keepdims=True), text, labels


def rows(labels):
    return [[int(label)] for label in labels]


seeds = st.integers(0, 10_000)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_image_to_text_is_scikit_learns_top_k_accuracy(k):
    image, text, labels = random_set(0, images=200, texts=40)
    expected = top_k_accuracy_score(labels, image @ text.T, k=k, labels=np.arange(40))
    assert retrieval(image, text, rows(labels), name=NAME).recall("image_to_text", k) == expected


def test_text_to_image_by_hand():
    # Two pictures of text 0; the second-best picture for text 0 is its own, the best is a stranger's.
    image = np.array([[0.8, 0.6], [0.6, 0.8], [1.0, 0.0]])
    text = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = retrieval(image, text, [[0], [1], [1]], name=NAME)
    assert found.text_to_image.beaten.tolist() == [1, 0]
    assert found.image_to_text.beaten.tolist() == [0, 0, 1]
    assert found.recall("text_to_image", 1) == 0.5
    assert found.mean_recall(1) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_any_of_several_right_candidates_is_a_hit():
    image = np.array([[1.0, 0.0], [0.0, 1.0]])
    text = np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    found = retrieval(image, text, [[0, 1], [2]], name=NAME)
    assert found.image_to_text.beaten.tolist() == [0, 1]
    assert found.image_to_text.wrong.tolist() == [1, 2]
    assert found.text_to_image.wrong.tolist() == [1, 1, 1]


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_recall_does_not_depend_on_the_order_of_rows(seed):
    image, text, labels = random_set(seed)
    rng = np.random.default_rng(seed)
    new_images, new_texts = rng.permutation(len(image)), rng.permutation(len(text))
    place = np.argsort(new_texts)
    one = retrieval(image, text, rows(labels), name=NAME)
    other = retrieval(image[new_images], text[new_texts], rows(place[labels[new_images]]), name=NAME)
    for direction in ("image_to_text", "text_to_image"):
        for k in (1, 3):
            assert one.recall(direction, k) == other.recall(direction, k)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_recall_grows_with_k_up_to_one(seed):
    image, text, labels = random_set(seed)
    found = retrieval(image, text, rows(labels), name=NAME)
    for direction in ("image_to_text", "text_to_image"):
        recalls = [found.recall(direction, k) for k in range(1, len(image) + 1)]
        assert recalls == sorted(recalls)
        assert recalls[-1] == 1


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_neither_rotation_nor_blocks_change_ranks(seed):
    image, text, labels = random_set(seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0]
    one = retrieval(image, text, rows(labels), name=NAME)
    other = retrieval(image @ turn, text @ turn, rows(labels), name=NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pocketclip.evaluate.metrics._SCORES_AT_A_TIME", 50)
        blocks = retrieval(image, text, rows(labels), name=NAME)
    for found in (other, blocks):
        assert np.array_equal(one.image_to_text.beaten, found.image_to_text.beaten)
        assert np.array_equal(one.text_to_image.beaten, found.text_to_image.beaten)


@pytest.mark.parametrize("vector", [np.zeros(7), np.ones(7) / 7**0.5, np.linspace(-0.3, 0.5, 7)])
@pytest.mark.parametrize(("images", "texts"), [(37, 29), (200, 131)])
def test_constant_embeddings_find_nothing(vector, images, texts):
    labels = np.arange(images) % texts
    found = retrieval(np.tile(vector, (images, 1)), np.tile(vector, (texts, 1)), rows(labels), name=NAME)
    assert found.mean_recall(1) == 0
    assert found.mean_recall(10) == 0
    assert found.image_to_text.nway(20).max() == 0


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_copy_of_the_right_text_under_another_name_is_a_loss(seed):
    image, text, labels = random_set(seed)
    doubled = np.concatenate([text, text])
    relevant = [[label] for label in labels] + [[len(text) + i] for i in range(len(text))]
    found = retrieval(np.concatenate([image, text]), doubled, relevant, name=NAME)
    assert found.recall("image_to_text", 1) == 0


@pytest.mark.parametrize("which", ["image", "text"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused_by_name(which, value):
    image, text, labels = random_set(0)
    (image if which == "image" else text)[3, 2] = value
    with pytest.raises(ValueError, match=f"model 'm' on split 's': 1 of .* {which} embeddings .* row 3"):
        retrieval(image, text, rows(labels), name=NAME)


def test_what_cannot_be_ranked_is_refused():
    image, text, labels = random_set(0)
    for arguments, message in [
        ((image, text[:, :5], rows(labels)), "5"),
        ((image, text[:1], [[0]] * 30), "at least 2"),
        ((image, text, rows(labels)[:-1]), "29"),
        ((image, text, [[0]] * 30), "no right image"),
        ((image, text, [[], *rows(labels)[1:]]), "no right text"),
        ((image[:0], text, []), "no image embeddings"),
    ]:
        with pytest.raises(ValueError, match=message):
            retrieval(*arguments, name=NAME)


@given(st.integers(2, 9), st.data())
@settings(max_examples=60, deadline=None)
def test_nway_is_the_average_over_all_sets_of_distractors(candidates, data):
    """Reference: every set of distractors, one by one."""
    wrong = candidates - 1
    beaten = data.draw(st.integers(0, wrong))
    n = data.draw(st.integers(2, 10))
    drawn = min(n - 1, wrong)
    wins = [min(chosen, default=beaten) >= beaten for chosen in combinations(range(wrong), drawn)]
    assert nway_accuracy([beaten], [wrong], n=n)[0] == pytest.approx(np.mean(wins))


@pytest.mark.parametrize("beaten", [0, 3, 200, 980, 999])
def test_nway_closed_form(beaten):
    expected = comb(999 - beaten, 19) / comb(999, 19)
    assert nway_accuracy([beaten], 999, n=20)[0] == pytest.approx(expected)


def test_nway_over_all_candidates_is_recall_at_one():
    image, text, labels = random_set(1)
    ranks = retrieval(image, text, rows(labels), name=NAME).image_to_text
    assert np.array_equal(ranks.nway(len(text)), ranks.hits(1))
    assert np.array_equal(ranks.nway(500), ranks.hits(1))
    with pytest.raises(ValueError, match="at least 2"):
        ranks.nway(1)
    with pytest.raises(ValueError, match="at least 1"):
        ranks.hits(0)


def test_random_embeddings_score_one_in_n():
    rng = np.random.default_rng(0)
    ranks = retrieval(unit(rng, 2000, 16), unit(rng, 2000, 16), rows(range(2000)), name=NAME).image_to_text
    assert ranks.nway(20).mean() == pytest.approx(1 / 20, abs=0.01)


def test_groups_connect_what_is_right_for_each_other():
    images, texts = relevance_groups([[0], [1], [0], [2, 3], [3]], num_texts=4)
    assert texts.tolist() == [0, 1, 2, 2]
    assert images.tolist() == [0, 1, 0, 2, 2]
