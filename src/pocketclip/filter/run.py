"""Scores a data set: for every shard a file of columns, each shard once, going on where an earlier run stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pocketclip.data.index import ShardIndex
from pocketclip.data.objects import Place, open_store
from pocketclip.data.publish import sha256_file
from pocketclip.data.reinforced import reinforcement_of
from pocketclip.data.sample import JsonValue
from pocketclip.data.shard import ShardReader
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.engine import (
    EngineConfig,
    Facts,
    Job,
    OpenUnit,
    Verb,
    plan_units,
    run_task,
    settled_threads,
)
from pocketclip.filter.config import ScoreConfig
from pocketclip.filter.language import find_detector
from pocketclip.filter.measure import Measures
from pocketclip.filter.scores import SUFFIX, VERSION, score_bytes
from pocketclip.filter.shard import ScoreRequest, score_items
from pocketclip.teachers import Teacher, build_teacher

_NAMED = 20  # rows without scores that the index names


def score(
    data: Path | str,
    out: Path | str,
    *,
    config: ScoreConfig,
    engine: EngineConfig = EngineConfig(),  # noqa: B008 - frozen
) -> ShardIndex:
    """Writes `out`: for every shard of the input one file of scores and measures, then manifest and index.

    Killed anywhere and run again it goes on, and ends in the same bytes; finished, it is left alone.

    Args:
        data: a packed or reinforced folder; tars, parquet or JSON lines; a folder of captioned pictures. Folders or
            addresses (s3://, gs://, az://). Only packed and reinforced folders can be filtered without a copy.
        out: the folder of scores, or address.
        config: what to find out.
        engine: where it runs.

    Returns:
        The index of `out`, which lists score files with their numbers of rows.

    Raises:
        ValueError: `out` holds something else; a teacher or the input is unusable.
        FailedShardsError: some shards failed; all others are done, and the same call tries the failed ones again.
        FileNotFoundError: there is no such input, teacher or list of words.
        ImportError: an extra that this needs is not installed.
        PublishError: `out` cannot be written.
    """
    options = dict(engine.store_options)
    source, target = Place(url=str(data), options=options), Place(url=str(out), options=options)
    plan = plan_units(source, splits=config.splits, shard_samples=config.shard_samples)
    kinds = {unit.kind for unit in plan.units}
    if config.stored and kinds != {"packed"}:
        raise ValueError(f"{data} is not reinforced: stored embeddings are in reinforced shards alone")
    units = [
        replace(unit, name=PurePosixPath(unit.name).with_suffix(SUFFIX).as_posix()) for unit in plan.units
    ]
    threads = settled_threads(target, verb=VERB, engine=engine, asked=config.num_threads)
    config = replace(config, num_threads=threads)
    place = plan.place.url
    if plan.place.is_folder and target.is_folder:
        place = os.path.relpath(place, str(out))
    return run_task(
        ScoreTask(config=config, num_loaders=engine.num_loaders, source=plan.place),
        plan=replace(plan, units=tuple(units)),
        out=target,
        verb=VERB,
        engine=engine,
        digest=lambda described: _digest(config, described),
        config=lambda described: {**_facts(config, described), "data": place, "kind": sorted(kinds)[0]},
        tally=_Tally(),
    )


@dataclass(frozen=True, kw_only=True)
class ScoreTask:
    """Scoring as the engine takes it. See `engine.Task`.

    Attributes:
        config: what to find out; `num_threads` is a number.
        num_loaders: threads that decode.
        source: of the units, for what is stored beside their samples.
    """

    config: ScoreConfig
    num_loaders: int
    source: Place

    @property
    def num_threads(self) -> int:
        """See `Task`."""
        return self.config.num_threads or 1

    @property
    def device(self) -> str:
        """See `Task`."""
        return self.config.device

    def build(self) -> ScoreMaker:
        """See `Task`. Raises what `build_teacher` does, and FileNotFoundError for the list of words."""
        config = self.config
        teachers = [
            build_teacher(spec, device=config.device, precision=config.precision, compiled=config.compiled)
            for spec in config.teachers
        ]
        return ScoreMaker(self, teachers=teachers)


class ScoreMaker:
    """Teachers at work. See `engine.Maker`.

    Args:
        task: what they do.
        teachers: that encode.
    """

    def __init__(self, task: ScoreTask, *, teachers: list[Teacher]) -> None:
        self._task = task
        self._teachers = teachers
        self._detector, detect = find_detector(task.config.languages)
        self._words = None if task.config.words is None else _read_words(Path(task.config.words))
        self._measures = Measures(
            meta=task.config.meta,
            words=self._words,
            detect=detect,
            tokenizer=Tokenizer(TokenizerConfig()),
            hash_pictures=task.config.hash_pictures,
        )

    @property
    def described(self) -> dict[str, JsonValue]:
        """See `Maker`: the teachers, their `records`, what tells languages, and the digest of the words."""
        words = self._task.config.words
        return {
            "records": [asdict(teacher.record) for teacher in self._teachers],
            "teachers": [dict(teacher.describe()) for teacher in self._teachers],
            "languages_by": self._detector,
            "words_sha256": None if words is None else sha256_file(Path(words)),
        }

    def make(
        self,
        unit: OpenUnit,
        file: IO[bytes],
        *,
        job: Job,
        folder: Path | None,
        progress: Callable[[int], object],
    ) -> Facts:
        """See `Maker`."""
        config = self._task.config
        request = ScoreRequest(
            measures=self._measures,
            captions=config.captions,
            stored=config.stored,
            embeddings=config.embeddings,
            batch_size=config.batch_size,
            num_loaders=self._task.num_loaders,
        )
        with ExitStack() as stack:
            block = None
            if config.stored:
                path = stack.enter_context(open_store(self._task.source).fetch(job.unit.file))
                block = reinforcement_of(stack.enter_context(ShardReader(path)))
            scored = score_items(
                unit.items, teachers=self._teachers, block=block, request=request, progress=progress
            )
        input_sha256 = unit.sha256()
        about: dict[str, JsonValue] = {
            "shard": job.unit.file,
            "num_bytes": job.unit.num_bytes,
            "input_sha256": input_sha256,
            "config_digest": job.config_digest,
        }
        data = score_bytes(scored.columns, about=about) if scored.num_rows else b""
        file.write(data)
        return Facts(
            num_samples=scored.num_rows,
            num_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest() if data else "",
            input_sha256=input_sha256,
            dropped=(),
            licences={},
            seconds=scored.seconds,
            more={"unscored": dict(scored.unscored)},
        )


def _check(content: Mapping[str, JsonValue]) -> None:
    """ValueError when `Facts.more` is not what `ScoreMaker` writes."""
    if content.keys() != {"unscored"} or not isinstance(content["unscored"], dict):
        raise ValueError("it is no line of a score folder's manifest")


VERB = Verb(name="score", done="scored", settings="configuration or other teachers", check=_check)


class _Tally:
    """How many rows have no score, and why some have none. See `engine.Tally`."""

    def __init__(self) -> None:
        self._num = 0
        self._named: dict[str, JsonValue] = {}

    def add(self, facts: Facts) -> None:
        """See `Tally`."""
        unscored = facts.more["unscored"]
        assert isinstance(unscored, dict)
        self._num += len(unscored)
        for key, reason in unscored.items():
            if len(self._named) < _NAMED:
                self._named[key] = reason

    def facts(self) -> dict[str, JsonValue]:
        """See `Tally`."""
        return {"num_unscored": self._num, "unscored": self._named}


def _read_words(path: Path) -> frozenset[str]:
    words = path.read_text(encoding="utf-8").split("\n")
    return frozenset(word.strip().lower() for word in words if word.strip())


def _digest(config: ScoreConfig, described: Mapping[str, Any]) -> str:
    """Of everything that the files depend on, apart from the input."""
    content = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "words"}
    content |= {"version": VERSION, **described, "teachers": described["records"]}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _facts(config: ScoreConfig, described: Mapping[str, Any]) -> dict[str, JsonValue]:
    """What the index says of the configuration."""
    teachers: list[JsonValue] = [
        {**one, **record} for record, one in zip(described["records"], described["teachers"], strict=True)
    ]
    return {
        "verb": "score",
        "teachers": teachers,
        "stored": list(config.stored),
        "captions": config.captions,
        "embeddings": list(config.embeddings),
        "languages_by": described["languages_by"],
        "words_sha256": described["words_sha256"],
    }
