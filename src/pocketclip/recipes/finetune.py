"""Fine-tuning on one's own pictures, with the starting checkpoint as a regulariser, and what it cost elsewhere.

    pocketclip finetune --data photos/ --from runs/kd/checkpoint.safetensors --out tuned/ --general emoji/

Hardware: two CPU cores for a tiny model and some hundred pictures. Time: minutes. Expected result: docs/train.md.

The steps, each left as it is when its result is there: pack the pictures; let the starting checkpoint (and other
teachers) reinforce them; train from that checkpoint on both losses, with early stopping on the validation split; take
the point between start and end (WiSE-FT, arXiv 2109.01903) that does best on it, the one nearest the start where
several do; compare before and after, on the own pictures and on a general set that was not trained on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pocketclip.checkpoint import Loaded, interpolate, load, save, unstructure
from pocketclip.data.augment import AugmentSpec
from pocketclip.data.index import INDEX_FILE, ShardIndex, read_index
from pocketclip.data.publish import publish_file
from pocketclip.data.stream import StreamConfig
from pocketclip.evaluate import EvaluateConfig, Report, evaluate, make_evaluator
from pocketclip.fit import LoopConfig, OptimConfig, TrackConfig
from pocketclip.pack import PackConfig, pack
from pocketclip.recipes.finetune_report import AFTER, BEFORE, TUNED, Tuned, write_report
from pocketclip.recipes.run import train_recipe
from pocketclip.reinforce import ReinforceConfig, reinforce
from pocketclip.teachers import TeacherSpec
from pocketclip.train import CHECKPOINT_FILE, Freeze, ObjectiveConfig, TrainConfig

METRIC = "validation/mean_recall@1"
# A caption says what the whole picture shows: crops as small as the published 8% would not.
VIEWS = AugmentSpec(scale=(0.4, 1.0))
FOREIGN_LR = 2e-5
START = "start"  # the starting checkpoint's name among the teachers


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How to fine-tune.

    Attributes:
        teachers: that regularise besides the starting checkpoint.
        distill_weight: of the teachers' opinion against that of the captions, in [0, 1]; 0 needs no teacher.
        freeze: what keeps its weights: see `TrainConfig`.
        epochs: passes over the training pictures, at most.
        patience: epochs without a better validation score after which training ends; 0 for never.
        batch_size: pictures of a step; fewer where there are fewer.
        lr_peak: learning rate after warm-up; None takes half of the starting checkpoint's own, scaled by the square
            root of the batches' sizes (arXiv 2205.10287), or 2e-5 where it does not say how it was trained.
        num_views: augmented views of each picture that the teachers see.
        augment: what they are drawn from.
        validation: share of a folder of pictures that is not trained on; packed folders have their own split.
        shares: of the fine-tuned weights, that are tried against the validation split.
        seed: of views, order and draws.
        device: where models run.
    """

    teachers: tuple[TeacherSpec, ...] = ()
    distill_weight: float = 0.5
    freeze: Freeze = "nothing"
    epochs: int = 40
    patience: int = 12
    batch_size: int = 64
    lr_peak: float | None = None
    num_views: int = 8
    augment: AugmentSpec = VIEWS
    validation: float = 0.2
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    seed: int = 0
    device: Literal["cpu", "cuda", "mps"] = "cpu"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError("epochs must be at least 1, and batch_size at least 2: a loss compares pairs")
        if not self.shares or not all(0.0 <= share <= 1.0 for share in self.shares):
            raise ValueError(f"shares must be in [0, 1] and at least one, got {self.shares}")
        if START in [teacher.name for teacher in self.teachers]:
            raise ValueError(
                f"{START!r} is the starting checkpoint's name among the teachers: call yours otherwise"
            )


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """What fine-tuning found.

    Attributes:
        checkpoint: of the model to use.
        report: a page of text; results.json beside it has every number.
        tuned: what the page says, as values.
    """

    checkpoint: Path
    report: Path
    tuned: Tuned


