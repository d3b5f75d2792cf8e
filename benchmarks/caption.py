"""Captions a second: ours against open_clip's `generate`, on the same random coca_ViT-B-32, side by side in one run.

    benchmarks/parity_env.sh                                    # once: transformers 4.55.4, which open_clip's needs
    .venv/bin/python benchmarks/caption.py --tokens 30 --out caption.json
    .venv/bin/python benchmarks/caption.py --tokens 76 --out caption.json
    .venv/bin/python benchmarks/caption.py --tokens 30 --style greedy

Prints Markdown. Both sides get the same weights, the same pictures and the same settings, and write as many tokens:
weights are random, so hardly a caption ends by itself. open_clip runs in a process of its own, in the environment of
parity_env.sh, on as many threads; the two take turns. Five captions of a picture are written by us in one pass, which
open_clip's cannot. That both compute the same logits is shown by the tests.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

NAME = "coca_ViT-B-32"
HERE = Path(__file__).resolve().parent
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "top-p": {"generation_type": "top_p", "top_p": 0.9},
    "top-k": {"generation_type": "top_k", "top_k": 50},
    "greedy": {"generation_type": "top_k", "top_k": 1},
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Captions a second, ours and open_clip's."""

    tokens: tuple[int, ...] = (30, 76)
    """Tokens of a caption; open_clip's write 76 at most."""
    captions: tuple[int, ...] = (1, 5)
    """Captions of a picture that we write in one pass."""
    batch: int = 8
    """Pictures."""
    threads: int = 1
    """Of torch, on both sides."""
    style: Literal["top-p", "top-k", "greedy"] = "top-p"
    """How tokens are chosen: top-p 0.9, top-k 50, or the likeliest."""
    rounds: int = 1
    """How often both take a turn; the best counts."""
    python: Path = HERE.parent / ".venv-parity/bin/python"
    """Of the environment that parity_env.sh made."""
    weights: Path | None = None
    """Of open_clip's coca_ViT-B-32, to be measured instead of random ones made here."""
    out: Path | None = None
    """File to add the numbers to, as JSON."""


def serve(weights: str, batch: int, threads: int) -> None:
    """open_clip's side: for each line of settings on standard input the seconds that `generate` took."""
    import open_clip

    torch.set_num_threads(threads)
    model = open_clip.create_model(NAME).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    image_BCHW = pictures(batch)
    print("ready", flush=True)
    for line in sys.stdin:
        settings = json.loads(line)
        begin = time.perf_counter()
        tokens_BL = model.generate(image_BCHW, fixed_output_length=True, **settings)
        seconds = time.perf_counter() - begin
        assert tokens_BL.shape == (batch, settings["seq_len"]), tokens_BL.shape
        print(seconds, flush=True)


def pictures(batch: int) -> torch.Tensor:
    """Random pictures [B, 3, 224, 224]."""
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def random_weights(path: Path) -> None:
    """Weights that open_clip draws; one matrix it leaves as memory is, and that is drawn here."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(NAME)
    torch.nn.init.normal_(model.text_decoder.text_projection, std=model.text_decoder.width**-0.5)
    torch.save(model.state_dict(), path)


def measure(options: Options, weights: Path) -> list[dict[str, Any]]:
    """Both sides in turn, every length."""
    from pocketclip.checkpoint import Style, Writer, load

    torch.set_num_threads(options.threads)
    command = [
        str(options.python),
        __file__,
        "--serve",
        str(weights),
        str(options.batch),
        str(options.threads),
    ]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None
    assert other.stdout is not None
    writer = Writer(load(weights).folded().model)  # ty: ignore[invalid-argument-type]
    image_BCHW = pictures(options.batch)
    given = SETTINGS[options.style]
    chosen = {
        "temperature": 0.0 if options.style == "greedy" else 1.0,
        "top_k": 50 if options.style == "top-k" else None,
        "top_p": 0.9 if options.style == "top-p" else 1.0,
    }
    writer.write(image_BCHW, style=Style(max_length=2, **chosen), seeds=range(options.batch))  # prepares
    while other.stdout.readline().strip() != "ready":  # open_clip's library may have said something first
        assert other.poll() is None, "open_clip's side has ended"
    rows = []
    for tokens in options.tokens:
        seconds: dict[str, float] = {}
        for _ in range(options.rounds):
            # open_clip counts the start among its tokens
            other.stdin.write(json.dumps({**given, "seq_len": tokens + 1}) + "\n")
            other.stdin.flush()
            turn = {"open_clip": float(other.stdout.readline()) / options.batch}
            for count in options.captions:
                if options.style == "greedy" and count > 1:
                    continue
                style = Style(num_captions=count, max_length=tokens, min_length=tokens, **chosen)
                begin = time.perf_counter()
                writer.write(image_BCHW, style=style, seeds=range(options.batch))
                turn[f"ours, {count} a picture"] = (time.perf_counter() - begin) / (options.batch * count)
            seconds = {name: min(value, seconds.get(name, value)) for name, value in turn.items()}
        rows.append({"tokens": tokens, "style": options.style, "seconds_a_caption": seconds})
    other.stdin.close()
    other.wait()
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = ["| tokens | chosen by | | captions a second | times open_clip |", "|---:|---|---|---:|---:|"]
    for row in rows:
        seconds = row["seconds_a_caption"]
        for name, value in seconds.items():
            ratio = seconds["open_clip"] / value
            lines.append(f"| {row['tokens']} | {row['style']} | {name} | {1 / value:.2f} | {ratio:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, and adds to the file."""
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    import tyro

    options = tyro.cli(Options)
    if not options.python.exists():
        raise SystemExit(f"{options.python} does not exist: run benchmarks/parity_env.sh, or give --python")
    with tempfile.TemporaryDirectory() as folder:
        weights = options.weights or Path(folder) / "coca.pt"
        if options.weights is None:
            random_weights(weights)
        rows = measure(options, weights)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {options.threads} threads, batch {options.batch}\n"
    )
    print(table(rows))
    if options.out is not None:
        earlier = json.loads(options.out.read_text()) if options.out.exists() else []
        options.out.write_text(json.dumps([*earlier, *rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
