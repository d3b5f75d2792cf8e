"""A run's folder: whose it is, and what an earlier try left in it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pocketclip.checkpoint import load_state
from pocketclip.data.index import Dropped
from pocketclip.data.publish import publish_file
from pocketclip.fit import State, saved_states
from pocketclip.train.record import as_text

CHECKPOINT_FILE = "checkpoint.safetensors"
BEST_FILE = "best.safetensors"
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
STATES_FOLDER = "states"
DROPPED_FILE = "dropped.jsonl"
EVENTS_FOLDER = "events"


class RunFolder:
    """A folder that belongs to one configuration and one data set.

    Args:
        path: of the folder; made when it is first written to.
        record: the configuration and the data, as JSON.

    Raises:
        ValueError: the folder holds a run of another configuration or data that has taken a step.
    """

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self.path = path
        self._text = as_text(record)
        config = path / CONFIG_FILE
        if config.is_file() and config.read_text(encoding="utf-8") != self._text and self._has_begun():
            raise ValueError(
                f"{path} holds a run of another configuration or other data ({config} differs): choose another "
                "folder, or delete this one"
            )

    @property
    def checkpoint(self) -> Path:
        """What the run ends in."""
        return self.path / CHECKPOINT_FILE

    @property
    def best(self) -> Path:
        """The best weights so far, where the recipe names a metric."""
        return self.path / BEST_FILE

    @property
    def metrics(self) -> Path:
        """One JSON record a line."""
        return self.path / METRICS_FILE

    @property
    def states(self) -> Path:
        """Folder of the saved states, there while the run is under way."""
        return self.path / STATES_FOLDER

    @property
    def events(self) -> Path:
        """Folder of TensorBoard's curves."""
        return self.path / EVENTS_FOLDER

    def claim(self) -> None:
        """Writes the configuration: from the first step on the folder is this run's."""
        config = self.path / CONFIG_FILE
        if not config.is_file() or config.read_text(encoding="utf-8") != self._text:
            with publish_file(config) as file:
                file.write(self._text.encode())

    def latest_state(self) -> State | None:
        """The latest saved state that is whole; a damaged one is named and passed over.

        Raises:
            ValueError: there are states, and not one is whole.
        """
        errors: list[str] = []
        for path in saved_states(self.states):
            try:
                return load_state(path)
            except ValueError as error:
                errors.append(str(error))
                tqdm.write(f"{path} cannot be used, the one before is tried", file=sys.stderr)
        if errors:
            raise ValueError(errors[0])
        return None

    def list_dropped(self, dropped: Iterable[Dropped]) -> None:
        """Appends samples that could not be read; each process does, and after a kill one may stand there twice."""
        lines = "".join(json.dumps(asdict(one)) + "\n" for one in dropped)
        if lines:
            with (self.path / DROPPED_FILE).open("a", encoding="utf-8") as file:
                file.write(lines)

    def dropped(self) -> list[Dropped]:
        """All samples that could not be read, each once, sorted."""
        path = self.path / DROPPED_FILE
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        listed = {(one["source"], one["reason"]) for one in map(json.loads, lines)}
        return [Dropped(source=source, reason=reason) for source, reason in sorted(listed)]

    def clear(self) -> None:
        """Removes what a run that is done needs no more."""
        self.best.unlink(missing_ok=True)
        if self.states.is_dir():
            for path in self.states.iterdir():
                path.unlink()
            self.states.rmdir()

    def _has_begun(self) -> bool:
        written = self.metrics.is_file() and self.metrics.stat().st_size > 0
        return written or self.checkpoint.exists() or bool(saved_states(self.states))
