"""What a reinforcement would cost: bytes by arithmetic, seconds from a short measured run. Nothing is written.

Teachers and captioners need not be there. `width:768` declares a teacher by its width alone, `chars:55` a captioner by
the length of its captions; what they would take in time is known only from rates that the user gives.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Container, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from pocketclip.data.codec import CODECS, Codec
from pocketclip.data.foreign.candidate import Candidate, admit
from pocketclip.data.index import Dropped
from pocketclip.data.objects import Place, open_store
from pocketclip.data.picture import decode
from pocketclip.data.sample import Sample
from pocketclip.engine.config import EngineConfig
from pocketclip.engine.units import Item, Plan, open_unit, plan_units
from pocketclip.reinforce.config import ReinforceConfig
from pocketclip.reinforce.plan_bytes import ShardShape, sample_bytes, shard_frame_bytes, table_bytes
from pocketclip.reinforce.plan_seconds import Measured, measure
from pocketclip.reinforce.plan_sheet import CostSheet
from pocketclip.teachers.captioner import build_captioner
from pocketclip.teachers.teacher import Teacher, build_teacher

_DECLARED_PX = 224  # side of the pictures of a teacher that is not there
_WIDTH = re.compile(r"width:([1-9][0-9]{0,5})")
_CHARS = re.compile(r"chars:([1-9][0-9]{0,5})")
_FILLING = "a small red bird on an old wooden bench near the green trees of a quiet park in summer "


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What is asked.

    Attributes:
        num_samples: of the whole data set; None: of the input.
        num_measured: samples that are measured.
        rates: `image/TEACHER` (views), `text/TEACHER` (texts), `caption/CAPTIONER` (captions) -> how many a second a
            worker would make, instead of what is measured here.
        price_per_hour: of a worker, in any currency.
    """

    num_samples: int | None = None
    num_measured: int = 48
    rates: Mapping[str, float] = field(default_factory=dict)
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_measured"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, rate in (*self.rates.items(), ("price_per_hour", self.price_per_hour)):
            if rate is not None and not 0 < rate < float("inf"):
                raise ValueError(f"{name} must be a positive number, got {rate}")


def plan_reinforcement(
    data: Path | str,
    *,
    config: ReinforceConfig,
    engine: EngineConfig = EngineConfig(),  # noqa: B008 - frozen
    asked: PlanConfig = PlanConfig(),
) -> CostSheet:
    """Estimates what `reinforce` would take.

    Args:
        data: as of `reinforce`; its first samples are measured.
        config: the reinforcement. A teacher's source may be `width:D`, a captioner's `chars:N`.
        engine: where it would run.
        asked: for how many samples, at what rates and price.

    Raises:
        ValueError: the input or a teacher is unusable; no sample of the input is; a rate is of nobody.
        FileNotFoundError: there is no such input or teacher.
        ImportError: an extra that this needs is not installed.
    """
    _check_rates(config, asked.rates)
    place = Place(url=str(data), options=dict(engine.store_options))
    plan = plan_units(place, splits=config.splits, shard_samples=config.shard_samples)
    probe = _probe(plan, num=asked.num_measured)
    ensemble = _Ensemble(config, rates=asked.rates)
    samples = [_declared_captions(sample, config) for sample in probe.samples]
    shard_samples = _shard_samples(probe, config=config, asked=asked)
    with _threads(config.num_threads) as num_threads:
        measured = measure(
            samples,
            config=config,
            teachers=ensemble.to_measure,
            captioners=[
                build_captioner(spec, device=config.device, precision=config.precision)
                for spec in config.captioners
                if not _CHARS.fullmatch(spec.source)
            ],
            sizes=ensemble.sizes,
            widths=list(ensemble.widths.values()),
            shard_samples=shard_samples,
        )
    return _sheet(
        probe,
        measured,
        ensemble,
        config=config,
        engine=engine,
        asked=asked,
        shard_samples=shard_samples,
        num_threads=num_threads,
    )


class _Ensemble:
    """The teachers: those that are there, and what is known of those that are not."""

    def __init__(self, config: ReinforceConfig, *, rates: Mapping[str, float]) -> None:
        self.widths: dict[str, int] = {}
        self.to_measure: list[Teacher] = []
        self.is_declared = False
        sizes = set()
        for spec in config.teachers:
            declared = _WIDTH.fullmatch(spec.source)
            if declared:
                self.widths[spec.name] = int(declared[1])
                self.is_declared = True
                sizes.add(_DECLARED_PX)
                continue
            teacher = build_teacher(
                spec, device=config.device, precision=config.precision, compiled=config.compiled
            )
            self.widths[spec.name] = teacher.record.embed_dim
            sizes.add(teacher.image_px)
            if not {f"image/{spec.name}", f"text/{spec.name}"} <= rates.keys():
                self.to_measure.append(teacher)
        self.sizes = sorted(sizes)


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """The first samples of the input, and what the units that they came from say of the whole.

    Attributes:
        samples: whose pictures can be decoded.
        num_looked_at: samples and the unusable between them.
        num_input: samples of the whole input; counted in the first units and scaled by bytes where it does not say.
        is_estimated: whether it was scaled.
        unit_samples: mean of a unit.
        read_s: seconds to fetch, hash and read an item.
    """

    samples: tuple[Sample, ...]
    num_looked_at: int
    num_input: int
    is_estimated: bool
    unit_samples: float
    read_s: float


