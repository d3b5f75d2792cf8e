"""The command line: parse, call a verb, print. What a verb needs is imported when it is called.

Exit codes: 0 done; 1 the verb could not do its job, and one sentence on standard error says why; 2 wrong usage;
130 interrupted.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import tyro
from tyro.conf import Positional, arg, subcommand

from pocketclip.data.augment import AugmentSpec
from pocketclip.data.codec import Codec

if TYPE_CHECKING:
    from pocketclip.data.index import ShardIndex
    from pocketclip.reinforce import TeacherSpec
    from pocketclip.search import Hit


@dataclass(frozen=True)
class Outcome:
    """What a verb has to say: for people, and for scripts (`--json`)."""

    text: str
    values: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Turn pictures and captions into WebDataset shards.

    SOURCE is `emoji` (the demo's data set), a folder of pictures with sidecar .txt files, metadata.jsonl or
    captions.csv, WebDataset tars, or parquet with image bytes.

    Example:
        pocketclip pack photos/ data/
        pocketclip pack emoji emoji/
    """

    source: Positional[str]
    """`emoji`, a folder, a .tar (braces allowed: shard-{000..009}.tar) or a .parquet file."""
    out: Positional[Path]
    """Folder for the shards and their index.json."""
    validation: float = 0.05
    """Share of the pictures kept for validation (own data only)."""
    shard_samples: int = 1000
    """Most samples in a shard."""
    max_concepts: int | None = None
    """Pack about this many emoji instead of all (`emoji` only)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Packs."""
        from pocketclip.pack import EmojiConfig, PackConfig, pack, pack_emoji

        if self.source == "emoji":
            config = EmojiConfig(shard_samples=self.shard_samples, max_concepts=self.max_concepts)
            index = pack_emoji(self.out, config=config)
        else:
            own = PackConfig(validation=self.validation, shard_samples=self.shard_samples)
            index = pack(Path(self.source), self.out, config=own)
        return _shards_outcome(index, self.out)


@dataclass(frozen=True, kw_only=True)
class Reinforce:
    """Add the embeddings of teachers, on replayable augmented views, to packed shards.

    Example:
        pocketclip reinforce data/ reinforced/ --teacher a=runs/a/checkpoint.safetensors b=runs/b/checkpoint.safetensors
    """

    data: Positional[Path]
    """Folder written by `pocketclip pack`."""
    out: Positional[Path]
    """Folder for the reinforced shards; an interrupted run goes on where it was."""
    teacher: tuple[str, ...]
    """NAME=CHECKPOINT of each teacher; NAME=CHECKPOINT@SCALE distils it at that logit scale, not at its own."""
    views: int = 10
    """Augmented views of each picture."""
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    """What views are drawn from."""
    codec: Codec = "bf16"
    """How embeddings are stored."""
    split: tuple[str, ...] = ("train",)
    """Splits to reinforce."""
    batch_size: int = 256
    """Rows a teacher sees at once."""
    seed: int = 0
    """Of the views."""
    device: str = "cpu"
    """Where the teachers run: cpu, cuda, mps."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Reinforces."""
        from pocketclip.reinforce import ReinforceConfig, reinforce

        config = ReinforceConfig(
            teachers=tuple(_teacher(text) for text in self.teacher),
            num_views=self.views,
            augment=self.augment,
            codec=self.codec,
            seed=self.seed,
            splits=self.split,
            batch_size=self.batch_size,
            device=self.device,
        )
        return _shards_outcome(reinforce(self.data, self.out, config=config), self.out)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a recipe on plain or reinforced shards; a run that was interrupted goes on where it was.

    Every setting of a recipe can be given after it: `pocketclip train RECIPE --options` lists them.

    Example:
        pocketclip train emoji.student_plain --data emoji/ --out runs/plain
        pocketclip train emoji.student_reinforced --data reinforced/ --out runs/kd --loop.num-steps 500
        pocketclip train --list
    """

    recipe: Positional[str] = ""
    """Name of a recipe."""
    data: Path | None = None
    """Folder of shards; reinforced ones for a reinforced recipe."""
    out: Path | None = None
    """The run's folder."""
    validation: Path | None = None
    """Packed folder whose validation split is evaluated during training; none by default."""
    list: bool = False
    """List the recipes."""
    options: bool = False
    """List every setting of the recipe."""
    json: bool = False
    """Print JSON."""

    def run(self, settings: Sequence[str]) -> Outcome:
        """Trains with `settings`, the arguments that are the recipe's."""
        from pocketclip.recipes.registry import RECIPES, recipe
        from pocketclip.recipes.run import train_recipe

        if self.list:
            lines = {name: (make.__doc__ or "").splitlines()[0] for name, make in RECIPES.items()}
            return Outcome("\n".join(f"{name:32} {line}" for name, line in lines.items()), lines)
        config = recipe(self.recipe)
        asked = ["--help"] if self.options else list(settings)
        config = tyro.cli(type(config), default=config, args=asked, prog=f"pocketclip train {self.recipe}")
        if self.data is None or self.out is None:
            raise SystemExit(_usage("train needs --data FOLDER and --out FOLDER"))
        checkpoint = train_recipe(config, data=self.data, out=self.out, validation=self.validation)
        return Outcome(f"checkpoint: {checkpoint}", {"checkpoint": str(checkpoint)})


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure retrieval and n-way zero-shot accuracy of models, with bootstrap intervals.

    Example:
        pocketclip evaluate plain=runs/plain/checkpoint.safetensors kd=runs/kd/checkpoint.safetensors --data emoji/
    """

    models: Positional[tuple[str, ...]]
    """Checkpoints, each with a name if you like: NAME=CHECKPOINT."""
    data: Path
    """Folder written by `pocketclip pack`."""
    split: tuple[str, ...] = ("test-style", "test-composition", "test-unseen")
    """Splits to evaluate on."""
    nway: int = 20
    """Candidates of the n-way accuracy."""
    out: Path | None = None
    """Keep the full report, with every query's rank, as JSON."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Evaluates."""
        from pocketclip.evaluate import EvaluateConfig, evaluate

        models = {}
        for text in self.models:
            name, path = _named(text)
            if name in models:
                raise ValueError(f"two models are called {name}: write NAME={path}")
            models[name] = path
        report = evaluate(models, self.data, config=EvaluateConfig(splits=self.split, nway=self.nway))
        if self.out:
            report.write(self.out)
        return Outcome(report.table(), {"results": json.loads(report.to_json())["results"]})


