"""The driver: what fails is tried again, what takes long is done twice, what is done is forgotten."""

from __future__ import annotations

import gc
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from pocketclip.data.publish import PublishError
from pocketclip.engine.driver import Driver, FailedShardsError, Progress
from pocketclip.engine.job import Done, Failed, Job
from pocketclip.engine.units import Unit


def units(num):
    return (Unit(name=f"train/{number:06d}.tar", kind="tar", num_bytes=1) for number in range(num))


def done(job, seconds=1.0):
    return Done(name=job.unit.name, num_samples=3, num_dropped=1, seconds=seconds)


def failed(job, reason="no reason", *, may_pass=True, **more):
    return Failed(name=job.unit.name, reason=reason, may_pass=may_pass, **more)


@dataclass
class FakeCrew:
    """Workers that end jobs in the order they came, one a wait; `outcome` says how, or None: not yet."""

    num_workers: int = 1
    outcome: object = done
    jobs: list[Job] = field(default_factory=list)
    seen: list[Job] = field(default_factory=list)
    most: int = 0
    work_left: list[bool] = field(default_factory=list)

    def has_room(self):
        return len(self.jobs) < self.num_workers

    def submit(self, job):
        assert self.has_room()
        self.jobs.append(job)
        self.seen.append(job)
        self.most = max(self.most, len(self.jobs))

    def wait(self, *, seconds, is_work_left):
        self.work_left.append(is_work_left)
        for job in self.jobs:
            outcome = self.outcome(job)
            if outcome is not None:
                self.jobs = [other for other in self.jobs if other is not job]
                return [outcome]
        time.sleep(0.005)
        return []


def drive(crew, num, **settings):
    reported = []
    settings = {"attempts": 3, "straggler": 0.0} | settings
    driver = Driver(
        crew=crew,
        config_digest="config",
        report=lambda outcome, final: reported.append((outcome, final)),
        **settings,
    )
    driver.run(units(num))
    return driver, reported


@pytest.mark.parametrize("num_workers", [1, 3])
def test_every_unit_is_done_once_and_no_more_are_under_way_than_workers(num_workers):
    crew = FakeCrew(num_workers)
    driver, reported = drive(crew, 10)
    assert [job.unit.name for job in crew.seen] == [unit.name for unit in units(10)]
    assert (crew.most, driver.failures, len(reported)) == (num_workers, [], 10)
    assert crew.work_left == [True] * (10 - num_workers) + [False] * num_workers


def test_nothing_to_do_is_done():
    crew = FakeCrew()
    assert drive(crew, 0)[1] == []
    assert crew.work_left == []


def test_a_crew_may_have_no_room_for_a_while():
    crew = FakeCrew()
    waits = []

    class Starting(FakeCrew):
        def has_room(self):
            return len(waits) > 3 and super().has_room()

        def wait(self, **arguments):
            waits.append(arguments["is_work_left"])
            return super().wait(**arguments)

    crew = Starting()
    drive(crew, 2)
    assert waits[:4] == [True] * 4
    assert len(crew.seen) == 2


def test_what_may_pass_is_tried_again_after_the_others_with_its_reasons():
    tries = Counter()

    def outcome(job):
        tries[job.unit.name] += 1
        number = tries[job.unit.name]
        return failed(job, f"try {number}") if job.unit.name.endswith("1.tar") and number < 3 else done(job)

    crew = FakeCrew(outcome=outcome)
    driver, reported = drive(crew, 3)
    assert [job.unit.name[-5] for job in crew.seen] == ["0", "1", "2", "1", "1"]
    assert crew.seen[-1].reasons == ("try 1", "try 2")
    assert driver.failures == []
    assert [final for outcome, final in reported if isinstance(outcome, Failed)] == [False, False]


def test_after_all_tries_it_is_a_failure_with_every_reason_and_the_others_are_done():
    bad = ("train/000001.tar", "train/000004.tar")

    def outcome(job):
        if job.unit.name == bad[0]:
            return failed(job, f"after {len(job.reasons)}")
        return failed(job, "damaged", may_pass=False) if job.unit.name == bad[1] else done(job)

    driver, reported = drive(FakeCrew(2, outcome), 8)
    by_name = {failure.unit.name: failure.reasons for failure in driver.failures}
    assert by_name == {bad[0]: ("after 0", "after 1", "after 2"), bad[1]: ("damaged",)}
    assert sum(isinstance(outcome, Done) for outcome, _ in reported) == 6