def _probe(plan: Plan, *, num: int) -> _Probe:
    """Reads whole units until there are enough samples."""
    store = open_store(plan.place)
    samples: list[Sample] = []
    num_items = num_looked_at = num_bytes = 0
    read_s, reason = 0.0, "it is empty"
    for unit in plan.units:
        keys: set[str] = set()
        started, own_s = time.perf_counter(), 0.0
        with open_unit(unit, store) as opened:
            for item in opened.items:
                num_items += 1
                if len(samples) == num:
                    continue
                entered = time.perf_counter()
                num_looked_at += 1
                found = _usable(item, keys)
                if isinstance(found, Dropped):
                    reason = f"{found.source}: {found.reason}"
                else:
                    keys.add(found.key)
                    samples.append(replace(found, key=f"plan{len(samples):08d}"))  # units may share keys
                own_s += time.perf_counter() - entered
        read_s += time.perf_counter() - started - own_s
        num_bytes += unit.num_bytes
        if len(samples) == num:
            break
    if not samples:
        raise ValueError(f"no sample of {plan.source} can be reinforced: {reason}")
    all_bytes = sum(unit.num_bytes for unit in plan.units)
    estimate = round(num_items * all_bytes / max(1, num_bytes))
    num_input = estimate if plan.num_samples is None else plan.num_samples
    return _Probe(
        samples=tuple(samples),
        num_looked_at=num_looked_at,
        num_input=num_input,
        is_estimated=plan.num_samples is None and num_bytes < all_bytes,
        unit_samples=num_input / len(plan.units),
        read_s=read_s / num_items,
    )


def _usable(item: Item, keys: Container[str]) -> Sample | Dropped:
    """The sample, or why there is none; keys of the unit are used once."""
    found = admit(item) if isinstance(item, Candidate) else item
    if isinstance(found, Dropped):
        return found
    if found.key in keys:
        return Dropped(source=found.key, reason="another sample of its shard has the same key")
    try:
        decode(found.image, name=found.key)
    except ValueError as error:
        return Dropped(source=found.key, reason=str(error))
    return found


