"""The whole road in one command: pack, two teachers, reinforce, two students, evaluate, export, search, report.

    pocketclip demo OUT            about seven minutes on two CPU cores
    pocketclip demo OUT --quick    about one minute: fewer pictures and steps, for a look at the machinery

Every step leaves its result under its final name, whole; a step whose result is there is not done again. So a demo
that was interrupted goes on where it was, and its shards are those of an undisturbed one, byte for byte.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TypeVar

from pocketclip.checkpoint import Loaded, load
from pocketclip.data.index import ShardIndex, read_index
from pocketclip.data.publish import publish_file
from pocketclip.evaluate import EvaluateConfig, Report, evaluate
from pocketclip.export import export
from pocketclip.fit import read_journal
from pocketclip.pack import EmojiConfig, pack_emoji
from pocketclip.recipes import emoji
from pocketclip.recipes.report import Command, ReportContent, write_report
from pocketclip.recipes.report_content import headline
from pocketclip.recipes.run import train_recipe
from pocketclip.recipes.showcase import draw_sheets
from pocketclip.reinforce import reinforce
from pocketclip.search import IndexConfig, index
from pocketclip.train import CHECKPOINT_FILE, METRICS_FILE, TrainConfig

TESTS = ("test-style", "test-composition", "test-unseen")
TEACHERS = {"teacher-conv": emoji.teacher_conv, "teacher-vit": emoji.teacher_vit}
PLAIN, REINFORCED = "student-plain", "student-reinforced"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What the demo does.

    Attributes:
        quick: few pictures and steps; its numbers show nothing but that everything runs.
        seed: of the students.
    """

    quick: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """Where the demo's results are.

    Attributes:
        headline: one sentence on what reinforcement did, worded by the numbers.
        table: of all models on all test sets, for a terminal.
        timings: (step, seconds) in order.
        report: the page.
        index: answers `pocketclip search`.
    """

    headline: str
    table: str
    timings: tuple[tuple[str, float], ...]
    report: Path
    index: Path


def demo(out: Path, *, config: DemoConfig, announce: Callable[[str], object] = print) -> DemoResult:
    """Walks the whole road in the folder `out`, or the rest of it.

    Args:
        out: folder; everything is kept in it.
        config: the full or the quick road.
        announce: called with a line when a step begins.

    Raises:
        ValueError: `out` holds a demo of another configuration.
    """
    _claim(out, config)
    clock = _Clock(out / "timings.json", announce=announce)
    data, reinforced, exported, database = (
        out / "emoji",
        out / "reinforced",
        out / "exported",
        out / "pictures.index",
    )
    with clock.step("pack the emoji data set"):
        packed = pack_emoji(data, config=EmojiConfig(max_concepts=600 if config.quick else None))
    for name, recipe in TEACHERS.items():
        with clock.step(f"train {name}"):
            train_recipe(_resolve(recipe(), config), data=data, validation=data, out=out / name)
    with clock.step("reinforce the training shards"):
        teachers = {name: out / name / CHECKPOINT_FILE for name in TEACHERS}
        request = emoji.reinforcement(teachers)
        reinforce(data, reinforced, config=replace(request, num_views=2) if config.quick else request)
    for name, recipe, shards in (
        (PLAIN, emoji.student_plain, data),
        (REINFORCED, emoji.student_reinforced, reinforced),
    ):
        with clock.step(f"train {name}"):
            run = _resolve(recipe(seed=config.seed), config)
            train_recipe(run, data=shards, validation=data, out=out / name)
    with clock.step("evaluate teachers and students"):
        report = _once(out / "results.json", read=Report.read, make=lambda: _evaluate(out, data))
    with clock.step("export the reinforced student"):
        if not (exported / "manifest.json").is_file():
            export(out / REINFORCED / CHECKPOINT_FILE, exported)
    with clock.step("index the test pictures and search them"):
        index([data], database, model=exported, config=IndexConfig(splits=TESTS))
        sheets = draw_sheets(database, packed=data, splits=TESTS, out=out / "sheets")
    content = _content(out, packed=packed, report=report, clock=clock, config=config)
    write_report(out / "report.html", content=replace(content, sheets=sheets))
    return DemoResult(
        headline=headline(report, plain=PLAIN, reinforced=REINFORCED),
        table=report.table(),
        timings=tuple(clock.timings),
        report=out / "report.html",
        index=database,
    )


