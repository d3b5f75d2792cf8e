"""`pocketclip describe`: what a model is made of, as a table of stages."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome

if TYPE_CHECKING:
    from pocketclip.checkpoint import CheckpointConfig
    from pocketclip.models.count import ModelCost, TowerCost

_WIDTH = 100
_NOTE = """\
A MAC is one multiplication and one addition: those of convolutions, linear layers and attention's
two products, for one picture and one text. Training has all branches; folded is what fold leaves.
Table 8 counts as that table of the paper (arXiv 2508.20691) does: folded, but for the BatchNorms of
ConvFFN and of attention and for layer scales. MB are parameters alone, 1 MB a million bytes."""


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Show a model's towers stage by stage: shapes, parameters, multiply-accumulates, before and after folding.

    NAME is a variant, or a checkpoint, of which it also says how it was trained. A variant's weights are never made,
    so that the largest takes seconds and hardly any memory.

    Examples:
        pocketclip describe MobileCLIP2-S0
        pocketclip describe mobileclip2_s3 --image-px 1024
        pocketclip describe runs/kd/checkpoint.safetensors
    """

    name: Positional[str]
    """A variant's name, or a checkpoint."""
    image_px: Annotated[int | None, arg(metavar="PX", help_behavior_hint="(default: the model's own)")] = None
    """Count for pictures of this size."""
    context_length: Annotated[
        int | None, arg(metavar="L", help_behavior_hint="(default: the model's own)")
    ] = None
    """Count for texts of this many ids."""
    json: bool = False
    """Print JSON, with exact counts."""

    def run(self) -> Outcome:
        """Counts, and draws the tables."""
        require("describe", ("train",))
        from pocketclip.checkpoint import unstructure
        from pocketclip.models.count import describe_towers

        model = _find(self.name)
        config = model.config
        px = config.preprocess.size if self.image_px is None else self.image_px
        cost = describe_towers(config.model, image_px=px, context_length=self.context_length)
        lines = [
            *_header(model),
            "",
            *_tower_table(f"image tower, a picture {_shape(cost.image.input_shape)}", cost.image),
            "",
            *_tower_table(f"text tower, a text {_shape(cost.text.input_shape)}", cost.text),
            "",
            *_decoder_table(cost),
            *_totals(cost),
            "",
            _NOTE,
        ]
        values = {
            "name": model.name,
            "digest": model.digest,
            **unstructure(config),
            "image_cost": _values(cost.image),
            "text_cost": _values(cost.text),
        }
        if cost.decoder is not None:
            values["decoder_cost"] = _values(cost.decoder)
        return Outcome("\n".join(lines), values)


def _decoder_table(cost: ModelCost) -> list[str]:
    """Of a captioner, with an empty line after it."""
    if cost.decoder is None:
        return []
    title = f"caption decoder, a text {_shape(cost.decoder.input_shape)} and its logits"
    return [*_tower_table(title, cost.decoder), ""]


@dataclass(frozen=True, kw_only=True)
class _Model:
    """What is described; a variant has no digest."""

    name: str
    config: CheckpointConfig
    digest: str | None = None


def _find(name: str) -> _Model:
    from pocketclip.checkpoint import load, variant_config
    from pocketclip.models import variant

    if not Path(name).exists():
        try:
            row = variant(name)
        except ValueError:
            pass  # `load` knows other names, and says which
        else:
            return _Model(name=row.name, config=variant_config(row.name))
    loaded = load(name)
    return _Model(name=name, config=loaded.config, digest=loaded.digest)


