"""Probes on frozen features: as scikit-learn has them, on cached features, in the result file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from pocketclip.evaluate import probe as probing
from pocketclip.evaluate.probe import ProbeConfig, open_labelled, probe
from pocketclip.evaluate.probe_knn import knn_scores
from pocketclip.evaluate.probe_linear import choose_penalty, fit_linear, hold_out
from pocketclip.evaluate.rows import Row, read_rows, write_rows

Cli = Callable[..., Any]
QUICK = ProbeConfig(penalties=(0.01, 1.0), neighbours=3, resamples=20)


def clouds(seed: int, *, num: int = 90, noise: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    """Unit-norm features around three directions, and their classes."""
    rng = np.random.default_rng(seed)
    label = np.arange(num) % 3
    rows = np.eye(8)[label] + noise * rng.standard_normal((num, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), label


@pytest.mark.parametrize("penalty", [0.001, 0.3])
def test_the_linear_probe_is_scikit_learns(penalty: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, label = clouds(0)
    test, _ = clouds(1)
    ours = fit_linear(train, label, num_classes=3, penalty=penalty)
    scaled = (train - ours.mean_D) / ours.scale_D
    theirs = linear_model.LogisticRegression(C=1 / (penalty * len(train)), tol=1e-8, max_iter=2000)
    theirs.fit(scaled, label)
    expected = theirs.decision_function((test - ours.mean_D) / ours.scale_D)
    found = ours.scores(test)
    centred = [scores - scores.mean(axis=1, keepdims=True) for scores in (found, expected)]
    np.testing.assert_allclose(centred[0], centred[1], atol=2e-3)


def test_neighbours_vote_as_scikit_learns_do() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    train, label = clouds(0)
    test, _ = clouds(1)
    votes = knn_scores(train, label, test, num_classes=3, k=7, temperature=0.07)
    theirs = neighbors.KNeighborsClassifier(
        7, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(train, label)
    np.testing.assert_allclose(
        votes / votes.sum(axis=1, keepdims=True), theirs.predict_proba(test), atol=1e-4
    )


def test_fewer_pictures_than_neighbours_all_vote() -> None:
    train, label = clouds(0, num=6)
    votes = knn_scores(train, label, train, num_classes=3, k=50, temperature=0.07)
    assert (votes > 0).all()


def test_a_share_of_every_class_is_held_out() -> None:
    label = np.array([0] * 10 + [1] * 2 + [2])
    held = hold_out(label, share=0.2, seed=0)
    assert [int(held[label == c].sum()) for c in range(3)] == [2, 1, 0]
    np.testing.assert_array_equal(held, hold_out(label, share=0.2, seed=0))
    with pytest.raises(ValueError, match="no class has two"):
        hold_out(np.arange(4), share=0.5, seed=0)


def test_the_penalty_that_serves_held_out_pictures_best_is_chosen() -> None:
    train, label = clouds(0, noise=0.8)
    held = hold_out(label, share=0.3, seed=0)
    penalty, accuracy = choose_penalty(train, label, held, num_classes=3, penalties=(1e-4, 0.1, 1e4))
    assert accuracy[penalty] == max(accuracy.values())
    equal, _ = choose_penalty(*clouds(0, noise=0.01), held, num_classes=3, penalties=(0.01, 0.1))
    assert equal == 0.1


def cards(folder: Path, *, num: int) -> Path:
    """Pictures of two colours, a folder for each."""
    rng = np.random.default_rng(num)
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(num):
            shade = tuple(int(c + rng.integers(0, 25)) for c in colour)
            Image.new("RGB", (48, 48), shade).save(folder / name / f"{i}.png")
    return folder


class TestProbe:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path]:
        return cards(tmp_path / "train", num=6), cards(tmp_path / "test", num=3)

    def test_colours_are_told_apart_and_a_second_run_embeds_nothing(
        self,
        folders: tuple[Path, Path],
        tiny_checkpoint: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        train, test = map(str, folders)
        out, cache = tmp_path / "results.jsonl", tmp_path / "cache"
        rows = probe(tiny_checkpoint, train, test, name="cards", out=out, cache=cache, config=QUICK)
        assert [row.key for row in rows] == ["probe/linear/cards", "probe/knn/cards"]
        assert [row.main for row in rows] == [1.0, 1.0]
        assert rows[0].metrics["acc5"] is None
        assert read_rows(out) == rows
        monkeypatch.setattr(probing, "embed_rows", None)
        again = probe(tiny_checkpoint, train, test, name="cards", out=out, cache=cache, config=QUICK)
        assert again == rows

    def test_a_damaged_picture_is_left_out_and_a_damaged_cache_made_again(
        self, folders: tuple[Path, Path], tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        train, test = folders
        (train / "red" / "0.png").write_bytes(b"no picture")
        cache = tmp_path / "cache"
        for _ in range(2):
            (row, _) = probe(tiny_checkpoint, str(train), str(test), name="cards", cache=cache, config=QUICK)
            assert row.details["num_training_pictures"] == 11
            assert "red/0.png" in str(row.details["dropped"])
            for file in cache.iterdir():
                file.write_bytes(file.read_bytes()[:100])

    def test_another_models_results_are_not_mixed_in(
        self, folders: tuple[Path, Path], tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "results.jsonl"
        write_rows(out, [Row(key="a", dataset="a", metrics={"main_metric": 0.5}, details={"digest": "x"})])
        with pytest.raises(ValueError, match="another model"):
            probe(tiny_checkpoint, *map(str, folders), name="cards", out=out, config=QUICK)

    def test_classes_that_do_not_fit(self, folders: tuple[Path, Path], tiny_checkpoint: Path) -> None:
        train, test = folders
        (test / "red").rename(test / "green")
        with pytest.raises(ValueError, match=r"classes that .* has not \(green\)"):
            probe(tiny_checkpoint, str(train), str(test), name="cards", config=QUICK)

    def test_the_command(
        self, cli: Cli, folders: tuple[Path, Path], tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        train, test = folders
        out = tmp_path / "r.jsonl"
        ran = cli(
            "probe",
            tiny_checkpoint,
            "--train",
            train,
            "--test",
            test,
            "--kind",
            "knn",
            "--out",
            out,
            "--json",
        )
        assert ran.code == 0, ran.err
        assert list(json.loads(ran.out)) == [f"probe/knn/{tmp_path.name}"]
        assert (tmp_path / "r.files" / "features").is_dir()
        assert cli("probe", tiny_checkpoint, "--train", train).code == 2
        assert cli("probe", tiny_checkpoint).code == 2


def test_a_packed_split_has_its_captions_for_classes(shapes: Path) -> None:
    pictures, names = open_labelled(f"{shapes}@validation")
    assert len(pictures.items) == len(names) == 24
    assert names[0] == "a red circle"
    with pytest.raises(ValueError, match="say which split"):
        open_labelled(str(shapes))
    with pytest.raises(FileNotFoundError, match="a folder for each class"):
        open_labelled("nowhere")
