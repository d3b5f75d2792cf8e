"""How fast is the tokenizer beside open_clip's and transformers', and are its ids theirs?

    .venv/bin/python benchmarks/tokenizer.py                      # the names of all emoji
    .venv/bin/python benchmarks/tokenizer.py captions.txt         # a caption a line
    .venv/bin/python benchmarks/tokenizer.py audiocaps.csv        # the column `caption`
    .venv/bin/python benchmarks/tokenizer.py cc12m-0000.tar       # the members *.txt of a WebDataset shard

All in one process and one thread, batches of 256, rounds taken in turn. Prints a Markdown table: captions a second in
the first pass, in which every word is new and our engine is built, and in the median of the rounds after it; rows that
equal open_clip's; time for a single new caption in its own call. Few captions are repeated until there are 10,000,
which makes later rounds look better than they are for every tokenizer with a memory, open_clip's and ours: a caption of
words that were never seen is as slow as in the first pass.
"""

from __future__ import annotations

import csv
import os
import statistics
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tyro.conf import Positional

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

BATCH = 256
ENOUGH = 10_000

Tokenize = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to tokenize."""

    captions: Positional[Path | None] = None
    """Text, CSV or tar; the names of all emoji if left out."""
    rounds: int = 7
    """Passes over the captions after the first."""
    at_most: int = 50_000
    """Captions."""


def main(arguments: Arguments) -> None:
    """Measures in turn, prints."""
    captions = read_captions(arguments.captions)[: arguments.at_most]
    num_distinct = len(set(captions))
    captions *= -(-ENOUGH // len(captions))
    print(
        f"{len(captions):,} captions, {num_distinct:,} of them distinct, mean of "
        f"{statistics.mean(map(len, captions)):.0f} characters, "
        f"{100 * statistics.mean(not text.isascii() for text in captions):.1f}% not ASCII\n"
    )
    tokenizers = {"open_clip": open_clip(), "transformers": transformers(), "pocketclip": pocketclip()}
    first_s, rows_BL = {}, {}
    for name, tokenize in tokenizers.items():
        first_s[name], rows_BL[name] = one_pass(tokenize, captions)
    rounds_s: dict[str, list[float]] = {name: [] for name in tokenizers}
    for _ in range(arguments.rounds):
        for name, tokenize in tokenizers.items():
            rounds_s[name].append(one_pass(tokenize, captions)[0])
    single_us = {name: one_by_one(tokenize, captions[:1000]) for name, tokenize in tokenizers.items()}

    print(
        "| tokenizer | first pass, captions/s | later, captions/s | times open_clip | rows equal | one call, µs |"
    )
    print("|---|---|---|---|---|---|")
    median_s = {name: statistics.median(times) for name, times in rounds_s.items()}
    for name in tokenizers:
        equal = (rows_BL[name] == rows_BL["open_clip"]).all(axis=1).mean()
        print(
            f"| {name} | {len(captions) / first_s[name]:,.0f} | {len(captions) / median_s[name]:,.0f} "
            f"| {median_s['open_clip'] / median_s[name]:.1f} | {100 * equal:.2f}% | {single_us[name]:.0f} |"
        )


def read_captions(path: Path | None) -> list[str]:
    """Captions of a file, by its ending; of none, the names of emoji."""
    if path is None:
        from pocketclip.pack.emoji_names import load_names

        return [text for name in load_names(("en",)).values() for text in (name.names["en"], *name.aliases)]
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            members = [tar.extractfile(member) for member in tar if member.name.endswith(".txt")]
            return [member.read().decode() for member in members if member is not None]
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            return [row["caption"] for row in csv.DictReader(file)]
        return file.read().splitlines()


def open_clip() -> Tokenize:
    """The reference."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    return lambda texts: tokenizer(texts).numpy()


def pocketclip() -> Tokenize:
    """Ours."""
    from pocketclip.data.tokenize import Tokenizer, TokenizerConfig

    return Tokenizer(TokenizerConfig())


def transformers() -> Tokenize:
    """Hugging Face's, from the same merges, padded with zeros."""
    from transformers import CLIPTokenizer

    from pocketclip.data.words import END_OF_TEXT, START_OF_TEXT, read_merges, shipped_merges, vocabulary

    pairs = read_merges(shipped_merges())
    tokenizer = CLIPTokenizer(
        vocab=vocabulary(pairs),
        merges=list(pairs),
        bos_token=START_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token="!",
    )
    return lambda texts: tokenizer(
        texts, padding="max_length", truncation=True, max_length=77, return_tensors="np"
    )["input_ids"]


def one_pass(tokenize: Tokenize, captions: list[str]) -> tuple[float, np.ndarray]:
    """Seconds for all captions in batches, and their ids [N, 77]."""
    begin = time.perf_counter()
    rows = [tokenize(captions[i : i + BATCH]) for i in range(0, len(captions), BATCH)]
    return time.perf_counter() - begin, np.concatenate(rows)


def one_by_one(tokenize: Tokenize, captions: list[str]) -> float:
    """Median microseconds for a call with one caption."""
    times = []
    for caption in captions:
        begin = time.perf_counter()
        tokenize([caption])
        times.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(times)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