def _claim(out: Path, config: DemoConfig) -> None:
    """Makes `out` the folder of this configuration's demo, or makes sure that it is."""
    path, text = out / "demo.json", json.dumps(asdict(config), sort_keys=True)
    if not path.is_file():
        with publish_file(path) as file:
            file.write(text.encode())
    elif (kept := path.read_text(encoding="utf-8")) != text:
        raise ValueError(
            f"{out} holds a demo with other settings ({kept.strip('{}')}; now {text.strip('{}')}): "
            "choose another folder, or delete this one"
        )


def _resolve(recipe: TrainConfig, config: DemoConfig) -> TrainConfig:
    """The recipe, or its quick form."""
    if not config.quick:
        return recipe
    return replace(
        recipe,
        stream=replace(recipe.stream, batch_size=32),
        optim=replace(recipe.optim, warmup_steps=5),
        loop=replace(recipe.loop, num_steps=30, evaluate_every=15, save_every=10),
    )


def _evaluate(out: Path, data: Path) -> Report:
    checkpoints = {name: out / name / CHECKPOINT_FILE for name in (*TEACHERS, PLAIN, REINFORCED)}
    report = evaluate(checkpoints, data, config=EvaluateConfig(splits=TESTS))
    report.write(out / "results.json")
    return report


def _once(path: Path, *, read: Callable[[Path], T], make: Callable[[], T]) -> T:
    return read(path) if path.is_file() else make()


def _content(
    out: Path, *, packed: ShardIndex, report: Report, clock: _Clock, config: DemoConfig
) -> ReportContent:
    student, teacher = load(out / REINFORCED / CHECKPOINT_FILE), load(out / "teacher-conv" / CHECKPOINT_FILE)
    views = read_index(out / "reinforced").config.get("num_views")
    summary = (
        "Two teachers were trained from scratch on pictures of emoji in two styles. Each training picture was then "
        f"reinforced once: {views} augmented views with the embeddings that both teachers give them, stored beside the "
        "picture. The same small student was trained twice for equally many steps, on plain and on reinforced data, "
        "and all models were asked about pictures they never saw."
    )
    if config.quick:
        summary += (
            " This was the quick form, too short to learn much: its numbers only show that everything runs."
        )
    curves: Mapping[str, Sequence[Mapping[str, float]]] = {
        name: read_journal(out / name / METRICS_FILE) for name in (*TEACHERS, PLAIN, REINFORCED)
    }
    return ReportContent(
        title="Reinforced training on emoji",
        summary=summary,
        report=report,
        plain=PLAIN,
        reinforced=REINFORCED,
        teachers=tuple(TEACHERS),
        index=packed,
        curves=curves,
        timings=clock.timings,
        facts={
            "Student": f"{_millions(student)} million parameters, {student.config.preprocess.size} px",
            "Convolutional teacher": f"{_millions(teacher)} million parameters",
        },
        commands=(
            Command(
                purpose="Search the test pictures with the exported student; torch is not needed.",
                text=f'pocketclip search {quote(str(out / "pictures.index"))} "a red heart" --sheet hearts.png',
            ),
        ),
    )


def _millions(checkpoint: Loaded) -> str:
    return f"{sum(p.numel() for p in checkpoint.model.parameters()) / 1e6:.2f}"


class _Clock:
    """Wall-clock seconds of each step, kept over interruptions.

    A step that was done before keeps its time; the time of one that was interrupted is that of its last part, and its
    name says so.
    """

    def __init__(self, path: Path, *, announce: Callable[[str], object]) -> None:
        self._path = path
        self._announce = announce
        try:
            kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): delete it, only timings are lost") from None
        self._begun: list[str] = kept.get("begun", [])
        self._resumed: list[str] = kept.get("resumed", [])
        self._seconds: dict[str, float] = kept.get("seconds", {})
        self.timings: list[tuple[str, float]] = []

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """Times one step."""
        note = ""
        if name in self._seconds:
            note = " (done before)"
        elif name not in self._begun:
            self._begun.append(name)
        elif name not in self._resumed:
            self._resumed.append(name)
        if name in self._resumed and not note:
            note = " (going on where it was)"
        self._keep()
        self._announce(f"\n== {len(self.timings) + 1}. {name}{note}")
        started = time.monotonic()
        yield
        seconds = self._seconds.setdefault(name, time.monotonic() - started)
        self._keep()
        self.timings.append((f"{name} (its last part)" if name in self._resumed else name, seconds))
        self._announce(f"   {seconds:.1f} s")

    def _keep(self) -> None:
        record = {"begun": self._begun, "resumed": self._resumed, "seconds": self._seconds}
        with publish_file(self._path) as file:
            file.write(json.dumps(record, indent=1).encode())
