"""Small real data that many tests share: pictures of coloured shapes with captions, packed as a user's would be."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image, ImageDraw

from pocketclip.data.index import ShardIndex, split_shards, write_index
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.runtime.manifest import Manifest, describe_file, write_manifest

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("pocketclip", deadline=None)
hypothesis.settings.load_profile("pocketclip")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # test workers share the cores

COLOURS = ("red", "green", "blue", "orange", "purple", "black", "teal", "brown")
SHAPES = ("circle", "square", "triangle")


def draw_shape(colour: str, shape: str, *, size: int = 72, seed: int = 0) -> bytes:
    """A PNG of a shape, moved a little by `seed`."""
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)
    low, high = 8 + seed % 7, size - 8 - seed % 5
    if shape == "circle":
        pen.ellipse((low, low, high, high), fill=colour)
    elif shape == "square":
        pen.rectangle((low, low, high, high), fill=colour)
    else:
        pen.polygon([(low, high), (high, high), ((low + high) // 2, low)], fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def shape_samples(num: int, *, prefix: str = "sample") -> list[Sample]:
    """Samples with two captions and one synthetic caption each."""
    samples = []
    for i in range(num):
        colour, shape = COLOURS[i % len(COLOURS)], SHAPES[(i // len(COLOURS)) % len(SHAPES)]
        samples.append(
            Sample(
                key=f"{prefix}{i:04d}",
                image=draw_shape(colour, shape, seed=i),
                extension="png",
                captions=(f"a {colour} {shape}", f"{shape} painted {colour} number {i}"),
                synthetic={"rule": (f"a drawing of one {colour} {shape} on white",)},
            )
        )
    return samples


@pytest.fixture(scope="session")
def make_samples() -> Callable[..., list[Sample]]:
    """`shape_samples`, for tests that write shards of their own."""
    return shape_samples


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled models and verdicts of tests stay out of the user's cache."""
    os.environ["POCKETCLIP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


PackShapes = Callable[..., Path]


@pytest.fixture(scope="session")
def pack_shapes() -> PackShapes:
    """Packs `counts[split]` samples into a folder, `per_shard` in each shard."""

    def pack(folder: Path, *, per_shard: int = 20, **counts: int) -> Path:
        splits = {}
        for split, num in counts.items():
            name = split.replace("_", "-")
            samples = shape_samples(num, prefix=name)
            splits[name] = tuple(
                write_shard(folder / name / f"{number:06d}.tar", samples[start : start + per_shard])
                for number, start in enumerate(range(0, num, per_shard))
            )
        write_index(folder, ShardIndex(source="shapes", splits=splits))
        return folder

    return pack


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory, pack_shapes: PackShapes) -> Path:
    """48 training and 24 validation samples."""
    return pack_shapes(tmp_path_factory.mktemp("shapes"), train=48, validation=24)


def write_colour_model(folder: Path, *, order: tuple[int, int, int] = (0, 1, 2)) -> Path:
    """An exported model whose embedding is colour: a picture's mean colour, the colour words of a text.

    `order` permutes the channels of both towers: another model with the same interface.
    """
    onnx = pytest.importorskip("onnx")
    numpy_helper, build = onnx.numpy_helper, onnx.helper
    tokenizer = Tokenizer(TokenizerConfig(vocab_size=4096, context_length=16))
    table_VC = np.zeros((4096, 3), dtype=np.float32)
    for word, colour in {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1)}.items():
        (token,) = tokenizer.encode(word)
        table_VC[token] = colour

    def tower(
        name: str, first: onnx.NodeProto, inputs: onnx.ValueInfoProto, weights: dict[str, np.ndarray]
    ) -> None:
        weights |= {"tiny": np.full(3, 1e-3, np.float32), "order": np.array(order), "last": np.array([-1])}
        nodes = [
            first,
            build.make_node("Gather", ["mean", "order"], ["permuted"], axis=1),
            build.make_node("Add", ["permuted", "tiny"], ["nonzero"]),
            build.make_node("ReduceL2", ["nonzero", "last"], ["length"], keepdims=1),
            build.make_node("Div", ["nonzero", "length"], ["unit_embed"]),
        ]
        if name == "text":
            nodes.insert(0, build.make_node("Gather", ["table", "tokens"], ["colours"]))
        graph = build.make_graph(
            nodes,
            name,
            [inputs],
            [build.make_tensor_value_info("unit_embed", onnx.TensorProto.FLOAT, ["batch", 3])],
            [numpy_helper.from_array(value, key) for key, value in weights.items()],
        )
        model = build.make_model(graph, opset_imports=[build.make_opsetid("", 20)], ir_version=10)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())

    folder.mkdir(parents=True, exist_ok=True)
    tower(
        "image",
        build.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        build.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["batch", 3, 16, 16]),
        {"axes": np.array([2, 3])},
    )
    tower(
        "text",
        build.make_node("ReduceMean", ["colours", "axes"], ["mean"], keepdims=0),
        build.make_tensor_value_info("tokens", onnx.TensorProto.INT64, ["batch", 16]),
        {"table": table_VC, "axes": np.array([1])},
    )
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    files = {"image": "image.onnx", "text": "text.onnx", "tokenizer": "tokenizer.json"}
    write_manifest(
        folder,
        Manifest(
            model="colour",
            checkpoint="0" * 64,
            embed_dim=3,
            logit_scale=20.0,
            preprocess=Preprocess(size=16, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear"),
            context_length=16,
            target="onnx",
            precision="fp32",
            pixels="float32",
            settings={"opset": 20},
            files={role: describe_file(folder / name) for role, name in files.items()},
            parity={},
        ),
    )
    return folder


ColourModel = Callable[..., Path]


@pytest.fixture(scope="session")
def make_colour_model() -> ColourModel:
    """`write_colour_model`."""
    return write_colour_model


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model whose embedding is colour; red, green, blue and white are its words. Do not change it."""
    return write_colour_model(tmp_path_factory.mktemp("colour_model"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--refresh-golden` writes the files of tests/golden anew; look at their difference before you commit it."""
    parser.addoption(
        "--refresh-golden", action="store_true", help="write tests/golden anew instead of comparing"
    )


GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with the file of that name in tests/golden, or writes it there with `--refresh-golden`."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--refresh-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), (
            f"{name} has no golden file: run pytest --refresh-golden and look at what it wrote"
        )
        assert text == path.read_text(encoding="utf-8"), (
            f"{name} is not as it was: if that is meant, run pytest --refresh-golden and commit the difference"
        )

    return check