def finetune(
    data: Path,
    *,
    start: str,
    out: Path,
    config: FinetuneConfig,
    general: Path | None = None,
    general_splits: tuple[str, ...] = (),
    announce: Callable[[str], object] = print,
    track: TrackConfig | None = None,
) -> FinetuneResult:
    """Fine-tunes, or goes on fine-tuning, in the folder `out`.

    Args:
        data: pictures with captions in a layout that `pocketclip pack` reads, or a packed folder with the splits train
            and validation. Test splits, where it has some, are what before and after are compared on.
        start: the checkpoint to begin with, a file, a run's folder or hf-hub:ORG/NAME.
        out: folder; everything is kept in it.
        config: how.
        general: packed folder that is not trained on, to see what is forgotten; None for none.
        general_splits: of it; none for its test splits, or else its validation split.
        announce: called with a line when a step begins.
        track: where curves go besides metrics.jsonl; None for nowhere.

    Raises:
        ValueError: `out` holds another fine-tuning; the pictures are too few; a checkpoint cannot be used.
        FileNotFoundError: there are no such pictures, or no such checkpoint.
    """
    before = load(start)
    _claim(out, {"config": unstructure(config), "start_digest": before.digest})
    announce("pack the pictures")
    packed = data if (data / INDEX_FILE).is_file() else out / "data"
    if packed != data:
        pack(data, packed, config=PackConfig(validation=config.validation))
    index = read_index(packed)
    _check(index, packed)
    shards = packed
    if config.distill_weight > 0.0:
        announce("reinforce them with the starting checkpoint")
        shards = out / "reinforced"
        reinforce(packed, shards, config=reinforcement(start, config=config))
    announce("train from it")
    run = finetune_run(
        start, config=config, num_samples=index.num_samples("train"), history=before.config.run
    )
    trained = train_recipe(run, data=shards, out=out / "run", validation=packed, track=track)
    announce("look between start and end")
    tuned = load(trained)
    scores, share = _best_share(out, before, tuned, packed=packed, config=config)
    checkpoint = _keep(out / CHECKPOINT_FILE, before, tuned, share=share)
    announce("compare before and after")
    models = {BEFORE: before, TUNED: tuned, AFTER: load(checkpoint)}
    own = _compared(out / "results.json", models, packed, splits=measured_splits(packed), config=config)
    elsewhere = None
    if general is not None:
        splits = general_splits or measured_splits(general)
        elsewhere = _compared(out / "general.json", models, general, splits=splits, config=config)
    found = Tuned(start=start, index=index, scores=scores, share=share, own=own, general=elsewhere)
    write_report(out / "report.md", found, metrics=out / "run" / "metrics.jsonl")
    return FinetuneResult(checkpoint=checkpoint, report=out / "report.md", tuned=found)


def reinforcement(start: str, *, config: FinetuneConfig) -> ReinforceConfig:
    """The starting checkpoint's own opinion of the pictures, and that of other teachers."""
    return ReinforceConfig(
        teachers=(TeacherSpec(name=START, source=start), *config.teachers),
        num_views=config.num_views,
        augment=config.augment,
        seed=config.seed,
        device=config.device,
    )


