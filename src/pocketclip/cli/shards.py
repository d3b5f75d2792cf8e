"""The verbs that make shards: pack and reinforce."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import SHOWN, Outcome, UsageError, some
from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.codec import Codec
from pocketclip.data.foreign.annotation_spec import Format

if TYPE_CHECKING:
    from pocketclip.data.foreign.annotation_spec import AnnotationSpec
    from pocketclip.data.index import ShardIndex
    from pocketclip.reinforce import EngineConfig, ReinforceConfig
    from pocketclip.teachers import CaptionerSpec, TeacherSpec

_WITH_REVISION = ("hf-hub", "transformers")  # sources whose names may end in @REVISION


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Turn pictures and captions into WebDataset shards.

    SOURCE is a folder (pictures with a .txt beside each, or with metadata.jsonl or captions.csv),
    WebDataset tars, parquet with the pictures in it, or the word `emoji`: the demo's data set.
    With --format it is the records of a caption data set: MSCOCO, DOCCI, DCI, GBC or Recap-COCO.
    What cannot be used is dropped, counted, and listed with its reason in OUT/index.json.

    Examples:
        pocketclip pack photos/ data/
        pocketclip pack "shards/{000..009}.tar" data/
        pocketclip pack emoji emoji/
        pocketclip pack captions_train2017.json coco38k/ --pictures train2017/ --licences permissive
        pocketclip pack densely_captioned_images/ dci/ --format dci --text extended
    """

    source: Positional[str]
    """A folder, a .tar (a range in braces names several), a .parquet file, or `emoji`."""
    out: Positional[Path]
    """Folder for the shards and their index.json."""
    validation: Annotated[float | None, arg(help_behavior_hint="(default: 0.05)")] = None
    """Share of the pictures kept for validation (own data only)."""
    shard_samples: int = 1000
    """Most samples in a shard."""
    max_concepts: Annotated[int | None, arg(help_behavior_hint="(default: all)")] = None
    """Pack about this many emoji (`emoji` only)."""
    format: Annotated[Format | None, arg(help_behavior_hint="(default: none, or by the file's name)")] = None
    """A caption data set whose records name its pictures."""
    pictures: Annotated[str | None, arg(help_behavior_hint="(default: where the release has them)")] = None
    """Folder of its pictures (--format)."""
    text: Annotated[str | None, arg(help_behavior_hint="(default: the first)")] = None
    """Which of its texts (--format): dci short, extended, complete; gbc short, long, short-relation; recap-coco
    recaption, caption, both."""
    licences: Annotated[tuple[str, ...], arg(metavar="ID ...", help_behavior_hint="(default: all)")] = ()
    """Ids of the licences to keep (coco); `permissive` is 4 5 6, which makes MSCOCO-38k."""
    release_split: Annotated[str | None, arg(help_behavior_hint="(default: train)")] = None
    """Which of the release's own splits (docci)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Packs."""
        from pocketclip.pack import EmojiConfig, PackConfig, pack, pack_emoji

        if self.source == "emoji":
            if self.annotated() is not None:
                raise UsageError("--format and its options are for caption data sets, not for `emoji`")
            if self.validation is not None:
                raise UsageError("--validation is for own data: the splits of `emoji` are fixed")
            emoji = EmojiConfig(shard_samples=self.shard_samples, max_concepts=self.max_concepts)
            return _shards_outcome(pack_emoji(self.out, config=emoji), self.out, all_in="index.json")
        if self.max_concepts is not None:
            raise UsageError("--max-concepts is for `emoji` only")
        own = PackConfig(shard_samples=self.shard_samples, annotated=self.annotated())
        if self.validation is not None:
            own = replace(own, validation=self.validation)
        return _shards_outcome(pack(Path(self.source), self.out, config=own), self.out, all_in="index.json")

    def annotated(self) -> AnnotationSpec | None:
        """What is asked of a caption data set; None where SOURCE is none."""
        from pocketclip.data.foreign.annotated import recognised
        from pocketclip.data.foreign.annotation_spec import AnnotationSpec

        known = recognised(Path(self.source))
        name = self.format or (known.format if known else None)
        if name is None:
            if self.pictures or self.text or self.licences or self.release_split:
                raise UsageError("--pictures, --text, --licences and --release-split need --format")
            return None
        return AnnotationSpec(
            format=name,
            pictures=self.pictures,
            text=self.text,
            licences=_licences(self.licences),
            split=self.release_split,
        )


