"""The public names: they import, they are documented with shapes and units, and the light ones stay light."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pocketclip

ROOMS = sorted(module.name for module in pkgutil.iter_modules(pocketclip.__path__) if module.ispkg)
TORCH_FREE = ("cli", "data", "inspect", "join", "pack", "publish", "runtime", "search", "verify")
# [B, D], [N, 3, H, W], [1, 512], [N, len(labels)], or the word for one number
SHAPE = re.compile(r"\[[^\[\]\n]*[A-Z0-9][^\[\]\n]*\]|scalar|0-d")
ARRAY = re.compile(r"Tensor|ndarray|NDArray")


def public(module_name: str) -> Iterator[tuple[str, object]]:
    module = importlib.import_module(module_name)
    for name in getattr(module, "__all__", ()):
        yield f"{module_name}.{name}", getattr(module, name)


def all_public() -> list[tuple[str, object]]:
    pytest.importorskip("torch")
    return [*public("pocketclip"), *(item for room in ROOMS for item in public(f"pocketclip.{room}"))]


def functions(name: str, value: object) -> Iterator[tuple[str, Callable[..., object], str]]:
    """The functions and public methods of a public name that take or give arrays, with what is said of them."""
    if inspect.isfunction(value):
        yield name, value, inspect.getdoc(value) or ""
    if not inspect.isclass(value):
        return
    about = inspect.getdoc(value) or ""
    for method_name, method in vars(value).items():
        function = method.__func__ if isinstance(method, classmethod | staticmethod) else method
        if inspect.isfunction(function) and (not method_name.startswith("_") or method_name == "__call__"):
            yield f"{name}.{method_name}", function, f"{inspect.getdoc(function) or ''}\n{about}"


class TestNames:
    def test_the_list_is_what_there_is(self) -> None:
        assert sorted(pocketclip.__all__) == list(pocketclip.__all__)
        assert set(pocketclip.__all__) == set(pocketclip._HOMES)
        assert set(pocketclip.__all__) <= set(dir(pocketclip))

    @pytest.mark.parametrize("room", ROOMS)
    def test_a_room_lists_what_it_shows_the_others(self, room: str) -> None:
        if room not in TORCH_FREE:
            pytest.importorskip("torch")
        module = importlib.import_module(f"pocketclip.{room}")
        names = getattr(module, "__all__", [])
        assert len(set(names)) == len(names)
        assert all(hasattr(module, name) for name in names)
        assert module.__doc__ or not names

    def test_every_name_is_documented(self) -> None:
        undocumented = []
        for name, value in all_public():
            if not (inspect.isclass(value) or inspect.isroutine(value)):
                continue  # a constant, a type alias
            own = value.__doc__ or ""
            if len(own) < 10 or own.startswith(
                f"{name.split('.')[-1]}("
            ):  # dataclasses write their own signature
                undocumented.append(name)
        assert undocumented == []

    def test_every_public_method_is_documented(self) -> None:
        undocumented = [
            name
            for public_name, value in all_public()
            if inspect.isclass(value)
            for name, function, _ in functions(public_name, value)
            if not inspect.getdoc(function) and not name.endswith((".forward", ".__call__"))
        ]
        assert undocumented == []

    def test_whatever_takes_or_gives_arrays_says_their_shapes(self) -> None:
        silent = []
        for public_name, value in all_public():
            for name, function, about in functions(public_name, value):
                if ARRAY.search(str(inspect.signature(function))) and not SHAPE.search(about):
                    silent.append(name)
        assert silent == []

    def test_whatever_holds_arrays_says_their_shapes(self) -> None:
        silent = []
        for name, value in all_public():
            annotations = vars(value).get("__annotations__", {}) if inspect.isclass(value) else {}
            arrays = [field for field, kind in annotations.items() if ARRAY.search(str(kind))]
            if arrays and not name.endswith("Config") and not SHAPE.search(inspect.getdoc(value) or ""):
                silent.append((name, arrays))
        assert silent == []

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'bogus'"):
            pocketclip.bogus  # noqa: B018


class TestConvention:
    """Whoever knows open_clip can type what they know."""

    def test_as_open_clip(self, tiny_checkpoint: Path) -> None:
        torch = pytest.importorskip("torch")
        from PIL import Image

        model, _, preprocess = pocketclip.create_model_and_transforms(
            "pocketclip_tiny", pretrained=tiny_checkpoint
        )
        tokenize = pocketclip.get_tokenizer("pocketclip_tiny")
        image = preprocess(Image.new("L", (50, 70))).unsqueeze(0)
        with torch.inference_mode():
            image_embed = model.encode_image(image, normalize=True)
            text_embed = model.encode_text(tokenize(["a dog", "a cat"]), normalize=True)
        assert image_embed.shape == (1, text_embed.shape[1])
        torch.testing.assert_close(text_embed.norm(dim=-1), torch.ones(2))

    @pytest.mark.parametrize("name", ["MobileCLIP2-S0", "mobileclip2_s0"])
    def test_both_spellings(self, name: str) -> None:
        pytest.importorskip("torch")
        assert "mobileclip2_s0" in pocketclip.list_models()
        assert pocketclip.get_tokenizer(name)("a dog").shape == (1, 77)

    def test_a_record(self, tiny_checkpoint: Path) -> None:
        pytest.importorskip("torch")
        loaded = pocketclip.load(tiny_checkpoint)
        assert {"model", "preprocess", "tokenize", "config"} <= set(dir(loaded))


class TestWeight:
    """What importing costs."""

    HEAVY = ("torch", "cattrs", "onnx", "onnxscript", "pyarrow", "open_clip", "timm", "transformers")

    def heavy(self, run_python: Callable[..., Any], program: str, *arguments: str | Path) -> list[str]:
        report = (
            f"\nimport json, sys; print('\\n' + json.dumps([m for m in {self.HEAVY} if m in sys.modules]))"
        )
        ran = run_python("-c", program + report, *arguments)
        assert ran.code == 0, ran.err
        return json.loads(ran.out.splitlines()[-1])

    def test_the_package(self, run_python: Callable[..., Any]) -> None:
        assert self.heavy(run_python, "import pocketclip; dir(pocketclip); pocketclip.ExportedModel") == []

    @pytest.mark.parametrize("room", TORCH_FREE)
    def test_the_rooms_of_the_core(self, run_python: Callable[..., Any], room: str) -> None:
        program = f"""