def test_when_nothing_ever_succeeds_it_stops():
    crew = FakeCrew(outcome=lambda job: failed(job, "no network", may_pass=False))
    with pytest.raises(
        FailedShardsError, match=r"the first 8 shards all failed, the last, train/000007\.tar, because: no"
    ):
        drive(crew, 1000)
    assert len(crew.seen) == 8


def test_what_ends_the_run_ends_it():
    crew = FakeCrew(outcome=lambda job: failed(job, "disk full", ends_run=True))
    with pytest.raises(PublishError, match="disk full"):
        drive(crew, 1000)
    assert len(crew.seen) == 1


def test_a_straggler_is_given_to_a_second_worker_and_the_first_to_end_counts(monkeypatch):
    monkeypatch.setattr("pocketclip.engine.driver._SLOW_S", 0.05)
    copies = Counter()

    def outcome(job):
        if job.unit.name != "train/000002.tar":
            return done(job, seconds=0.01)
        copies[id(job)] += 1
        return done(job) if len(copies) == 2 and next(reversed(copies)) == id(job) else None

    crew = FakeCrew(3, outcome)
    _, reported = drive(crew, 6, straggler=3.0)
    names = Counter(job.unit.name for job in crew.seen)
    assert names.pop("train/000002.tar") == 2
    assert set(names.values()) == {1}
    assert [outcome.name for outcome, _ in reported].count("train/000002.tar") == 1
    assert len(crew.jobs) == 1  # the slow copy is not waited for


def test_a_copy_that_fails_leaves_the_other_its_chance(monkeypatch):
    monkeypatch.setattr("pocketclip.engine.driver._SLOW_S", 0.05)
    slow: list[Job] = []

    def outcome(job):
        if job.unit.name != "train/000000.tar":
            return done(job, seconds=0.01)
        if not any(job is known for known in slow):
            slow.append(job)
        if len(slow) < 2:
            return None
        return failed(job, "worker died") if job is slow[1] else done(job) if len(crew.jobs) == 1 else None

    crew = FakeCrew(2, outcome)
    driver, reported = drive(crew, 6, straggler=2.0, attempts=1)
    assert len(slow) == 2
    assert driver.failures == []
    assert sum(isinstance(outcome, Done) for outcome, _ in reported) == 6


def test_without_stragglers_nothing_is_done_twice():
    slow = time.monotonic() + 0.3
    crew = FakeCrew(
        2, lambda job: done(job, 0.001) if job.unit.name[-5] != "0" or time.monotonic() > slow else None
    )
    drive(crew, 8, straggler=0.0)
    assert len(crew.seen) == 8


def test_it_keeps_nothing_of_what_is_done():
    driver = Driver(
        crew=FakeCrew(4),
        config_digest="config",
        attempts=3,
        straggler=3.0,
        report=lambda outcome, final: None,
    )
    driver.crew.submit, kept = _forgetful(driver.crew), []

    def counted():
        for number, unit in enumerate(units(4000)):
            if number in (1500, 3900):
                gc.collect()
                kept.append(sum(type(one) in (Unit, Job, Done) for one in gc.get_objects()))
            yield unit

    driver.run(counted())
    assert kept[1] <= kept[0] + 2


def _forgetful(crew):
    def submit(job):
        crew.jobs.append(job)

    return submit


def test_progress_says_what_was_left_out(capsys):
    crew = FakeCrew()
    with Progress(name="count", num_units=4, num_samples=None, describe=lambda: "2 workers") as progress:
        progress.found(10, 2)
        job = Job(unit=next(units(1)), config_digest="c")
        progress.outcome(done(job), False)
        progress.outcome(failed(job, "no network"), False)
        progress.outcome(failed(job, "no network"), True)
    text = capsys.readouterr().err
    assert "train/000000.tar failed and is tried again later: no network" in text
    assert "train/000000.tar failed and is left out: no network" in text
    assert "count:" in text
    assert "2/4" in text
    assert "skipped=3, failed=1" in text
    assert "by=2 workers" in text
    assert "samples/s=" in text
    del crew


def test_progress_counts_samples_where_they_are_known(capsys):
    job = Job(unit=next(units(1)), config_digest="c")
    with Progress(name="count", num_units=2, num_samples=8, describe=lambda: "") as progress:
        for _ in range(2):
            progress.items(3)
            progress.outcome(done(job), False)  # 3 samples and one that was dropped
    text = capsys.readouterr().err
    assert "8/8" in text
    assert "skipped=2" in text
