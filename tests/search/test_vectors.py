"""Vectors: precise, found exactly while few, nearly always while many, and always those that are there."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.search import encoding, firstpass
from pocketclip.search.vectors import Change, VectorReader, VectorWriter, top


def draw(num: int, dim: int, *, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((num, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Collection:
    """Vectors with changes, as an index has them."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.rotation = encoding.random_rotation(dim)
        self.writer = VectorWriter(folder, rotation_DD=self.rotation)
        self.reader = VectorReader(folder, rotation_DD=self.rotation, changes=self.changes, threads=2)
        self.vectors: dict[int, np.ndarray] = {}
        self.slots: dict[int, int] = {}
        self.gone: list[tuple[int, int]] = []
        self.generation = 0
        self._free: list[int] = []
        self._next_id, self._num_slots = 1, 0

    def add(self, vectors: np.ndarray) -> list[int]:
        slots = [self._free.pop() if self._free else self._fresh() for _ in vectors]
        if slots:
            self.writer.write(slots, vectors)
        ids = list(range(self._next_id, self._next_id + len(vectors)))
        self._next_id += len(vectors)
        self.vectors |= dict(zip(ids, vectors, strict=True))
        self.slots |= dict(zip(ids, slots, strict=True))
        self.generation += 1
        return ids

    def remove(self, ids: list[int]) -> None:
        self.generation += 1
        for number in ids:
            del self.vectors[number]
            self._free.append(self.slots.pop(number))
            self.gone.append((self.generation, number))

    def changes(self, *, since: int, last_id: int) -> Change | None:
        if since == self.generation:
            return None
        ids = [number for number in sorted(self.slots) if number > last_id]
        return Change(
            generation=self.generation,
            ids=np.array(ids, dtype=np.int64),
            slots=np.array([self.slots[number] for number in ids], dtype=np.int64),
            gone=np.array([n for at, n in self.gone if at > since and n <= last_id], dtype=np.int64),
        )

    def exact(self, query: np.ndarray, k: int, among: list[int] | None = None) -> list[int]:
        ids = (
            sorted(self.vectors) if among is None else [number for number in among if number in self.vectors]
        )
        scores = np.array([self.vectors[number] @ query for number in ids], dtype=np.float32)
        return [ids[place] for place in np.argsort(-scores, kind="stable")[:k]]

    def _fresh(self) -> int:
        self._num_slots += 1
        return self._num_slots - 1


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_row_comes_back_as_it_was_but_for_its_last_bits(num: int, dim: int, seed: int):
    vectors = draw(num, dim, seed=seed)
    high, fine = encoding.encode(vectors)
    assert (high.dtype, fine.shape) == (np.int8, (num, encoding.fine_width(dim)))
    decoded = encoding.decode(high, fine)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(decoded, vectors, atol=0.006)


@pytest.mark.parametrize("vectors", [np.zeros((2, 8), np.float32), np.full((2, 8), 1e-38, np.float32)])
def test_vectors_without_length_are_no_accident(vectors: np.ndarray):
    assert np.isfinite(encoding.decode(*encoding.encode(vectors))).all()


def test_a_few_large_numbers_do_not_cost_the_others_their_precision(tmp_path: Path):
    vectors = draw(50, 64) * 0.1
    vectors[:, 3] = 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rotation = encoding.random_rotation(64)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(64), atol=1e-5)
    turned = encoding.decode(*encoding.encode(vectors @ rotation.T)) @ rotation
    plain = encoding.decode(*encoding.encode(vectors.copy()))
    assert np.abs(turned - vectors).mean() < 0.5 * np.abs(plain - vectors).mean()


@given(st.integers(2, 600), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_the_scan_is_off_by_what_the_low_bits_are_worth(dim: int, seed: int):
    vectors, (query,) = draw(30, dim, seed=seed), draw(1, dim, seed=seed + 1)
    high, fine = encoding.encode(vectors.copy())
    about = encoding.scan(query).cosines(high, encoding.scales(fine))
    exact = encoding.decode(high, fine) @ query
    step = 4 * encoding.scales(fine) * np.abs(high).max(axis=1).clip(1) / 127
    assert (np.abs(about - exact) <= 6 * step * max(1, dim**0.5 / 8) / 4 + 1e-3).all()


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]), max_size=50), st.integers(1, 60))
def test_the_best_are_those_of_a_stable_sort(scores: list[float], k: int):
    scores_N = np.array(scores, dtype=np.float32)
    assert top(scores_N, k).tolist() == np.argsort(-scores_N, kind="stable")[:k].tolist()