def _header(model: _Model) -> list[str]:
    from pocketclip.models import CaptionerConfig

    config, tokenizer = model.config, model.config.tokenizer
    preprocess = config.preprocess
    mean, std = _channels(preprocess.mean), _channels(preprocess.std)
    facts = {
        "image": _image_tower(asdict(config.model.image)),
        "text": _text_tower(asdict(config.model.text)),
        "embedding": f"{config.model.embed_dim} channels",
        "pictures": (
            f"{preprocess.size} px: shorter side resized ({preprocess.interpolation}), centre cropped; "
            f"mean {mean}; std {std}"
        ),
        "tokenizer": f"{tokenizer.vocab_size:,} ids, {tokenizer.context_length} a text",
    }
    if isinstance(config.model, CaptionerConfig):
        pool, decoder = config.model.pool, config.model.decoder
        facts["captions"] = (
            f"{decoder.layers} pairs of blocks, {decoder.heads} heads, over {pool.num_queries - 1} rows of a picture "
            f"({pool.num_queries} queries, {pool.heads} heads)"
        )
    if model.digest:
        facts |= {"digest": model.digest, "trained": _sentence(config.run) or "nothing is said of it"}
        for key, part in _sections(config.run):
            facts[f"  {key}"] = _sentence(part)
    first = max(map(len, facts)) + 2
    lines = [model.name]
    for key, text in facts.items():
        lines += textwrap.wrap(
            f"  {key:{first}}{text}",
            width=_WIDTH,
            subsequent_indent=" " * (first + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _channels(values: Sequence[float]) -> str:
    """One number where all channels have the same."""
    return ", ".join(f"{value:.4g}" for value in (values[:1] if len(set(values)) == 1 else values))


def _image_tower(config: Mapping[str, Any]) -> str:
    if config["kind"] == "fastvit":
        depths, widths = config["depths"], config["widths"]
        blocks = ", ".join(f"{depth} x {width}" for depth, width in zip(depths, widths, strict=True))
        first = len(widths) - config["attention_stages"] + 1
        attention = ", ".join(str(number) for number in range(first, len(widths) + 1)) or "none"
        return f"FastViT, blocks x channels {blocks}; attention in stage {attention}"
    pool = {"cls": "class token", "avg": "mean of patches"}[config["pool"]]
    blocks = f"{config['layers']} x {config['width']}, {config['heads']} heads"
    stem = f"{config['stem']} stem, patches of {config['patch_px']} px"
    return f"ViT, blocks x channels {blocks}; {stem}, {pool}"


def _text_tower(config: Mapping[str, Any]) -> str:
    blocks = f"{config['layers']} x {config['width']}, {config['heads']} heads"
    if config["kind"] == "hybrid":
        return f"hybrid, attention blocks x channels {blocks}, a RepMixer block before and after"
    mask = "causal" if config["causal"] else "no mask"
    return f"transformer, blocks x channels {blocks}, {mask}"


def _sections(run: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The parts of a run's configuration, the deeper ones after what holds them."""
    for key, value in run.items():
        if isinstance(value, Mapping):
            yield key, value
            yield from _sections(value)


def _sentence(values: Mapping[str, Any]) -> str:
    """The plain values of a part; of lists that are no numbers or names only how many they hold."""
    words = []
    for key, value in values.items():
        if isinstance(value, Mapping) or value is None:
            continue
        if isinstance(value, list | tuple):
            is_plain = all(isinstance(item, str | int | float) for item in value)
            value = ", ".join(map(str, value)) or "none" if is_plain else f"{len(value)} of them"
        words.append(f"{key} {value}")
    return "; ".join(words)


def _tower_table(title: str, tower: TowerCost) -> list[str]:
    unit, name = (1e6, "million") if tower.train.macs >= 1e9 else (1e3, "thousand")
    rows = [
        (
            stage.name,
            _shape(stage.shape),
            f"{stage.train.parameters:,}",
            f"{stage.folded.parameters:,}",
            f"{stage.train.macs / unit:,.1f}",
            f"{stage.folded.macs / unit:,.1f}",
            f"{stage.folded.macs / tower.folded.macs:.1%}",
        )
        for stage in tower.stages
    ]
    total = (
        "all",
        "",
        f"{tower.train.parameters:,}",
        f"{tower.folded.parameters:,}",
        f"{tower.train.macs / unit:,.1f}",
        f"{tower.folded.macs / unit:,.1f}",
        "",
    )
    heads = ("stage", "output", "training", "folded", "training", "folded", "share")
    groups = (("", 2), ("parameters", 2), (f"MACs, {name}", 3))
    return [title, *_aligned([heads, *rows, total], groups=groups, left=2)]


def _totals(cost: ModelCost) -> list[str]:
    image, text = cost.image, cost.text
    unit, name = (1e9, "billion") if image.train.macs + text.train.macs >= 1e9 else (1e6, "million")
    rows = [("", "image", "text", "both", "image", "text", "both", "fp32", "fp16")]
    for form, towers in (("training", (image.train, text.train)), ("folded", (image.folded, text.folded))):
        parameters = _with_sum([tower.parameters for tower in towers])
        macs = _with_sum([tower.macs for tower in towers])
        megabytes = (f"{parameters[-1] * size / 1e6:.1f}" for size in (4, 2))
        millions = (f"{count / 1e6:.2f}" for count in parameters)
        rows.append((form, *millions, *(f"{count / unit:.3f}" for count in macs), *megabytes))
    published = _with_sum([tower.published_parameters for tower in (image, text)])
    rows.append(("Table 8", *(f"{count / 1e6:.2f}" for count in published), *[""] * 5))
    groups = (("", 1), ("parameters, million", 3), (f"MACs, {name}", 3), ("MB", 2))
    return ["both towers", *_aligned(rows, groups=groups, left=1)]


def _with_sum(counts: Sequence[int]) -> list[int]:
    return [*counts, sum(counts)]


def _aligned(rows: Sequence[Sequence[str]], *, groups: Sequence[tuple[str, int]], left: int) -> Iterator[str]:
    """Rows with their columns aligned, the first `left` of them to the left; above them what groups of columns are."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    head, column = "", 0
    for title, size in groups:
        span = sum(width + 2 for width in widths[column : column + size])
        head += f"{title:>{span}}"
        column += size
    yield head.rstrip()
    for row in rows:
        cells = [
            f"  {cell:<{width}}" if number < left else f"  {cell:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "".join(cells).rstrip()


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _values(tower: TowerCost) -> dict[str, object]:
    totals = {"train": asdict(tower.train), "folded": asdict(tower.folded)}
    return asdict(tower) | totals
