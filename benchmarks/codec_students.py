"""Does it matter to the student how the teachers' embeddings were stored?

    .venv/bin/pocketclip demo demo
    .venv/bin/python benchmarks/codec_students.py demo --seeds 0 1 2

Reinforces the demo's shards once in float32, stores the same embeddings anew with every codec (no teacher runs again),
and trains the demo's reinforced student on each, with each seed, at equal steps. Prints a Markdown table: bytes of a
sample's embeddings, errors as the shards' headers have them, mean recall@1 on the three test sets (mean and standard
deviation over seeds), and how far the mean is from float32's, in standard deviations of float32's seeds. Finished
folders and runs are kept in DEMO/codecs and not made again.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from tyro.conf import Positional

from pocketclip.data.codec import CODECS, Codec
from pocketclip.data.codec_error import CodecError, pool
from pocketclip.data.index import INDEX_FILE, read_index, split_shards, write_index
from pocketclip.data.reinforcement import BLOCK_NAME, Embeddings, Reinforcement, pack_reinforcement
from pocketclip.data.shard import ShardEntry, ShardReader, write_shard

os.environ.setdefault("GOMP_SPINCOUNT", "5000")

METRIC = "mean_recall@1"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to train."""

    demo: Positional[Path]
    """Folder of a finished demo."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the students, two or more."""
    codecs: tuple[Codec, ...] = CODECS
    """To compare; the first is what the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One codec's folder.

    Attributes:
        bytes_a_sample: of its embeddings.
        error: of all its tables together.
    """

    bytes_a_sample: float
    error: CodecError


def main(arguments: Arguments) -> None:
    """Stores, trains, evaluates, prints."""
    from pocketclip.evaluate import EvaluateConfig, evaluate
    from pocketclip.recipes import emoji
    from pocketclip.recipes.run import train_recipe
    from pocketclip.reinforce import reinforce

    folder = arguments.demo / "codecs"
    teachers = {
        name: arguments.demo / name / "checkpoint.safetensors" for name in ("teacher-conv", "teacher-vit")
    }
    exact = replace(emoji.reinforcement(teachers), codec="fp32")
    reinforce(arguments.demo / "emoji", folder / "fp32", config=exact)
    models: dict[str, Path] = {}
    stored: dict[str, Stored] = {}
    for codec in arguments.codecs:
        if not (folder / codec / INDEX_FILE).is_file():
            store_anew(folder / "fp32", folder / codec, codec=codec)
        stored[codec] = look(folder / codec)
        for seed in arguments.seeds:
            name = f"{codec}-{seed}"
            models[name] = train_recipe(
                emoji.student_reinforced(seed=seed),
                data=folder / codec,
                out=folder / "students" / name,
                validation=None,
            )
    config = EvaluateConfig()
    report = evaluate(models, arguments.demo / "emoji", config=config)
    scores = {
        (model, split): 100 * report.result(model, split).scores[METRIC].value
        for model in models
        for split in config.splits
    }
    print(table(scores, stored=stored, splits=config.splits, seeds=arguments.seeds))


def store_anew(source: Path, out: Path, *, codec: Codec) -> None:
    """Writes a reinforced folder again, its embeddings with another codec."""
    index = read_index(source)
    splits: dict[str, tuple[ShardEntry, ...]] = {}
    for split in index.splits:
        entries = []
        for path in split_shards(source, split):
            with ShardReader(path) as reader:
                block = reader.block(BLOCK_NAME)
                assert block is not None
                anew = block_anew(Reinforcement(block, name=str(path)), codec=codec)
                del block
                entries.append(write_shard(out / split / path.name, list(reader), blocks={BLOCK_NAME: anew}))
        splits[split] = tuple(entries)
    write_index(out, replace(index, splits=splits))


def block_anew(block: Reinforcement, *, codec: Codec) -> bytes:
    """A block with the same embeddings and another codec."""
    counts = np.diff(block.text_offsets)
    samples = np.arange(len(block))
    of_texts = np.repeat(samples, counts)
    texts = np.concatenate([np.arange(count) for count in counts])
    teachers = []
    for teacher in block.header.teachers:
        views = [
            block.image_rows(teacher.name, samples, np.full(len(block), view))
            for view in range(block.num_views)
        ]
        rows = Embeddings(
            image_NAD=np.stack(views, axis=1), text_TD=block.text_rows(teacher.name, of_texts, texts)
        )
        teachers.append((teacher, rows))
    return pack_reinforcement(
        config_digest=block.header.config_digest,
        input_sha256=block.header.input_sha256,
        augment=block.header.augment,
        codec=codec,
        params_NAP=block.augment_params_NAP,
        text_counts=counts.tolist(),
        teachers=teachers,
        dropped=block.header.dropped,
    )


def look(folder: Path) -> Stored:
    """What a folder's embeddings take and what they lost."""
    num_bytes = num_samples = 0
    errors = []
    for path in split_shards(folder, "train"):
        with ShardReader(path) as reader:
            data = reader.block(BLOCK_NAME)
            assert data is not None
            block = Reinforcement(data, name=str(path))
            num_bytes += len(data) - block.augment_params_NAP.nbytes - block.text_offsets.nbytes
            num_samples += len(block)
            errors += [(error, len(block)) for error in block.header.errors.values()]
            del data, block
    return Stored(bytes_a_sample=num_bytes / num_samples, error=pool(errors))


def table(
    scores: Mapping[tuple[str, str], float],
    *,
    stored: Mapping[str, Stored],
    splits: tuple[str, ...],
    seeds: tuple[int, ...],
) -> str:
    """A Markdown table; recall in percent."""
    columns = ["bytes a sample", "cosine", "KL, nats", "TV", *splits, "from the first, in its deviations"]
    lines = ["| student on | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    first = next(iter(stored))
    for codec, facts in stored.items():
        error = facts.error
        cells = [
            f"{facts.bytes_a_sample:,.0f}",
            f"{error.cosine_mean:.6f}",
            f"{error.target_kl:.1e}",
            f"{100 * error.target_tv:.2f}%",
        ]
        away = []
        for split in splits:
            values, reference = (
                [scores[f"{name}-{seed}", split] for seed in seeds] for name in (codec, first)
            )
            cells.append(f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}")
            away.append((statistics.mean(values) - statistics.mean(reference)) / statistics.stdev(reference))
        cells.append(", ".join(f"{value:+.1f}" for value in away))
        lines.append(f"| {codec} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