@dataclass(frozen=True, kw_only=True)
class Export:
    """Fold a checkpoint, export both towers to ONNX, and publish them only if they equal it.

    Example:
        pocketclip export runs/kd/checkpoint.safetensors exported/
    """

    checkpoint: Positional[Path]
    """File written by `pocketclip train`."""
    out: Positional[Path]
    """Folder for image.onnx, text.onnx, tokenizer.json and manifest.json."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Exports."""
        from pocketclip.export import export

        report = export(self.checkpoint, self.out)
        lines = [
            f"{tower.tower:6} max difference {tower.max_difference:.2e}   worst cosine {tower.min_cosine:.7f}   finite"
            for tower in report.towers
        ]
        return Outcome(
            "\n".join([f"exported to {self.out}, equal to the checkpoint:", *lines]), report.to_json()
        )


@dataclass(frozen=True, kw_only=True)
class Index:
    """Embed the pictures of a folder with an exported model, so that they can be searched.

    Example:
        pocketclip index photos/ photos.sqlite --model exported/
    """

    source: Positional[Path]
    """Folder of pictures, or a folder written by `pocketclip pack`."""
    out: Positional[Path]
    """The index, one file."""
    model: Path
    """Folder written by `pocketclip export`."""
    split: tuple[str, ...] = ()
    """Splits of a packed folder; all by default."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Indexes."""
        from pocketclip.search import IndexConfig, index

        summary = index(self.source, self.out, model=self.model, config=IndexConfig(splits=self.split))
        lines = [
            f"{summary.num_pictures} pictures in {self.out} ({summary.pictures_per_second:.0f} a second)"
        ]
        lines += [f"skipped {skipped.name}: {skipped.reason}" for skipped in summary.skipped]
        values = {
            "pictures": summary.num_pictures,
            "skipped": [asdict(skipped) for skipped in summary.skipped],
        }
        return Outcome("\n".join(lines), values)


@dataclass(frozen=True, kw_only=True)
class Search:
    """Find pictures of an index by words, or by a picture.

    Example:
        pocketclip search photos.sqlite "a red bicycle"
        pocketclip search photos.sqlite --picture bicycle.jpg --sheet found.png
    """

    index: Positional[Path]
    """File written by `pocketclip index`."""
    text: Positional[str] = ""
    """What to look for."""
    picture: Path | None = None
    """A picture to find the like of, instead of words."""
    k: Annotated[int, arg(aliases=["-k"])] = 10
    """How many pictures."""
    model: Path | None = None
    """The exported model, if it moved since."""
    sheet: Path | None = None
    """Draw the pictures found into this PNG."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Searches."""
        from pocketclip.data.picture import decode
        from pocketclip.search import Row, SearchIndex, contact_sheet

        index = SearchIndex(self.index, model=self.model)
        image = decode(self.picture.read_bytes(), name=str(self.picture)) if self.picture else None
        text = self.text or (None if image else "")
        hits = index.search(text, image=image, k=self.k)
        if self.sheet:
            title = self.text or str(self.picture)
            contact_sheet([Row(title=title, hits=hits, image=image)], self.sheet)
        return Outcome(
            "\n".join(f"{hit.score:6.3f}  {_place(hit)}  {hit.caption or ''}".rstrip() for hit in hits),
            {"hits": [_hit_values(hit) for hit in hits]},
        )


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole road on real pictures: pack, teachers, reinforce, students, evaluate, export, search, report.html.

    Takes minutes on two cores; interrupted, it goes on where it was.

    Example:
        pocketclip demo demo/
        pocketclip demo /tmp/look --quick
    """

    out: Positional[Path]
    """Folder for everything."""
    quick: bool = False
    """About a minute: few pictures and steps, only to see that everything runs."""
    seed: int = 0
    """Of the students."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Walks the road."""
        from pocketclip.recipes.demo import DemoConfig, demo

        config = DemoConfig(quick=self.quick, seed=self.seed)
        result = demo(self.out, config=config, announce=lambda line: print(line, file=sys.stderr, flush=True))
        total = sum(seconds for _, seconds in result.timings)
        clock = [f"{seconds:8.1f} s  {step}" for step, seconds in result.timings]
        lines = ["", result.table, "", *clock, f"{total:8.1f} s  in all", "", result.headline, ""]
        lines += [f"report: {result.report}", f'search: pocketclip search {result.index} "a red heart"']
        values = {"headline": result.headline, "seconds": dict(result.timings), "report": str(result.report)}
        return Outcome("\n".join(lines), values)