@dataclass(frozen=True)
class Ran:
    """A command that has ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def sentence(self) -> str:
        """The one sentence of a failure; fails itself when there was none, several, or a traceback."""
        assert "Traceback" not in self.err, self.err
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, self.err
        assert self.err.rstrip().endswith(errors[0]), self.err
        return errors[0].removeprefix("error: ")


RunCli = Callable[..., Ran]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> RunCli:
    """Runs `pocketclip ARGUMENTS` in this process."""
    from pocketclip.cli import main

    def run(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of `pocketclip_tiny` with random weights. Do not change it."""
    torch = pytest.importorskip("torch")
    from pocketclip.checkpoint import create, save

    torch.manual_seed(0)
    made = create("pocketclip_tiny")
    path = tmp_path_factory.mktemp("tiny") / "checkpoint.safetensors"
    save(path, made.model, config=made.config, tokenizer=made.tokenizer)
    return path


RunPython = Callable[..., Ran]


@pytest.fixture
def run_python() -> RunPython:
    """Runs `python ARGUMENTS` in a process of its own, single-threaded; other options are `subprocess.run`'s."""

    def run(*arguments: str | Path, **options: object) -> Ran:
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 300}
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        ended = subprocess.run(
            [sys.executable, *map(str, arguments)], env=environment, check=False, **(settings | options)
        )
        return Ran(ended.returncode, ended.stdout or "", ended.stderr or "")

    return run


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints by name of two untrained models that take pictures of different sizes."""
    torch = pytest.importorskip("torch")
    from dataclasses import replace

    from pocketclip.checkpoint import create, save

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("teachers")
    paths = {}
    for seed, (name, variant, more_px) in enumerate(
        [("conv", "pocketclip_tiny", 16), ("vit", "pocketclip_tiny_vit", 0)]
    ):
        torch.manual_seed(seed)
        made = create(variant)
        preprocess = replace(made.config.preprocess, size=made.config.preprocess.size + more_px)
        paths[name] = folder / f"{name}.safetensors"
        save(
            paths[name],
            made.model,
            config=replace(made.config, preprocess=preprocess),
            tokenizer=made.tokenizer,
        )
    return paths


@pytest.fixture(scope="session")
def reinforced(shapes: Path, teachers: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training split of `shapes`, three views of each picture, embeddings in float32."""
    from pocketclip.reinforce import ReinforceConfig, reinforce
    from pocketclip.teachers import TeacherSpec

    out = tmp_path_factory.mktemp("reinforced") / "shapes"
    specs = tuple(TeacherSpec(name=name, source=str(path)) for name, path in teachers.items())
    reinforce(shapes, out, config=ReinforceConfig(teachers=specs, num_views=3, codec="fp32"))
    return out


Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Encodes a small picture of one colour."""

    def encode(kind: str = "PNG", *, colour: str = "red", size: int = 24, **options) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (size, size), colour).save(file, kind, **options)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def unpack() -> Callable[[Path, ShardIndex], dict[str, Sample]]:
    """Every sample of a packed folder, by its main caption."""

    def unpack(folder: Path, index: ShardIndex) -> dict[str, Sample]:
        samples: list[Sample] = []
        for split in index.splits:
            for path in split_shards(folder, split):
                with ShardReader(path) as shard:
                    samples.extend(shard)
        return {sample.captions[0]: sample for sample in samples}

    return unpack