import importlib, pkgutil, pocketclip.{room} as room
for module in pkgutil.iter_modules(room.__path__):
    importlib.import_module(f"pocketclip.{room}.{{module.name}}")
"""
        assert self.heavy(run_python, program) == []

    @pytest.mark.parametrize(
        "arguments", [["search", "--help"], ["--help"], ["--version"], ["pack", "--help"]]
    )
    def test_the_command_line(self, run_python: Callable[..., Any], arguments: list[str]) -> None:
        assert self.heavy(run_python, "from pocketclip.cli import main; main()", *arguments) == []

    def test_indexing_and_searching(
        self, run_python: Callable[..., Any], shapes: Path, colour_model: Path, tmp_path: Path
    ) -> None:
        program = "from pocketclip.cli import main; assert main() == 0"
        index = tmp_path / "i.index"
        assert self.heavy(run_python, program, "index", shapes, "--out", index, "--model", colour_model) == []
        assert self.heavy(run_python, program, "search", index, "a red circle") == []


ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_small_installation_indexes_and_searches(shapes: Path, colour_model: Path, tmp_path: Path) -> None:
    """`pip install .` into an empty environment: no torch there, and an exported model runs."""
    python = install(tmp_path / "environment")
    listed = subprocess.run(
        [python, "-c", "import importlib.metadata as m; print([d.name for d in m.distributions()])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "pocketclip" in listed
    assert not re.search(r"torch|timm|open_clip|transformers|nvidia|pyarrow|'onnx'", listed), listed
    command = python.parent / "pocketclip"
    index = tmp_path / "photos.index"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
        )

    indexed = run("index", shapes, "--out", index, "--model", colour_model)
    assert indexed.returncode == 0, indexed.stderr
    found = run("search", index, "red", "-k", "3", "--json", "--sheet", "sheet.png")
    assert found.returncode == 0, found.stderr
    assert all("red" in hit["caption"] for hit in json.loads(found.stdout)["hits"])
    assert (tmp_path / "sheet.png").is_file()
    refused = run("train", "--list")
    assert (refused.returncode, "pip install 'pocketclip[train]'" in refused.stderr) == (1, True)
    assert "Traceback" not in refused.stderr


def install(environment: Path) -> Path:
    """Installs the project by itself; returns that environment's python. Skips where no package index answers."""
    uv = shutil.which("uv") or next(iter(map(str, ROOT.glob(".uv/bin/uv"))), None)
    python = environment / "bin" / "python"
    if uv:
        steps = [[uv, "venv", "--quiet", "--python", sys.executable, environment]]
        steps += [[uv, "pip", "install", "--quiet", "--python", python, ROOT]]
    else:
        steps = [[sys.executable, "-m", "venv", environment]]
        steps += [[python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT]]
    for step in steps:
        ended = subprocess.run(step, capture_output=True, text=True, check=False)
        if ended.returncode and re.search(
            r"Connection|connect|resolve host|Temporary failure|timed out|No matching distribution",
            ended.stderr,
        ):
            pytest.skip(f"no package index can be reached: {ended.stderr.strip().splitlines()[-1]}")
        assert ended.returncode == 0, ended.stderr
    return python
