"""What a run's folder and its checkpoint say of the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pocketclip.checkpoint import unstructure
from pocketclip.data.index import read_index
from pocketclip.train.config import TrainConfig
from pocketclip.train.online import OnlineTeacher


def describe_run(
    config: TrainConfig, *, data: Path, start_digest: str | None, teachers: Sequence[OnlineTeacher] = ()
) -> dict[str, Any]:
    """The configuration, and digests of all that it names, as JSON values.

    A file is recorded by its name and its digest: a run goes on where its folder or its teachers were moved.

    Args:
        config: the run.
        data: its folder of shards.
        start_digest: of the checkpoint that it begins with; None where it begins with random weights.
        teachers: that run beside the student.
    """
    index = json.dumps(asdict(read_index(data)), sort_keys=True).encode()
    online = tuple(replace(spec, source=_name(spec.source)) for spec in config.online)
    named = replace(config, start=config.start and _name(config.start), online=online)
    record: dict[str, Any] = {
        "config": unstructure(named),
        "data_sha256": hashlib.sha256(index).hexdigest(),
    }
    if start_digest is not None:
        record["start_digest"] = start_digest
    if teachers:
        record["online_digests"] = {teacher.name: teacher.digest for teacher in teachers}
    return record


def as_text(record: Mapping[str, Any]) -> str:
    """The record as the folder's config.json has it."""
    return json.dumps(record, indent=1, sort_keys=True) + "\n"


def _name(source: str) -> str:
    return Path(source).name if Path(source).exists() else source