@pytest.mark.parametrize("dim", [3, 16, 128, 130])
def test_few_vectors_are_found_as_by_exact_search(tmp_path: Path, dim: int):
    collection = Collection(tmp_path, dim)
    collection.add(draw(3000, dim))
    found = wanted = 0
    for query in draw(20, dim, seed=1):
        ids, cosines = collection.reader.search(query, 10)
        exact = collection.exact(query, 10)
        found, wanted = found + len(set(ids.tolist()) & set(exact)), wanted + 10
        true = np.array([collection.vectors[number] @ query for number in ids.tolist()])
        np.testing.assert_allclose(cosines, true, atol=4e-3 if dim == 3 else 1.5e-3)
        assert (np.diff(cosines) <= 0).all()
    assert found >= (0.9 if dim == 3 else 0.98) * wanted


def test_ties_are_in_the_order_of_numbers(tmp_path: Path):
    collection = Collection(tmp_path, 8)
    vectors = draw(5, 8)
    collection.add(np.concatenate([vectors, vectors, vectors]))
    ids, cosines = collection.reader.search(vectors[2], 3)
    assert ids.tolist() == [3, 8, 13]
    assert len(set(cosines.tolist())) == 1


def test_only_allowed_items_are_found(tmp_path: Path):
    collection = Collection(tmp_path, 16)
    collection.add(draw(500, 16))
    query = draw(1, 16, seed=2)[0]
    allowed = list(range(3, 500, 7))
    ids, _ = collection.reader.search(query, 20, among=np.array(allowed))
    assert set(ids.tolist()) <= set(allowed)
    assert ids[0] == collection.exact(query, 1, allowed)[0]
    none, _ = collection.reader.search(query, 20, among=np.array([], dtype=np.int64))
    gone, _ = collection.reader.search(query, 20, among=np.array([9999]))
    assert len(none) == len(gone) == 0


def test_an_empty_collection_finds_nothing(tmp_path: Path):
    reader = Collection(tmp_path, 8).reader
    ids, cosines = reader.search(draw(1, 8)[0], 5)
    assert (len(reader), ids.tolist(), cosines.tolist()) == (0, [], [])
    assert reader.sample(5, seed=0).shape == (0, 8)
    assert list(reader.blocks()) == []


@pytest.mark.parametrize(("k", "dim", "named"), [(0, 8, "at least 1"), (5, 9, "this index have 8")])
def test_an_impossible_question_is_refused(tmp_path: Path, k: int, dim: int, named: str):
    with pytest.raises(ValueError, match=named):
        Collection(tmp_path, 8).reader.search(draw(1, dim)[0], k)


def test_a_file_that_was_cut_is_refused(tmp_path: Path):
    collection = Collection(tmp_path, 8)
    collection.add(draw(100, 8))
    data = (tmp_path / "vectors.i8").read_bytes()
    (tmp_path / "vectors.i8").write_bytes(data[:-9])
    with pytest.raises(ValueError, match="was cut"):
        collection.reader.search(draw(1, 8)[0], 5)


def test_all_vectors_can_be_gone_through(tmp_path: Path):
    collection = Collection(tmp_path, 12)
    collection.add(draw(100, 12))
    collection.remove([5, 50])
    (ids, vectors), *rest = collection.reader.blocks()
    assert (ids.tolist(), rest) == (sorted(collection.vectors), [])
    np.testing.assert_allclose(vectors, [collection.vectors[number] for number in ids.tolist()], atol=5e-3)
    np.testing.assert_allclose(collection.reader.rows([7, 3]), vectors[[5, 2]], atol=1e-6)
    sample = collection.reader.sample(10, seed=1)
    assert sample.shape == (10, 12)
    np.testing.assert_array_equal(sample, collection.reader.sample(10, seed=1))
    with pytest.raises(ValueError, match="no item 50"):
        collection.reader.rows([7, 50])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 10_000)), max_size=12))
