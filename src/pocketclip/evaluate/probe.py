"""Probes: how much a frozen model's features tell a simple classifier, linear or by nearest neighbours.

N: pictures, D: features, C: classes.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pocketclip.data.index import INDEX_FILE, Dropped
from pocketclip.data.publish import publish_file
from pocketclip.data.sample import JsonValue
from pocketclip.evaluate.embedder import Evaluable, PixelEmbedder, as_embedder
from pocketclip.evaluate.feed import default_threads, embed_rows
from pocketclip.evaluate.probe_knn import knn_scores
from pocketclip.evaluate.probe_linear import choose_penalty, fit_linear, hold_out
from pocketclip.evaluate.probe_row import classified, keep, own_rows
from pocketclip.evaluate.rows import Row
from pocketclip.evaluate.sets.folders import open_classes, open_packed
from pocketclip.evaluate.sets.item import PictureSet
from pocketclip.evaluate.tasks import Task

PENALTIES = tuple(10.0**power for power in range(-5, 3))
TITLES = {"linear": "linear probe", "knn": "nearest neighbours"}
KINDS = tuple(TITLES)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How features are probed.

    Attributes:
        kinds: of `KINDS`.
        penalties: of the linear probe, from which one is chosen on held-out training pictures.
        held_out: share of each class held out to choose; the chosen penalty is fitted on all again.
        neighbours: k of the nearest-neighbour probe.
        temperature: of its votes.
        batch_size: pictures a run of the network.
        device: where torch runs the model.
        seed: of the draw of held-out pictures, and of the bootstrap.
        resamples: of the bootstrap.
    """

    kinds: tuple[str, ...] = KINDS
    penalties: tuple[float, ...] = PENALTIES
    held_out: float = 0.2
    neighbours: int = 20
    temperature: float = 0.07
    batch_size: int = 64
    device: str = "cpu"
    seed: int = 0
    resamples: int = 1000

    def __post_init__(self) -> None:
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise ValueError(f"kinds is {list(self.kinds)}: it may hold {', '.join(KINDS)}")
        if not self.penalties or min(self.penalties) <= 0 or self.temperature <= 0:
            raise ValueError("penalties and temperature must be above 0")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}: it must lie between 0 and 1")
        if min(self.neighbours, self.batch_size, self.resamples) < 1:
            raise ValueError("neighbours, batch_size and resamples must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Features:
    """A set as the model sees it.

    Attributes:
        rows_ND: [N, D] unit-norm embeddings.
        names: class of each picture.
        digest: of the set.
        dropped: pictures that could not be read, and why.
    """

    rows_ND: NDArray[np.float32]
    names: tuple[str, ...]
    digest: str
    dropped: tuple[Dropped, ...]


def probe(
    model: Evaluable,
    train: str,
    test: str,
    *,
    name: str,
    out: Path | None = None,
    cache: Path | None = None,
    config: ProbeConfig | None = None,
) -> tuple[Row, ...]:
    """Fit probes on one set's features and measure them on another's.

    Args:
        model: whatever `evaluate` takes.
        train: a folder with a folder for each class, or FOLDER@SPLIT of a packed one, where a picture's main caption is
            its class.
        test: likewise; every class must be among the training classes.
        name: of the set, in the results' keys: `probe/linear/NAME`, `probe/knn/NAME`.
        out: result file; rows of other sets in it are kept. None keeps nothing.
        cache: folder for features; None computes them anew.
        config: how; None for the defaults.

    Returns:
        A row for each kind: acc1, acc5 (where there are five classes) and mean_per_class_recall, 0..1; main is acc1.

    Raises:
        ValueError: a set without pictures, fewer than two classes, a test class that was not trained on, or a result
            file of another model.
        OSError: a file that cannot be read or written.
    """
    config = config or ProbeConfig()
    embedder = as_embedder(model, name=name, device=config.device)
    if not isinstance(embedder, PixelEmbedder):
        raise ValueError(
            f"a {type(embedder).__name__} cannot be probed: give a checkpoint or an exported model"
        )
    others = own_rows(out, embedder)
    learned = features_of(embedder, train, cache=cache, config=config)
    asked = features_of(embedder, test, cache=cache, config=config)
    label_M, label_N, num_classes = _labels(learned, asked, train=train, test=test)
    found, queries = [], {}
    for kind in config.kinds:
        scores_NC, facts = _scores(kind, learned.rows_ND, label_M, asked.rows_ND, num_classes, config)
        top_NK = np.argsort(-scores_NC, axis=1, kind="stable")[:, : min(5, num_classes)].astype(np.int64)
        row = classified(
            label_N,
            top_NK,
            key=f"probe/{kind}/{name}",
            dataset=f"{name}, {TITLES[kind]}",
            embedder=embedder,
            details=_details(learned, asked, facts),
            seed=config.seed,
            resamples=config.resamples,
        )
        queries[row.key] = {"label": label_N, "top": top_NK}
        found.append(row)
    if out is not None:
        keep(out, found, queries, others=others)
    return tuple(found)


def features_of(embedder: PixelEmbedder, place: str, *, cache: Path | None, config: ProbeConfig) -> Features:
    """The embeddings of a set's pictures, from the cache where they are there."""
    pictures, names = open_labelled(place)
    key = hashlib.sha256(json.dumps([embedder.digest, pictures.digest]).encode()).hexdigest()[:32]
    path = None if cache is None else cache / f"{key}.npz"
    kept: dict[str, NDArray[Any]] | None = None if path is None else _read(path)
    if kept is None:
        bar = tqdm(
            total=len(names),
            desc=f"embed {place}",
            unit="picture",
            mininterval=0.1 if sys.stderr.isatty() else 10,
        )
        with bar:
            embedded = embed_rows(
                {"model": embedder},
                pictures,
                range(len(names)),
                batch_size=config.batch_size,
                threads=default_threads(),
                progress=bar.update,
            )
        if not len(embedded.rows):
            raise ValueError(f"none of the {len(names)} pictures of {place} can be read")
        dropped = json.dumps([asdict(one) for one in embedded.dropped])
        kept = {"rows": embedded.rows, "features": embedded.images["model"], "dropped": np.array(dropped)}
        if path is not None:
            with publish_file(path) as file:
                np.savez(file, allow_pickle=False, **kept)
    return Features(
        rows_ND=kept["features"],
        names=tuple(names[row] for row in kept["rows"]),
        digest=pictures.digest,
        dropped=(*pictures.dropped, *(Dropped(**one) for one in json.loads(str(kept["dropped"])))),
    )


def open_labelled(place: str) -> tuple[PictureSet, tuple[str, ...]]:
    """A set and the class of each of its pictures: the folder it lies in, or its main caption.

    Raises:
        ValueError: no pictures there, or a packed folder without a split.
    """
    folder, _, split = place.partition("@") if not Path(place).is_dir() else (place, "", "")
    if (Path(folder) / INDEX_FILE).is_file():
        if not split:
            raise ValueError(f"{folder} is packed: say which split, {folder}@SPLIT")
        packed = open_packed(Path(folder), split=split)
        return packed, tuple(item.captions[0] for item in packed.items)
    if not Path(place).is_dir():
        raise FileNotFoundError(
            f"{place} is no folder: give a folder with a folder for each class, or PACKED@SPLIT"
        )
    found = open_classes(Path(place), task=Task(key="probe", name=place, source=""))
    return found, tuple(Path(item.source).parent.name for item in found.items)


def _scores(
    kind: str,
    train_MD: NDArray[np.float32],
    label_M: NDArray[np.int64],
    test_ND: NDArray[np.float32],
    num_classes: int,
    config: ProbeConfig,
) -> tuple[NDArray[np.float64], dict[str, JsonValue]]:
    """[N, C], and what was chosen."""
    if kind == "knn":
        k, temperature = config.neighbours, config.temperature
        votes = knn_scores(train_MD, label_M, test_ND, num_classes=num_classes, k=k, temperature=temperature)
        return votes, {"neighbours": k, "temperature": temperature}
    held_M = hold_out(label_M, share=config.held_out, seed=config.seed)
    penalty, accuracy = choose_penalty(
        train_MD, label_M, held_M, num_classes=num_classes, penalties=config.penalties
    )
    fitted = fit_linear(train_MD, label_M, num_classes=num_classes, penalty=penalty)
    facts: dict[str, JsonValue] = {
        "penalty": penalty,
        "held_out_accuracy": {f"{key:g}": value for key, value in accuracy.items()},
    }
    return fitted.scores(test_ND), facts


def _labels(
    learned: Features, asked: Features, *, train: str, test: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Training labels [M], test labels [N], and the number of classes."""
    classes = sorted(set(learned.names))
    if len(classes) < 2:
        raise ValueError(f"{train} has pictures of {len(classes)} class: a probe needs two or more")
    strangers = sorted(set(asked.names) - set(classes))
    if strangers:
        raise ValueError(f"{test} has classes that {train} has not ({', '.join(strangers[:3])}): remove them")
    labels = {text: number for number, text in enumerate(classes)}
    label_M = np.array([labels[text] for text in learned.names], dtype=np.int64)
    return label_M, np.array([labels[text] for text in asked.names], dtype=np.int64), len(classes)


def _details(learned: Features, asked: Features, facts: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {
        "data": f"{learned.digest}:{asked.digest}",
        "num_pictures": len(asked.names),
        "num_training_pictures": len(learned.names),
        "dropped": [f"{one.source}: {one.reason}" for part in (learned, asked) for one in part.dropped],
        "probe": dict(facts),
    }


def _read(path: Path) -> dict[str, NDArray[Any]] | None:
    """Cached features; None where there are none that can be read."""
    if not path.is_file():
        return None
    try:
        # from memory: numpy leaves a file open that turns out to be damaged
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in ("rows", "features", "dropped")}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile):  # damaged: computed again
        path.unlink()
        return None
