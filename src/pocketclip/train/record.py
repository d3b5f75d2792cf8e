"""What a run's folder and its checkpoint say of the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pocketclip.checkpoint import unstructure
from pocketclip.data.index import read_index


def describe_run(config: object, *, data: Path) -> dict[str, Any]:
    """The configuration and a digest of the data's index, as JSON values."""
    index = json.dumps(asdict(read_index(data)), sort_keys=True).encode()
    return {"config": unstructure(config), "data_sha256": hashlib.sha256(index).hexdigest()}


def as_text(record: Mapping[str, Any]) -> str:
    """The record as the folder's config.json has it."""
    return json.dumps(record, indent=1, sort_keys=True) + "\n"