@settings(max_examples=30, deadline=None)
def test_whatever_comes_and_goes_the_reader_knows(tmp_path_factory: pytest.TempPathFactory, steps):
    collection = Collection(tmp_path_factory.mktemp("c"), 32)
    for number, (adds, num, seed) in enumerate(steps):
        if adds:
            collection.add(draw(num, 32, seed=1000 * number + 7))
        else:
            collection.remove(sorted(collection.vectors)[seed % 5 :: 3][:num])
        if seed % 2 and collection.vectors:
            wanted = sorted(collection.vectors)[seed % len(collection.vectors)]
            ids, _ = collection.reader.search(collection.vectors[wanted], 1)
            assert ids.tolist() == [wanted]
    assert collection.reader.ids().tolist() == sorted(collection.vectors)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first pass for small collections too, in small parts."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(firstpass, "WORTH_IT", 2000)
    monkeypatch.setattr(firstpass, "_LATE", 1000)
    monkeypatch.setattr(firstpass, "_PART", 3000)


def recall(collection: Collection, *, k: int = 10, among: list[int] | None = None) -> float:
    found = 0
    for query in draw(20, len(collection.rotation), seed=9):
        allowed = None if among is None else np.array(among)
        ids, _ = collection.reader.search(query, k, among=allowed)
        found += len(set(ids.tolist()) & set(collection.exact(query, k, among)))
    return found / (20 * k)


def test_a_first_pass_finds_nearly_all_and_follows(
    tmp_path: Path, soon: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        firstpass.FirstPass, "_num_wanted", lambda self, k, *, share: (200 + 0.1 * len(self.ids)) / share
    )
    collection = Collection(tmp_path, 64)
    collection.add(draw(1500, 64))
    assert not firstpass.keep_up(tmp_path, collection.reader)
    collection.add(draw(6000, 64, seed=1))
    assert firstpass.keep_up(tmp_path, collection.reader)
    collection.generation += 1
    assert collection.reader.first_pass is not None
    assert [len(part.ids_P) for part in collection.reader.first_pass.parts] == [3000, 3000, 1500]
    assert recall(collection) > 0.95
    assert (
        recall(collection, among=[number for number in range(1, 7500) if number % 3]) > 0.95
    )  # by the first pass
    assert recall(collection, among=list(range(1, 7500, 40))) > 0.97  # one by one
    late = collection.add(draw(500, 64, seed=2))
    assert not firstpass.keep_up(tmp_path, collection.reader)
    ids, _ = collection.reader.search(collection.vectors[late[7]], 1)
    assert ids.tolist() == [late[7]]
    collection.remove(list(range(100, 400)))
    assert recall(collection) > 0.95
    collection.add(draw(2000, 64, seed=3))  # into free slots first
    assert firstpass.keep_up(tmp_path, collection.reader)
    collection.generation += 1
    assert [len(part.ids_P) for part in collection.reader.first_pass.parts] == [3000, 3000, 3000, 1000]
    assert recall(collection) > 0.95


def test_a_worn_first_pass_is_made_anew(tmp_path: Path, soon: None):
    collection = Collection(tmp_path, 16)
    collection.add(draw(5000, 16))
    assert firstpass.keep_up(tmp_path, collection.reader)
    collection.remove(list(range(1, 2001)))
    assert firstpass.keep_up(tmp_path, collection.reader)
    collection.generation += 1
    assert collection.reader.first_pass.ids.tolist() == sorted(collection.vectors)
    assert [path.name for path in tmp_path.glob("first-*")] == ["first-0001"]


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_without_its_first_pass_all_are_compared(tmp_path: Path, soon: None, damage: bytes | None):
    collection = Collection(tmp_path, 16)
    collection.add(draw(2500, 16))
    firstpass.keep_up(tmp_path, collection.reader)
    (part,) = tmp_path.glob("first-*/*.safetensors")
    if damage is None:
        part.unlink()
    else:
        part.write_bytes(damage)
    collection.generation += 1
    assert collection.reader.first_pass is None
    assert recall(collection) > 0.97


def test_many_threads_may_ask_while_it_changes(tmp_path: Path):
    collection = Collection(tmp_path, 16)
    collection.add(draw(2000, 16))
    wrong: list[str] = []
    stop = threading.Event()

    def ask(seed: int) -> None:
        while not stop.is_set():
            for query in draw(20, 16, seed=seed):
                ids, cosines = collection.reader.search(query, 10)
                if len(ids) != 10 or (np.diff(cosines) > 0).any():
                    wrong.append(f"{ids} {cosines}")

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20):
        collection.add(draw(50, 16, seed=number))
        collection.remove(sorted(collection.vectors)[:20])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