def _doc(verb: type) -> str:
    """The whole docstring, example and line breaks included, as a verb's help."""
    return inspect.cleandoc(verb.__doc__ or "")


Verb: TypeAlias = (
    Annotated[Pack, subcommand("pack", description=_doc(Pack))]
    | Annotated[Reinforce, subcommand("reinforce", description=_doc(Reinforce))]
    | Annotated[Train, subcommand("train", description=_doc(Train))]
    | Annotated[Evaluate, subcommand("evaluate", description=_doc(Evaluate))]
    | Annotated[Export, subcommand("export", description=_doc(Export))]
    | Annotated[Index, subcommand("index", description=_doc(Index))]
    | Annotated[Search, subcommand("search", description=_doc(Search))]
    | Annotated[Demo, subcommand("demo", description=_doc(Demo))]
)

_DESCRIPTION = """Small, fast image-text models from your own data, shipped to devices.

Pictures travel this road: pack, reinforce, train, evaluate, export, index, search. `pocketclip VERB --help`
shows an example of each; `pocketclip demo OUT` walks all of it.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    # libgomp's threads spin for milliseconds by default: on a machine with anything else to do, 30 times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        from pocketclip import __version__

        print(__version__)
        return
    verb, unknown = _parse(arguments)
    if unknown and not isinstance(verb, Train):
        raise SystemExit(_usage(f"unknown arguments {' '.join(unknown)}"))
    try:
        outcome = verb.run(unknown) if isinstance(verb, Train) else verb.run()
        print(
            json.dumps(outcome.values, indent=1, ensure_ascii=False) if verb.json else outcome.text,
            flush=True,
        )
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("POCKETCLIP_TRACEBACK"):
            raise
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        raise SystemExit(_failure(str(error))) from None
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None


def _parse(arguments: Sequence[str]) -> tuple[Verb, list[str]]:
    """The verb, and what it does not know: settings of a recipe."""
    parsed = tyro.cli(
        Verb,  # type: ignore[arg-type]
        prog="pocketclip",
        description=_DESCRIPTION,
        args=arguments,
        return_unknown_args=True,
    )
    return cast("tuple[Verb, list[str]]", parsed)


def _failure(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 1


def _usage(sentence: str) -> int:
    print(f"error: {sentence}; see `pocketclip --help`", file=sys.stderr)
    return 2


def _named(text: str) -> tuple[str, Path]:
    """NAME=PATH, or PATH, named after the run's folder."""
    name, separator, path = text.partition("=")
    if separator:
        return name, Path(path)
    return (Path(text).parent.name or Path(text).stem), Path(text)


def _teacher(text: str) -> TeacherSpec:
    from pocketclip.reinforce import TeacherSpec

    name, path = _named(text)
    before, separator, scale = str(path).rpartition("@")
    if not separator:
        return TeacherSpec(name=name, checkpoint=path)
    try:
        return TeacherSpec(name=name, checkpoint=Path(before), logit_scale=float(scale))
    except ValueError:
        raise ValueError(
            f"--teacher {text}: the logit scale after @ must be a number, got {scale!r}"
        ) from None


def _shards_outcome(index: ShardIndex, out: Path) -> Outcome:
    counts = {split: index.num_samples(split) for split in index.splits}
    lines = [f"{count:8} samples  {out / split}" for split, count in counts.items()]
    if index.dropped:
        lines.append(
            f"{len(index.dropped):8} dropped; {out / 'index.json'} lists each with its reason, for instance:"
        )
        lines += [f"         {dropped.source}: {dropped.reason}" for dropped in index.dropped[:3]]
    return Outcome(
        "\n".join(lines), {"splits": counts, "dropped": [asdict(dropped) for dropped in index.dropped]}
    )


def _place(hit: Hit) -> str:
    return f"{hit.path}#{hit.key}" if hit.key else str(hit.path)


def _hit_values(hit: Hit) -> dict[str, object]:
    return {
        "rank": hit.rank,
        "score": hit.score,
        "path": str(hit.path),
        "key": hit.key,
        "caption": hit.caption,
    }


if __name__ == "__main__":
    main()