def finetune_run(
    start: str, *, config: FinetuneConfig, num_samples: int, history: Mapping[str, Any]
) -> TrainConfig:
    """The run that begins with `start` and sees `num_samples` training pictures an epoch.

    Args:
        start: the checkpoint.
        config: how to fine-tune.
        num_samples: pictures to train on.
        history: what the checkpoint says of its own training.
    """
    batch_size = min(config.batch_size, num_samples)
    epoch = num_samples // batch_size
    num_steps = config.epochs * epoch
    lr_peak = config.lr_peak or _learning_rate(history, batch_size=batch_size)
    return TrainConfig(
        name="finetune",
        start=start,
        freeze=config.freeze,
        seed=config.seed,
        stream=StreamConfig(
            batch_size=batch_size,
            seed=config.seed,
            augment=config.augment,
            replay=config.distill_weight > 0.0,
            cache_mb=512,
        ),
        objective=ObjectiveConfig(distill_weight=config.distill_weight),
        optim=OptimConfig(
            lr_peak=lr_peak,
            lr_floor=lr_peak / 100,
            warmup_steps=max(1, num_steps // 10),
            weight_decay=0.1,
        ),
        loop=LoopConfig(
            num_steps=num_steps,
            log_every=max(1, epoch // 2),
            evaluate_every=epoch,
            save_every=max(10, epoch),
            best=METRIC,
            patience=config.patience,
        ),
        device=config.device,
    )


def measured_splits(packed: Path) -> tuple[str, ...]:
    """The test splits of a packed folder, or its validation split where it has none.

    Raises:
        ValueError: it has neither.
    """
    splits = read_index(packed).splits
    found = tuple(name for name in splits if name.startswith("test")) or (
        ("validation",) if "validation" in splits else ()
    )
    if not found:
        raise ValueError(f"{packed} has neither test splits nor validation, only {', '.join(splits)}")
    return found


def _learning_rate(history: Mapping[str, Any], *, batch_size: int) -> float:
    """Half of what the checkpoint was trained with, scaled to this batch."""
    run = history.get("config", {})
    own, batch = (
        run.get("optim", {}).get("lr_peak"),
        run.get("global_batch") or run.get("stream", {}).get("batch_size"),
    )
    if not own or not batch:
        return FOREIGN_LR
    return 0.5 * own * math.sqrt(batch_size / batch)


def _claim(out: Path, record: Mapping[str, Any]) -> None:
    """Makes `out` the folder of this fine-tuning, or makes sure that it is."""
    path, text = out / "finetune.json", json.dumps(record, indent=1, sort_keys=True) + "\n"
    if not path.is_file():
        with publish_file(path) as file:
            file.write(text.encode())
    elif path.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{out} holds a fine-tuning with other settings or from another checkpoint ({path} differs): choose "
            "another folder, or delete this one"
        )


def _check(index: ShardIndex, packed: Path) -> None:
    counts = {
        split: index.num_samples(split) if split in index.splits else 0 for split in ("train", "validation")
    }
    if counts["train"] < 2 or counts["validation"] < 2:
        raise ValueError(
            f"{packed} has {counts['train']} pictures to train on and {counts['validation']} for validation: both "
            "need at least 2; add pictures, or pack with another --validation share"
        )


def _best_share(
    out: Path, before: Loaded, tuned: Loaded, *, packed: Path, config: FinetuneConfig
) -> tuple[dict[float, float], float]:
    """Scores of the points between start and end, and the best point; the nearest to the start of several."""
    path = out / "shares.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {float(share): score for share, score in kept["scores"].items()}, kept["share"]
    score = make_evaluator(packed, preprocess=before.config.preprocess, tokenize=before.tokenizer)
    scores = {
        share: score(interpolate(before, tuned, share=share).to(config.device).model)[METRIC]
        for share in sorted(config.shares)
    }
    share = max(scores, key=lambda share: (scores[share], -share))
    with publish_file(path) as file:
        file.write(json.dumps({"metric": METRIC, "scores": scores, "share": share}, indent=1).encode())
    return scores, share


def _keep(path: Path, before: Loaded, tuned: Loaded, *, share: float) -> Path:
    if not path.is_file():
        kept = interpolate(before, tuned, share=share)
        run = {**tuned.config.run, "interpolated": {"share": share, "start_digest": before.digest}}
        save(path, kept.model, config=replace(kept.config, run=run), tokenizer=kept.tokenizer)
    return path


def _compared(
    path: Path, models: Mapping[str, Loaded], data: Path, *, splits: tuple[str, ...], config: FinetuneConfig
) -> Report:
    """The report that is there already, where it is of these pictures, or a new one."""
    if path.is_file():
        kept = Report.read(path)
        if (kept.data, kept.config.splits) == (str(data), splits):
            return kept
    report = evaluate(models, data, config=EvaluateConfig(splits=splits, device=config.device))
    report.write(path)
    return report
