"""The verbs that choose data: score and filter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.shards import parse_teacher
from pocketclip.cli.verbs import Outcome, UsageError

if TYPE_CHECKING:
    from pocketclip.engine import EngineConfig
    from pocketclip.filter import Decision, FilterConfig, ScoreConfig


@dataclass(frozen=True, kw_only=True)
class Score:
    """Find out about every sample how well picture and caption fit, and what can be told without a network.

    DATA is a packed or reinforced folder; .tar, .parquet or .jsonl files; or a folder of captioned pictures. DATA and
    OUT may be s3://, gs:// and az:// addresses. OUT gets one file of columns for each shard: cosines of picture and
    caption by each teacher, sizes, caption lengths, languages, perceptual hashes. `pocketclip filter` chooses by them.
    Every shard is done once: interrupted or killed, the same command goes on, on whichever engine.

    Examples:
        pocketclip score pool/ scores/ --teacher dfn=network/checkpoint.safetensors
        pocketclip score pool/ scores/ --teacher b32=open_clip:ViT-B-32/openai l14=open_clip:ViT-L-14/openai
        pocketclip score reinforced/ scores/ --stored conv vit --embedding conv
        pocketclip score s3://pool s3://scores --teacher dfn=dfn.safetensors --device cuda --engine ray
    """

    data: Positional[str]
    """What to score."""
    out: Positional[str]
    """Folder or address for the scores."""
    teacher: Annotated[
        tuple[str, ...], arg(metavar="NAME=SOURCE ...", help_behavior_hint="(default: none)")
    ] = ()
    """Score with these: checkpoints, open_clip:MODEL/TAG, hf-hub:ORG/NAME, transformers:ORG/NAME,
    python:MODULE:FUNCTION."""
    stored: Annotated[tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="(default: none)")] = ()
    """Score with what these teachers of a reinforced folder left in it: nothing is encoded."""
    captions: Literal["main", "mean", "best"] = "main"
    """The caption that scores are of: the first, or the mean or the best of all ground-truth ones."""
    embedding: Annotated[tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="(default: none)")] = ()
    """Keep these teachers' embeddings of the pictures too, in 8 bits, to find near-duplicates by."""
    meta: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("punsafe", "pwatermark")
    """Numbers of the samples' own details that become columns, where they are there."""
    words: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """File of words, one a line; captions' words on it are counted."""
    language: Annotated[tuple[str, ...], arg(metavar="CODE ...", help_behavior_hint="(default: all)")] = ()
    """Languages that occur; the fewer, the better short captions are told apart."""
    no_hash: bool = False
    """Compute no perceptual hashes."""
    split: Annotated[tuple[str, ...], arg(metavar="SPLIT ...")] = ("train",)
    """Splits to score."""
    batch_size: int = 256
    """Rows a teacher sees at once."""
    device: str = "cpu"
    """Where the teachers run: cpu, cuda, mps."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the teachers compute in."""
    compile: bool = False
    """Compile the teachers."""
    threads: Annotated[
        int | None, arg(help_behavior_hint="(default: as the run that began, else torch's)")
    ] = None
    """Threads of torch in each worker."""
    loaders: int = 2
    """Threads in each worker that decode."""
    engine: Literal["in-process", "ray"] = "in-process"
    """Work in this process, or on the actors of a Ray cluster."""
    min_workers: int = 1
    """Actors that are kept (ray)."""
    max_workers: Annotated[int | None, arg(help_behavior_hint="(default: as many as fit)")] = None
    """Actors at most (ray)."""
    gpus_per_worker: float = 1.0
    """Of an actor; with 0.5 two share one (ray)."""
    ray_address: Annotated[str | None, arg(help_behavior_hint="(default: a cluster of its own, here)")] = None
    """A running cluster: auto, or HOST:PORT (ray)."""
    store_option: Annotated[
        tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="(default: the environment's)")
    ] = ()
    """Options of object stores: endpoint, region, timeout."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Scores."""
        ray = ("ray",) if self.engine == "ray" else ()
        stores = ("stores",) if "://" in self.data + self.out else ()
        require("score", ("train", *ray, *stores), device="cpu" if ray else self.device)
        from pocketclip.filter import score

        index = score(self.data, self.out, config=self._config(), engine=self._engine())
        counts = {split: index.num_samples(split) for split in index.splits}
        lines = [f"{num:8} samples  {self.out.rstrip('/')}/{split}" for split, num in counts.items()]
        unscored, named = index.config["num_unscored"], index.config["unscored"]
        assert isinstance(named, dict)
        if unscored:
            lines.append(f"{unscored!s:>8} have a score missing, the first:")
            lines += [f"{'':9}{key}: {reason}" for key, reason in list(named.items())[:5]]
        if index.config["languages_by"] == "script":
            lines.append(
                "languages were told by their script alone: pip install 'pocketclip[filter]' tells them apart"
            )
        return Outcome(
            "\n".join(lines), {"splits": counts, "num_unscored": unscored, "unscored": dict(named)}
        )

    def _config(self) -> ScoreConfig:
        from pocketclip.filter import ScoreConfig

        return ScoreConfig(
            teachers=tuple(parse_teacher(text) for text in self.teacher),
            stored=self.stored,
            captions=self.captions,
            embeddings=self.embedding,
            meta=self.meta,
            words=None if self.words is None else str(self.words),
            languages=self.language,
            hash_pictures=not self.no_hash,
            splits=self.split,
            batch_size=self.batch_size,
            device=self.device,
            precision=self.precision,
            compiled=self.compile,
            num_threads=self.threads,
        )

    def _engine(self) -> EngineConfig:
        from pocketclip.engine import EngineConfig

        return EngineConfig(
            kind=self.engine,
            num_loaders=self.loaders,
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            gpus_per_worker=self.gpus_per_worker,
            address=self.ray_address,
            store_options=dict(_option(text) for text in self.store_option),
        )


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Keep the samples of a scored pool that rules, cuts and subsets leave.

    OUT becomes a packed folder that copies nothing: it names samples of the original shards, and `pocketclip train`
    takes it as it is. Beside it are kept.txt (the keys), report.html with sheet.png (pictures kept and dropped in each
    tenth) and report.json. Rules compare a column of the scores: score/NAME, width, height, min_side, max_side, aspect,
    pixels, chars, words, tokens, language, listed, meta/NAME.

    Examples:
        pocketclip filter scores/ dfn/ --top score/dfn=15%
        pocketclip filter scores/ kept/ --rule "language=en" "chars>=6" "aspect<=3" --duplicates phash:4
        pocketclip filter scores/ small/ --top score/dfn=15% --samples 12800000
        pocketclip filter scores/ basic/ --baseline basic_filtering
        pocketclip filter a-scores/ b-scores/ mixed/ --weights 0.7 0.3 --samples 1000000
    """

    folders: Positional[tuple[Path, ...]]
    """Folders of scores, one or more, and last the folder to make."""
    rule: Annotated[tuple[str, ...], arg(metavar="RULE ...", help_behavior_hint="(default: none)")] = ()
    """Conditions on columns, as COLUMN>=VALUE; >=, <=, >, <, = and !=."""
    baseline: Annotated[str | None, arg(help_behavior_hint="(default: none)")] = None
    """One of DataComp's: basic_filtering, clip_score_b32_30, clip_score_l14_30, laion2b, text_based, image_based,
    image_based_clip_score_l14_30, no_filter."""
    clusters: Annotated[str | None, arg(metavar="TEACHER=FILE", help_behavior_hint="(default: none)")] = None
    """Keep pictures whose nearest centroid is one of the wanted ones in FILE."""
    duplicates: Annotated[
        tuple[str, ...], arg(metavar="KIND ...", help_behavior_hint="(default: none are looked for)")
    ] = ()
    """Drop near-duplicates: phash:BITS by perceptual hash, TEACHER:COSINE by embedding."""
    top: Annotated[
        tuple[str, ...], arg(metavar="COLUMN=SHARE ...", help_behavior_hint="(default: none)")
    ] = ()
    """Keep the largest values of a column: COLUMN=15%, or COLUMN=COUNT."""
    top_of: Literal["pool", "kept"] = "pool"
    """Of the whole pool, or of what rules and duplicates left."""
    samples: Annotated[int | None, arg(help_behavior_hint="(default: all)")] = None
    """A uniform subset of so many, the same ones every time."""
    weights: Annotated[
        tuple[float, ...], arg(metavar="WEIGHT ...", help_behavior_hint="(default: one pool)")
    ] = ()
    """Mix the pools in these proportions."""
    repeat: bool = False
    """Take samples again where a pool is too small for its weight."""
    best: Annotated[str | None, arg(help_behavior_hint="(default: that of the first cut)")] = None
    """Column that tells the better of two duplicates."""
    seed: int = 0
    """Of the subset."""
    split: str = "train"
    """Of the scores."""
    output: Literal["virtual", "copy", "ids"] = "virtual"
    """An index of the original shards, shards of their own, or keys alone."""
    examples: int = 3
    """Pictures on the sheet for each tenth, kept and dropped."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Filters."""
        if len(self.folders) < 2:
            raise UsageError("filter needs a folder of scores and one to make: pocketclip filter SCORES OUT")
        require("filter", ("train",))
        from pocketclip.filter import filter_pool

        *scores, out = self.folders
        decision = filter_pool(scores, out, config=self._config())
        return Outcome(_told(decision, out), _values(decision))

    def _config(self) -> FilterConfig:
        from pocketclip.filter import (
            BASELINES,
            FilterConfig,
            parse_clusters,
            parse_duplicates,
            parse_rule,
            parse_top,
        )

        config = FilterConfig(
            rules=tuple(parse_rule(text) for text in self.rule),
            clusters=None if self.clusters is None else parse_clusters(self.clusters),
            duplicates=tuple(parse_duplicates(text) for text in self.duplicates),
            tops=tuple(parse_top(text, of=self.top_of) for text in self.top),
            samples=self.samples,
            weights=self.weights,
            repeat=self.repeat,
            seed=self.seed,
            best=self.best,
            split=self.split,
            output=self.output,
            examples=self.examples,
        )
        if self.baseline is None:
            return config
        if self.baseline not in BASELINES:
            raise UsageError(f"there is no baseline {self.baseline!r}; there are {', '.join(BASELINES)}")
        found = BASELINES[self.baseline]
        if found.has_clusters and config.clusters is None:
            raise UsageError(f"baseline {self.baseline} needs clusters of pictures: --clusters TEACHER=FILE")
        return replace(config, rules=(*found.rules, *config.rules), tops=(*found.tops, *config.tops))


def _told(decision: Decision, out: Path) -> str:
    num = len(decision.times_N)
    lines = [f"{num:12,} samples"]
    left = num
    for step in decision.steps:
        left -= step.num_dropped
        cut = step.facts.get("cut")
        note = "" if cut is None else f" (from {cut:.4f} on)"
        lines.append(f"{-step.num_dropped:12,} {step.name}{note}")
    lines.append(f"{decision.num_kept:12,} kept in {out}, {100 * decision.num_kept / num:.1f}%")
    if decision.num_kept != left:
        lines.append(f"{left:12,} of them different ones")
    lines.append(f"{'':12} {out}/report.html shows them")
    return "\n".join(lines)


def _values(decision: Decision) -> dict[str, object]:
    return {
        "num_samples": len(decision.times_N),
        "num_kept": decision.num_kept,
        "steps": [
            {
                "name": step.name,
                "dropped": step.num_dropped,
                "failing": step.num_failing,
                **step.facts,
            }
            for step in decision.steps
        ],
    }


def _option(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"--store-option {text} is not of the form KEY=VALUE")
    return key, value
