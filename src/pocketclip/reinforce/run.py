"""Reinforces a data set, each shard once, going on where an earlier run stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path, PurePath
from typing import Any

from pocketclip.data.index import ShardIndex
from pocketclip.data.objects import Place
from pocketclip.data.reinforcement import VERSION
from pocketclip.data.sample import JsonValue
from pocketclip.engine import EngineConfig, plan_units, run_task, settled_threads
from pocketclip.reinforce.config import ReinforceConfig
from pocketclip.reinforce.worker import VERB, ErrorTally, ReinforceTask


def reinforce(
    data: Path | str,
    out: Path | str,
    *,
    config: ReinforceConfig,
    engine: EngineConfig = EngineConfig(),  # noqa: B008 - frozen
) -> ShardIndex:
    """Writes `out`: for every shard of the input one of the same name with its reinforcement, then manifest and index.

    Killed anywhere and run again it goes on, and ends in the same bytes; finished, it is left alone.

    Args:
        data: a packed folder; tars, parquet or JSON lines as a folder, a pattern or an `info.json`; a folder of
            captioned pictures. Folders or addresses (s3://, gs://, az://).
        out: the reinforced folder, or address.
        config: the reinforcement.
        engine: where it runs.

    Returns:
        The index of `out`.

    Raises:
        ValueError: `out` holds something else; a teacher or the input is unusable; not one sample of a split can be
            used.
        FailedShardsError: some shards failed; all others are done, and the same call tries the failed ones again.
        FileNotFoundError: there is no such input or teacher.
        ImportError: an extra that this needs is not installed.
        PublishError: `out` cannot be written.
    """
    options = dict(engine.store_options)
    source, target = Place(url=str(data), options=options), Place(url=str(out), options=options)
    plan = plan_units(source, splits=config.splits, shard_samples=config.shard_samples)
    threads = settled_threads(target, verb=VERB, engine=engine, asked=config.num_threads)
    config = replace(config, num_threads=threads)
    return run_task(
        ReinforceTask(config=config, num_loaders=engine.num_loaders),
        plan=plan,
        out=target,
        verb=VERB,
        engine=engine,
        digest=lambda described: _digest(config, described),
        config=lambda described: _facts(config, described),
        tally=ErrorTally(num_views=config.num_views),
    )


def _digest(config: ReinforceConfig, described: Mapping[str, Any]) -> str:
    """Of everything that the output's bytes depend on, apart from the input."""
    content = {field.name: getattr(config, field.name) for field in fields(config)}
    content |= {
        "version": VERSION,
        "augment": asdict(config.augment),
        "teachers": described["records"],
        "captioners": [
            {**asdict(spec), "source": described["digests"][spec.name]} for spec in config.captioners
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _facts(config: ReinforceConfig, described: Mapping[str, Any]) -> dict[str, JsonValue]:
    """What the index says of the configuration, the same wherever teachers and captioners were."""
    teachers: list[JsonValue] = [
        {**one, **record} for record, one in zip(described["records"], described["teachers"], strict=True)
    ]
    captioners: list[JsonValue] = list(described["captioners"])
    for one in (*teachers, *captioners):
        if isinstance(one, dict) and isinstance(source := one.get("source"), str):
            one["source"] = without_place(source)
    return {
        "num_views": config.num_views,
        "codec": config.codec,
        "teachers": teachers,
        "captioners": captioners,
    }


def without_place(source: str) -> str:
    """A source of a teacher or captioner without the folders of this machine: names of models, tags and files stay."""
    kind, colon, rest = source.partition(":")
    if not colon:
        return PurePath(source).name
    model, slashes, file = rest.rpartition("//")
    if slashes:
        return f"{kind}:{model}//{PurePath(file).name}"
    return f"{kind}:{PurePath(rest).name}" if rest.startswith(("/", "./", "../", "~")) else source
