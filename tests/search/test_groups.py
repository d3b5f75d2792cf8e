"""Groups of rows, judged by scikit-learn where it does the same, and by what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.search import groups
from pocketclip.search.groups import clusters, duplicates, outliers


def unit(rows_ND: np.ndarray) -> np.ndarray:
    return (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(np.float32)


def crowded(num: int, *, width: int = 96, spread: float = 0.3, seed: int = 0) -> np.ndarray:
    """Rows around a few directions, more of them in the first dimensions, as embeddings are."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(2, num // 8), width)) / np.arange(1, width + 1) ** 0.5
    noise = spread * generator.standard_normal((num, width)) / np.arange(1, width + 1) ** 0.5
    return unit(centres[generator.integers(0, len(centres), num)] + noise)


@pytest.mark.parametrize("threshold", [0.85, 0.9, 0.95])
@pytest.mark.parametrize("width", [32, 96])
def test_duplicates_are_the_connected_components(
    threshold: float, width: int, monkeypatch: pytest.MonkeyPatch
):
    cluster = pytest.importorskip("sklearn.cluster")
    monkeypatch.setattr(groups, "_BLOCK", 37)  # several blocks, the last one smaller
    rows_ND = crowded(400, width=width)
    label_N = cluster.DBSCAN(
        eps=1 - threshold, min_samples=1, metric="cosine", algorithm="brute"
    ).fit_predict(rows_ND)
    expected = {tuple(np.flatnonzero(label_N == label)) for label in np.unique(label_N)}
    found = duplicates(rows_ND, threshold=threshold)
    assert {tuple(group) for group in found} == {group for group in expected if len(group) > 1}
    assert len(found) > 3
    assert [len(group) for group in found] == sorted((len(group) for group in found), reverse=True)


def test_exact_copies_are_found_at_the_highest_threshold():
    rows_ND = crowded(50)
    rows_ND = np.concatenate([rows_ND, rows_ND[[3, 3, 40]]])
    assert [group.tolist() for group in duplicates(rows_ND, threshold=1.0)] == [[3, 50, 51], [40, 52]]


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_joining_pairs_in_any_order_is_a_path_between_them(pairs: list[tuple[int, int]]):
    joined = groups._Groups(30)
    half = len(pairs) // 2
    for part in (pairs[:half], pairs[half:]):
        joined.join(np.array([one for one, _ in part], int), np.array([other for _, other in part], int))
    parts = [{row} for row in range(30)]
    for one, other in pairs:
        mine = next(part for part in parts if one in part)
        theirs = next(part for part in parts if other in part)
        if mine is not theirs:
            parts.remove(theirs)
            mine |= theirs
    assert {tuple(group) for group in joined.found()} == {
        tuple(sorted(part)) for part in parts if len(part) > 1
    }


def test_outliers_are_mean_cosines_of_the_nearest_others():
    neighbors = pytest.importorskip("sklearn.neighbors")
    rows_ND = crowded(300)
    finder = neighbors.NearestNeighbors(n_neighbors=8, metric="cosine", algorithm="brute").fit(rows_ND)
    distance_NK, _ = finder.kneighbors(rows_ND)
    expected_N = 1 - distance_NK[:, 1:].mean(axis=1)
    np.testing.assert_allclose(outliers(rows_ND, num_nearest=7).cosine_N, expected_N, atol=1e-5)


def test_a_row_of_its_own_stands_out_and_no_other():
    generator = np.random.default_rng(0)
    rows_ND = unit(np.eye(64)[0] + 0.05 * generator.standard_normal((200, 64)))
    rows_ND[17] = unit(generator.standard_normal((1, 64)))[0]
    z_N = outliers(rows_ND).z_N
    assert np.argmax(z_N) == 17
    assert z_N[17] > 3.5 > np.delete(z_N, 17).max()


def test_a_draw_of_the_others_tells_the_same_outlier():
    generator = np.random.default_rng(0)
    rows_ND = unit(np.eye(64)[0] + 0.05 * generator.standard_normal((2000, 64)))
    rows_ND[17] = unit(generator.standard_normal((1, 64)))[0]
    found = outliers(rows_ND, max_compared=300, seed=3)
    assert np.argmax(found.z_N) == 17
    np.testing.assert_array_equal(found.z_N, outliers(rows_ND, max_compared=300, seed=3).z_N)


@pytest.mark.parametrize("num", [0, 1, 2, 3])
def test_few_rows_have_no_outliers(num: int):
    rows_ND = crowded(8)[:num]
    assert np.isfinite(outliers(rows_ND).z_N).all()
    assert duplicates(rows_ND[:1], threshold=0.9) == []


def test_copies_alone_do_not_stand_out():
    np.testing.assert_array_equal(outliers(np.repeat(crowded(8)[:1], 20, axis=0)).z_N, 0)


def test_clusters_find_what_was_planted():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(1)
    label_N = generator.choice(6, 600, p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05])
    rows_ND = unit(np.eye(32)[label_N] + 0.1 * generator.standard_normal((600, 32)))
    found = clusters(rows_ND, 6)
    assert metrics.adjusted_rand_score(label_N, found.label_N) > 0.99
    assert list(np.bincount(found.label_N)) == sorted(np.bincount(label_N), reverse=True)
    np.testing.assert_allclose(np.linalg.norm(found.centre_KD, axis=1), 1, atol=1e-5)
    first = found.members(0)
    assert found.cosine_N[first[0]] == found.cosine_N[found.label_N == 0].max()


def test_clusters_are_as_tight_as_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster")
    rows_ND = crowded(500, spread=1.0)
    theirs = cluster.KMeans(12, n_init=4, random_state=0).fit(rows_ND)
    centres = unit(theirs.cluster_centers_)
    tightness = float(np.einsum("nd,nd->n", rows_ND, centres[theirs.labels_]).mean())
    ours = max(float(clusters(rows_ND, 12, seed=seed).cosine_N.mean()) for seed in range(4))
    assert ours > tightness - 0.01


def test_a_seed_gives_the_same_clusters():
    rows_ND = crowded(300)
    np.testing.assert_array_equal(clusters(rows_ND, 9, seed=5).label_N, clusters(rows_ND, 9, seed=5).label_N)


def test_there_are_no_more_clusters_than_different_rows():
    found = clusters(np.repeat(unit(np.eye(3, 8)), 4, axis=0), 10)
    assert len(found.centre_KD) == 3
    assert list(np.bincount(found.label_N)) == [4, 4, 4]


def test_nonsense_is_refused():
    rows_ND = crowded(10)
    with pytest.raises(ValueError, match="threshold is 1.5"):
        duplicates(rows_ND, threshold=1.5)
    with pytest.raises(ValueError, match="num_nearest is 0"):
        outliers(rows_ND, num_nearest=0)
    with pytest.raises(ValueError, match="num is 0"):
        clusters(rows_ND, 0)
    with pytest.raises(ValueError, match="no rows"):
        clusters(rows_ND[:0], 2)