def _declared_captions(sample: Sample, config: ReinforceConfig) -> Sample:
    """The sample with captions as many and as long as captioners that are not there would write."""
    more = {}
    for spec in config.captioners:
        if spec.name in sample.synthetic:
            raise ValueError(
                f"sample {sample.key} has captions of {spec.name} already: give the captioner another name"
            )
        declared = _CHARS.fullmatch(spec.source)
        if declared:
            length = int(declared[1])
            text = (_FILLING * (1 + length // len(_FILLING)))[: length - 1] + "."
            more[spec.name] = (text,) * spec.num_captions
    return replace(sample, synthetic={**sample.synthetic, **more})


def _shard_samples(probe: _Probe, *, config: ReinforceConfig, asked: PlanConfig) -> int:
    """Samples of a shard: as in the input, unless another number of samples is asked for."""
    if asked.num_samples is None:
        return max(1, round(probe.unit_samples))
    return min(asked.num_samples, config.shard_samples)


def _sheet(
    probe: _Probe,
    measured: Measured,
    ensemble: _Ensemble,
    *,
    config: ReinforceConfig,
    engine: EngineConfig,
    asked: PlanConfig,
    shard_samples: int,
    num_threads: int,
) -> CostSheet:
    samples = measured.samples
    num_samples = asked.num_samples or probe.num_input
    num_texts = sum(len(sample.texts()) for sample in samples) / len(samples)
    seconds = _seconds(
        {"read": probe.read_s, **measured.seconds}, num_texts, config=config, rates=asked.rates
    )
    # Rates speak of a machine that has more than this one's processor.
    beside = config.device != "cpu" or bool(asked.rates)
    worker_s, waits = _worker_seconds(
        seconds, num_threads=num_threads, num_loaders=engine.num_loaders, beside=beside
    )
    return CostSheet(
        num_samples=num_samples,
        num_shards=-(-num_samples // shard_samples),
        num_measured=len(samples),
        sample_bytes=_bytes(
            samples, num_texts, config=config, widths=ensemble.widths, shard_samples=shard_samples
        ),
        sample_seconds=seconds,
        given=frozenset(asked.rates),
        worker_s=worker_s,
        waits=waits,
        codec=config.codec,
        num_workers=engine.num_workers,
        price_per_hour=asked.price_per_hour,
        worker=f"{_device_name(config.device)}, {num_threads} threads of torch, {engine.num_loaders} loaders",
        assumptions=tuple(
            _assumptions(
                probe,
                ensemble,
                config=config,
                asked=asked,
                shard_samples=shard_samples,
                num_texts=num_texts,
                beside=beside,
            )
        ),
    )


def _bytes(
    samples: Sequence[Sample],
    num_texts: float,
    *,
    config: ReinforceConfig,
    widths: Mapping[str, int],
    shard_samples: int,
) -> dict[Codec, dict[str, float]]:
    """Bytes of every part for one sample, by codec."""
    shape = ShardShape(
        num_samples=shard_samples,
        num_views=config.num_views,
        num_texts=round(num_texts * shard_samples),
        augment=config.augment,
        widths=widths,
    )
    own = asdict(sample_bytes(samples))
    frame = shard_frame_bytes(shape, codec_name=config.codec) / shard_samples
    return {
        codec: {
            **own,
            "frame": frame,
            **{part: size / shard_samples for part, size in table_bytes(shape, codec_name=codec).items()},
        }
        for codec in CODECS
    }


def _seconds(
    measured: Mapping[str, float], num_texts: float, *, config: ReinforceConfig, rates: Mapping[str, float]
) -> dict[str, float | None]:
    """Seconds of every part for one sample, in the order of the work; None where nobody knows."""
    times: dict[str, float] = {f"caption/{spec.name}": spec.num_captions for spec in config.captioners}
    for spec in config.teachers:
        times |= {f"image/{spec.name}": config.num_views, f"text/{spec.name}": num_texts}
    seconds: dict[str, float | None] = {part: measured[part] for part in ("read", "decode", "augment")}
    seconds |= {
        part: num / rates[part] if part in rates else measured.get(part) for part, num in times.items()
    }
    return seconds | {part: measured[part] for part in ("encode", "write")}


def _worker_seconds(
    seconds: Mapping[str, float | None], *, num_threads: int, num_loaders: int, beside: bool
) -> tuple[float | None, bool]:
    """Seconds of a worker for a sample, None where nobody knows; and whether its teachers wait for pictures.

    Loaders decode and augment while the teachers compute: beside them on an accelerator, on the same cores without.
    """
    known = [value for value in seconds.values() if value is not None]
    if len(known) < len(seconds):
        return None, False
    drawing = (seconds["decode"] or 0.0) + (seconds["augment"] or 0.0)
    rest = sum(known) - drawing
    num_cores = os.cpu_count() or 1
    shared = 0.0 if beside else (rest * min(num_threads, num_cores) + drawing) / num_cores
    worker_s = max(rest, drawing / num_loaders, shared)
    return worker_s, drawing / num_loaders >= max(rest, shared)


def _assumptions(
    probe: _Probe,
    ensemble: _Ensemble,
    *,
    config: ReinforceConfig,
    asked: PlanConfig,
    shard_samples: int,
    num_texts: float,
    beside: bool,
) -> Iterator[str]:
    """What the sheet takes for granted, in sentences."""
    yield f"all samples are as the measured ones: {num_texts:.2f} captions each, pictures and texts as large as theirs"
    if probe.num_looked_at > len(probe.samples):
        unusable = probe.num_looked_at - len(probe.samples)
        yield f"{unusable} of the first {probe.num_looked_at} cannot be used; of the others all are counted"
    if asked.num_samples is None and probe.is_estimated:
        yield "the input does not say how many samples it has: those of its first files, scaled by bytes"
    yield f"a shard has {shard_samples:,} samples"
    if any(_CHARS.fullmatch(spec.source) for spec in config.captioners):
        yield "captioners that are not there write as many captions of every picture as they are asked for"
    if ensemble.is_declared:
        yield f"teachers that are not there see pictures of {_DECLARED_PX} pixels"
    yield "q4 takes 4.5 bits for a value, its bases included; how it divides them depends on the embeddings"
    where = "beside the teachers" if beside else "on the cores that the teachers use"
    yield f"steps were measured one by one; loaders decode and augment {where}"
    yield "writing is making the tar and its hash: disks, networks, starts and failures are not counted"


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _check_rates(config: ReinforceConfig, rates: Mapping[str, float]) -> None:
    known = [f"{side}/{spec.name}" for spec in config.teachers for side in ("image", "text")]
    known += [f"caption/{spec.name}" for spec in config.captioners]
    for name in rates:
        if name not in known:
            raise ValueError(f"a rate of {name!r} is of nobody: known are {', '.join(known)}")


@contextmanager
def _threads(num: int | None) -> Generator[int, None, None]:
    """Has torch use so many threads, or its own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(num or before)
    try:
        yield num or before
    finally:
        torch.set_num_threads(before)