@dataclass(frozen=True, kw_only=True)
class Reinforce:
    """Add to every picture augmented views, and to every caption, what a teacher ensemble thinks of them.

    DATA is a folder written by `pocketclip pack`; .tar, .parquet or .jsonl files, as a folder, a pattern or an
    info.json; or a folder of captioned pictures. DATA and OUT may be s3://, gs:// and az:// addresses.
    Every shard is done once: interrupted or killed, the same command goes on, on whichever engine.
    What cannot be used is dropped, counted, and listed with its reason in OUT/manifest.jsonl.

    Examples:
        pocketclip reinforce emoji/ reinforced/ --teacher a=runs/a/checkpoint.safetensors
        pocketclip reinforce emoji/ out/ --teacher a=A.safetensors b=B.safetensors@70 --views 10 --codec int8
        pocketclip reinforce "s3://in/{000..127}.tar" s3://out/x --teacher l=open_clip:ViT-L-14/openai --engine ray
        pocketclip reinforce emoji/ --plan --samples 1900000000 --views 2 --teacher a=width:768 b=width:768
    """

    data: Positional[str]
    """What to reinforce."""
    out: Annotated[Positional[str], arg(help_behavior_hint="(required, but with --plan)")] = ""
    """Folder or address for the reinforced shards."""
    teacher: Annotated[tuple[str, ...], arg(metavar="NAME=SOURCE[@SCALE] ...")]
    """The ensemble: checkpoints, open_clip:MODEL/TAG, hf-hub:ORG/NAME, transformers:ORG/NAME, python:MODULE:FUNCTION;
    with @SCALE a teacher is distilled at that logit scale instead of its own."""
    plan: bool = False
    """Only say what it would take in bytes and time, from arithmetic and some samples; write nothing."""
    samples: Annotated[int | None, arg(help_behavior_hint="(default: those of DATA)")] = None
    """For so many samples (plan)."""
    rate: Annotated[
        tuple[str, ...], arg(metavar="PART=A_SECOND ...", help_behavior_hint="(default: measured here)")
    ] = ()
    """How many a worker would make in a second, image/TEACHER, text/TEACHER or caption/CAPTIONER (plan). Then a teacher
    need not be here: the source width:768 says how wide it is, a captioner's chars:55 how long its captions are."""
    price_per_hour: Annotated[float | None, arg(help_behavior_hint="(default: not said)")] = None
    """Of a worker (plan)."""
    captioner: Annotated[
        tuple[str, ...], arg(metavar="NAME=SOURCE ...", help_behavior_hint="(default: none)")
    ] = ()
    """Models that write synthetic captions first: open_clip:MODEL/TAG of a CoCa, python:MODULE:FUNCTION."""
    captions: int = 5
    """Captions of each picture by each captioner."""
    views: int = 10
    """Augmented views of each picture."""
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    """What views are drawn from."""
    codec: Codec = "bf16"
    """How embeddings are stored."""
    split: Annotated[tuple[str, ...], arg(metavar="SPLIT ...")] = ("train",)
    """Splits to reinforce."""
    shard_samples: int = 1000
    """Most samples in a shard, where DATA is a folder of pictures."""
    batch_size: int = 256
    """Rows a teacher sees at once."""
    seed: int = 0
    """Seed of the views."""
    device: str = "cpu"
    """Where the teachers run: cpu, cuda, mps."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the teachers compute in."""
    compile: bool = False
    """Compile the teachers."""
    threads: Annotated[
        int | None, arg(help_behavior_hint="(default: as the run that began, else torch's)")
    ] = None
    """Threads of torch in each worker; on a CPU the embeddings' last bits depend on it."""
    loaders: int = 2
    """Threads in each worker that decode and augment."""
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
    no_dashboard: bool = False
    """Start no dashboard (ray)."""
    attempts: int = 3
    """How often a shard is tried."""
    straggler: float = 3.0
    """A shard that takes so many times the median goes to a second worker, too; 0: never (ray)."""
    store_option: Annotated[
        tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="(default: the environment's)")
    ] = ()
    """Options of object stores: endpoint, region, timeout."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Reinforces, or says what that would take."""
        ray = ("ray",) if self.engine == "ray" and not self.plan else ()
        stores = ("stores",) if "://" in self.data + self.out else ()
        require("reinforce", ("train", *ray, *stores), device="cpu" if ray else self.device)
        if self.plan:
            return self._planned()
        if not self.out:
            raise UsageError(
                "reinforce needs a folder or address for its shards: pocketclip reinforce DATA OUT"
            )
        if self.samples is not None or self.rate or self.price_per_hour is not None:
            raise UsageError("--samples, --rate and --price-per-hour are for --plan")
        from pocketclip.reinforce import reinforce

        index = reinforce(self.data, self.out, config=self._config(), engine=self._engine())
        return _shards_outcome(index, self.out, all_in="manifest.jsonl")

    def _planned(self) -> Outcome:
        from pocketclip.reinforce import PlanConfig, plan_reinforcement

        asked = PlanConfig(
            num_samples=self.samples,
            rates=dict(_rate(text) for text in self.rate),
            price_per_hour=self.price_per_hour,
        )
        sheet = plan_reinforcement(self.data, config=self._config(), engine=self._engine(), asked=asked)
        return Outcome(sheet.text(), sheet.to_json())

    def _config(self) -> ReinforceConfig:
        from pocketclip.reinforce import ReinforceConfig

        return ReinforceConfig(
            teachers=tuple(parse_teacher(text) for text in self.teacher),
            captioners=tuple(_captioner(text, num_captions=self.captions) for text in self.captioner),
            num_views=self.views,
            augment=self.augment,
            codec=self.codec,
            seed=self.seed,
            splits=self.split,
            batch_size=self.batch_size,
            device=self.device,
            precision=self.precision,
            compiled=self.compile,
            num_threads=self.threads,
            shard_samples=self.shard_samples,
        )

    def _engine(self) -> EngineConfig:
        from pocketclip.reinforce import EngineConfig

        return EngineConfig(
            kind=self.engine,
            num_loaders=self.loaders,
            attempts=self.attempts,
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            gpus_per_worker=self.gpus_per_worker,
            straggler=self.straggler,
            address=self.ray_address,
            dashboard=not self.no_dashboard,
            store_options=dict(_option(text) for text in self.store_option),
        )


