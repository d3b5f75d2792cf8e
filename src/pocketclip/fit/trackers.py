"""Where curves go besides metrics.jsonl: TensorBoard, Weights & Biases, trackio."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

Record = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Which trackers a run feeds.

    Attributes:
        tensorboard: write event files into the run's folder.
        wandb: project of Weights & Biases; None for none. WANDB_MODE=offline keeps it on this machine.
        trackio: project of trackio; None for none.
    """

    tensorboard: bool = True
    wandb: str | None = None
    trackio: str | None = None


@contextmanager
def open_trackers(
    config: TrackConfig, *, folder: Path, name: str, settings: Mapping[str, Any], step: int
) -> Generator[Callable[[Record], None]]:
    """Opens the trackers for as long as the block lasts.

    Args:
        config: which.
        folder: of TensorBoard's event files.
        name: of the run.
        settings: its configuration, as JSON values.
        step: the run goes on after this many steps: what an earlier try wrote beyond is hidden.

    Yields:
        A function that takes a record with a `step`.

    Raises:
        ImportError: a tracker is not installed.
    """
    sinks: list[Callable[[int, Record], None]] = []
    ends: list[Callable[[], object]] = []
    if config.tensorboard:
        module = _tracker("torch.utils.tensorboard", package="tensorboard", option="--track.no-tensorboard")
        writer = module.SummaryWriter(str(folder), purge_step=step + 1 if step else None)

        def to_tensorboard(at: int, values: Record) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, at)

        sinks.append(to_tensorboard)
        ends.append(writer.close)
    for package, project in (("wandb", config.wandb), ("trackio", config.trackio)):
        if project is not None:
            module = _tracker(package, package=package, option=f"no --track.{package}")
            run = module.init(project=project, name=name, config=dict(settings))
            sinks.append(lambda at, values, run=run: run.log(dict(values), step=at))
            ends.append(run.finish)

    def record(values: Record) -> None:
        rest = {key: value for key, value in values.items() if key != "step"}
        for sink in sinks:
            sink(int(values["step"]), rest)

    try:
        yield record
    finally:
        for end in ends:
            end()


def _tracker(module: str, *, package: str, option: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{package} is not installed: pip install {package}, or train with {option}"
        ) from error
