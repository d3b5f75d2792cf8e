"""Curves reach whom they are meant for: TensorBoard's files, and the trackers of other packages by their own calls."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pocketclip.fit import TrackConfig, open_trackers

RECORDS = [{"step": 5, "loss": 2.0, "lr": 0.1}, {"step": 6, "loss": 1.5, "lr": 0.2}]


class FakeTracker:
    """What wandb and trackio have in common: `init` gives a run that logs and finishes."""

    def __init__(self):
        self.calls = []

    def init(self, *, project, name, config):
        self.calls.append(("init", project, name, config))
        log = lambda values, *, step: self.calls.append(("log", step, values))  # noqa: E731
        return SimpleNamespace(log=log, finish=lambda: self.calls.append(("finish",)))


def write(config, folder, *, step=4, records=RECORDS):
    with open_trackers(config, folder=folder, name="run", settings={"a": 1}, step=step) as record:
        for values in records:
            record(values)


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_a_tracker_gets_every_record_at_its_step_and_is_finished(package, monkeypatch, tmp_path):
    fake = FakeTracker()
    monkeypatch.setitem(sys.modules, package, fake)
    write(TrackConfig(tensorboard=False, **{package: "mine"}), tmp_path)
    assert fake.calls == [
        ("init", "mine", "run", {"a": 1}),
        ("log", 5, {"loss": 2.0, "lr": 0.1}),
        ("log", 6, {"loss": 1.5, "lr": 0.2}),
        ("finish",),
    ]
    assert not list(tmp_path.iterdir())


def test_a_tracker_is_finished_where_training_fails(monkeypatch, tmp_path):
    fake = FakeTracker()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(KeyError):
        write(TrackConfig(tensorboard=False, wandb="mine"), tmp_path, records=[{"loss": 1.0}])
    assert fake.calls[-1] == ("finish",)


def test_tensorboard_shows_a_run_that_went_on_without_what_was_killed(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(TrackConfig(), tmp_path)
    write(TrackConfig(), tmp_path, step=5, records=[{"step": 6, "loss": 1.25, "lr": 0.2}])
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(5, 2.0), (6, 1.25)]


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_a_tracker_that_is_not_there_is_told(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf"{package} is not installed: pip install {package}, or train with"
    ):
        write(TrackConfig(tensorboard=False, **{package: "mine"}), tmp_path)