def parse_teacher(text: str) -> TeacherSpec:
    """NAME=SOURCE[@SCALE], or the path of a checkpoint, named after its run's folder."""
    from pocketclip.teachers import TeacherSpec

    name, source = _named(text)
    before, separator, scale = source.rpartition("@")
    try:
        return TeacherSpec(
            name=name,
            source=before if separator else source,
            logit_scale=float(scale) if separator else None,
        )
    except ValueError:
        if separator and not _is_number(scale):
            if source.partition(":")[0] in _WITH_REVISION:
                return TeacherSpec(name=name, source=source)
            raise UsageError(
                f"teacher {text}: the logit scale after @ must be a number, got {scale!r}"
            ) from None
        raise


def _captioner(text: str, *, num_captions: int) -> CaptionerSpec:
    from pocketclip.teachers import CaptionerSpec

    name, separator, source = text.partition("=")
    if not separator:
        raise UsageError(f"--captioner {text} is not of the form NAME=SOURCE")
    return CaptionerSpec(name=name, source=source, num_captions=num_captions)


def _named(text: str) -> tuple[str, str]:
    name, separator, source = text.partition("=")
    if not separator:
        return Path(text).parent.name or Path(text).stem, text
    if not name or not source:
        raise UsageError(f"{text!r} is not of the form NAME=SOURCE")
    return name, source


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rate(text: str) -> tuple[str, float]:
    part, separator, rate = text.partition("=")
    if not separator or not _is_number(rate):
        raise UsageError(f"--rate {text} is not of the form PART=A_SECOND, image/TEACHER=1500 say")
    return part, float(rate)


def _licences(texts: tuple[str, ...]) -> tuple[int, ...]:
    from pocketclip.data.foreign.coco import PERMISSIVE

    if texts == ("permissive",):
        return PERMISSIVE
    if not all(text.isdecimal() for text in texts):
        raise UsageError(f"--licences {' '.join(texts)}: give ids (4 5 6), or the word permissive")
    return tuple(int(text) for text in texts)


def _option(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"--store-option {text} is not of the form KEY=VALUE")
    return key, value


def _shards_outcome(index: ShardIndex, out: Path | str, *, all_in: str) -> Outcome:
    counts = {split: index.num_samples(split) for split in index.splits}
    folder = str(out).rstrip("/")
    lines = [f"{count:8} samples  {folder}/{split}" for split, count in counts.items()]
    lines += [f"{count:8} under {licence}" for licence, count in index.licences.items()]
    counted = index.config.get("num_dropped")
    num_dropped = counted if isinstance(counted, int) else len(index.dropped)
    lines += some(
        [(dropped.source, dropped.reason) for dropped in index.dropped], what="dropped", num=num_dropped
    )
    if len(index.dropped) > SHOWN:
        lines.append(f"{'':8} {folder}/{all_in} lists them all")
    values = {
        "splits": counts,
        "licences": dict(index.licences),
        "num_dropped": num_dropped,
        "dropped": [asdict(dropped) for dropped in index.dropped],
    }
    return Outcome("\n".join(lines), values)
