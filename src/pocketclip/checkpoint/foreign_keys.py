"""The names that open_clip, timm and Apple's first release give our tensors: one table, read in both directions.

A row names a part of a tower three times: here, in timm (image) or open_clip (text), and in Apple's v1 layout. What
follows a part's name (`.weight`, `.running_mean`) is the same everywhere. Numbers in braces are copied; `mixing` and
`attending` are stages of RepMixers and of attention. Apple's v1 layout counts the parts of all stages in one list:
`down`, `place` and `body` are where a stage's down-sampling, positional convolution and blocks stand in it.

Facts: the published checkpoints of MobileCLIP (arXiv 2311.17049) and MobileCLIP2 (arXiv 2508.20691), open_clip 3.3 and
timm 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from pocketclip.checkpoint import captioner_keys
from pocketclip.checkpoint.blank import blank
from pocketclip.checkpoint.misfit import listed, misfits
from pocketclip.models.captioner import CaptionerConfig
from pocketclip.models.clip import ClipConfig
from pocketclip.models.fastvit import FastViTConfig
from pocketclip.models.hybrid_text import HybridTextConfig
from pocketclip.models.vit import ViTConfig

Layout = Literal["pocketclip", "open_clip", "timm", "apple-v1"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class Form(NamedTuple):
    """How a tensor lies in a foreign layout, and how it comes back."""

    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


class Cell(NamedTuple):
    """A part's name in a layout, and the form of its tensor; without a name it is zero there by definition."""

    name: str | None
    form: Form


_AS_IS = Form(lambda value: value, lambda value: value)
_TRANSPOSED = Form(lambda value: value.T, lambda value: value.T)
_COLUMN = Form(lambda value: value[:, None, None], lambda value: value[:, 0, 0])
_IN_ONE = Form(lambda value: value[None], lambda value: value[0])
_IN_TWO = Form(lambda value: value[None, None], lambda value: value[0, 0])
ZERO = Cell(None, _AS_IS)

_Cells: TypeAlias = tuple[
    str | Cell | None, ...
]  # ours, timm and open_clip, Apple v1; None: it has no such part


def _transposed(name: str) -> Cell:
    return Cell(name, _TRANSPOSED)


def _column(name: str) -> Cell:
    return Cell(name, _COLUMN)


def _in_one(name: str) -> Cell:
    return Cell(name, _IN_ONE)


def _in_two(name: str) -> Cell:
    return Cell(name, _IN_TWO)


def _under(parts: tuple[_Cells, ...], leaves: tuple[_Cells, ...]) -> Iterator[_Cells]:
    """Every leaf under every part."""
    for part in parts:
        for leaf in leaves:
            yield tuple(
                f"{above}.{below}" if above and below else None
                for above, below in zip(part, leaf, strict=True)
            )


_BRANCHES: tuple[_Cells, ...] = (
    ("convs.0.conv", "conv_kxk.0.conv", "rbr_conv.0.conv"),
    ("convs.0.norm", "conv_kxk.0.bn", "rbr_conv.0.bn"),
    ("convs.1.conv", "conv_scale.conv", "rbr_scale.conv"),
    ("convs.1.norm", "conv_scale.bn", "rbr_scale.bn"),
    ("identity", "identity", "rbr_skip"),
)
_LARGE_KERNEL: tuple[_Cells, ...] = (
    ("conv.convs.0.conv", "large_conv.conv", "lkb_origin.conv"),
    ("conv.convs.0.norm", "large_conv.bn", "lkb_origin.bn"),
    ("conv.convs.1.conv", "small_conv.conv", "small_conv.conv"),
    ("conv.convs.1.norm", "small_conv.bn", "small_conv.bn"),
    ("squeeze.reduce", "se.fc1", "se.fc1"),
    ("squeeze.expand", "se.fc2", "se.fc2"),
)
_CONV_FFN: tuple[_Cells, ...] = (
    ("ffn.branch.conv.conv", "mlp.conv.conv", "convffn.conv.conv"),
    ("ffn.branch.conv.norm", "mlp.conv.bn", "convffn.conv.bn"),
    ("ffn.branch.up", "mlp.fc1", "convffn.fc1"),
    ("ffn.branch.down", "mlp.fc2", "convffn.fc2"),
)
_MAP_ATTENTION: tuple[_Cells, ...] = (
    ("mixer.branch.norm", "norm", "norm"),
    ("mixer.branch.attention.qkv", "token_mixer.qkv", "token_mixer.qkv"),
    ("mixer.branch.attention.out", "token_mixer.proj", "token_mixer.proj"),
    ("mixer.norm", "token_mixer.norm.identity", "token_mixer.norm.rbr_skip"),
)
_BLOCK = ("stages.{stage}.blocks.{block}", "stages.{stage}.blocks.{block}", "network.{body}.{block}")
_FASTVIT: tuple[_Cells, ...] = (
    *_under(
        (
            ("stem.{layer}.conv", "stem.{layer}", "patch_embed.{layer}"),
            ("stages.{stage}.downsample.1.conv", "stages.{stage}.downsample.proj.1", "network.{down}.proj.1"),
            (f"{_BLOCK[0]}.mixer.mix", f"{_BLOCK[1]}.token_mixer.mixer", f"{_BLOCK[2]}.token_mixer.mixer"),
            ("expand.conv", "final_conv", "conv_exp"),
        ),
        _BRANCHES,
    ),
    *_under(
        (("stages.{stage}.downsample.0", "stages.{stage}.downsample.proj.0", "network.{down}.proj.0"),),
        _LARGE_KERNEL,
    ),
    ("stages.{stage}.position.conv", "stages.{stage}.pos_emb.pos_enc", "network.{place}.pe"),
    *_under((_BLOCK,), (*_CONV_FFN, *_MAP_ATTENTION)),
    (
        "stages.{mixing}.blocks.{block}.mixer.scale",
        _column(f"{_BLOCK[1]}.token_mixer.layer_scale.gamma"),
        _column(f"{_BLOCK[2]}.token_mixer.layer_scale"),
    ),
    (
        "stages.{mixing}.blocks.{block}.ffn.scale",
        _column(f"{_BLOCK[1]}.layer_scale.gamma"),
        _column(f"{_BLOCK[2]}.layer_scale"),
    ),
    (
        "stages.{attending}.blocks.{block}.mixer.scale",
        _column(f"{_BLOCK[1]}.layer_scale_1.gamma"),
        _column(f"{_BLOCK[2]}.layer_scale_1"),
    ),
    (
        "stages.{attending}.blocks.{block}.ffn.scale",
        _column(f"{_BLOCK[1]}.layer_scale_2.gamma"),
        _column(f"{_BLOCK[2]}.layer_scale_2"),
    ),
    ("expand.squeeze.reduce", "final_conv.se.fc1", "conv_exp.se.reduce"),
    ("expand.squeeze.expand", "final_conv.se.fc2", "conv_exp.se.expand"),
    ("head.weight", "head.fc.weight", _transposed("head.proj")),
    ("head.bias", "head.fc.bias", ZERO),
)
_VIT: tuple[_Cells, ...] = (
    (
        "stem.weight",
        "patch_embed.proj.weight",
        None,
    ),  # Apple's first release has no tower with a plain patch stem
    ("stem.bias", "patch_embed.proj.bias", None),
    ("stem.0.conv", "patch_embed.backbone.0.conv", "patch_emb.0.block.conv"),
    ("stem.0.norm", "patch_embed.backbone.0.bn", "patch_emb.0.block.norm"),
    ("stem.2.conv", "patch_embed.backbone.1.conv", "patch_emb.1.block.conv"),
    ("stem.2.norm", "patch_embed.backbone.1.bn", "patch_emb.1.block.norm"),
    (
        "stem.2",
        "patch_embed.backbone.1.conv",
        "patch_emb.1.block.conv",
    ),  # the last one, where patches are of 8 pixels
    ("stem.4", "patch_embed.backbone.2.conv", "patch_emb.2.block.conv"),
    ("class_token", _in_two("cls_token"), _in_two("cls_token")),
    ("position", _in_one("pos_embed"), _in_two("pos_embed.pos_embed.pos_embed")),
    ("pre_norm", "norm_pre", None),
    *_under(
        (("blocks.{block}", "blocks.{block}", "transformer.{block}"),),
        (
            ("mixer.branch.norm", "norm1", "pre_norm_mha.0"),
            ("mixer.branch.inner.qkv", "attn.qkv", "pre_norm_mha.1.qkv_proj"),
            ("mixer.branch.inner.out", "attn.proj", "pre_norm_mha.1.out_proj"),
            ("ffn.branch.norm", "norm2", "pre_norm_ffn.0"),
            ("ffn.branch.inner.up", "mlp.fc1", "pre_norm_ffn.1"),
            ("ffn.branch.inner.down", "mlp.fc2", "pre_norm_ffn.4"),
        ),
    ),
    ("norm", "norm", "post_transformer_norm"),
    ("head.weight", "head.weight", _transposed("classifier.proj")),
    ("head.bias", "head.bias", ZERO),
)
_TEXT: tuple[_Cells, ...] = (
    ("token", "token_embedding", "embedding_layer"),
    ("position", "positional_embedding", _in_two("positional_embedding.pos_embed.pos_embed")),
    *_under(
        (("blocks.{block}", "transformer.resblocks.{block}", "transformer.{block}"),),
        (
            ("mixer.branch.norm", "ln_1", "pre_norm_mha.0"),
            ("mixer.branch.inner.qkv.weight", "attn.in_proj_weight", "pre_norm_mha.1.qkv_proj.weight"),
            ("mixer.branch.inner.qkv.bias", "attn.in_proj_bias", "pre_norm_mha.1.qkv_proj.bias"),
            ("mixer.branch.inner.out", "attn.out_proj", "pre_norm_mha.1.out_proj"),
            ("ffn.branch.norm", "ln_2", "pre_norm_ffn.0"),
            ("ffn.branch.inner.up", "mlp.c_fc", "pre_norm_ffn.1"),
            ("ffn.branch.inner.down", "mlp.c_proj", "pre_norm_ffn.4"),
        ),
    ),
    ("norm", "ln_final", "final_layer_norm"),
    ("head.weight", _transposed("text_projection"), _transposed("projection_layer")),
)
_HYBRID_TEXT: tuple[_Cells, ...] = (  # open_clip has no such tower
    *((ours, None, apple) for ours, _, apple in _TEXT),
    *_under((("blocks.{block}.mixer.mix", None, "transformer.{block}.token_mixer.mixer"),), _BRANCHES),
    *_under((("blocks.{block}", None, "transformer.{block}"),), _CONV_FFN),
    ("blocks.{block}.mixer.norm", None, "transformer.{block}.token_mixer.norm.rbr_skip"),
    ("blocks.{block}.mixer.scale", None, _column("transformer.{block}.token_mixer.layer_scale")),
    ("blocks.{block}.ffn.scale", None, _column("transformer.{block}.layer_scale")),
)

_CAPTIONER: tuple[_Cells, ...] = tuple(  # whole names; the other layouts have no such model
    (
        ours,
        _transposed(theirs.removesuffix(captioner_keys.TRANSPOSED))
        if theirs.endswith(captioner_keys.TRANSPOSED)
        else theirs,
    )
    for ours, theirs in captioner_keys.ROWS
)

_COLUMNS: Mapping[Layout, int] = MappingProxyType({"pocketclip": 0, "open_clip": 1, "timm": 1, "apple-v1": 2})
# What stands before the names of the image tower and of the text tower.
_PREFIXES: Mapping[Layout, tuple[str, str]] = MappingProxyType(
    {
        "pocketclip": ("image.", "text."),
        "open_clip": ("visual.trunk.", "text."),
        "timm": ("", ""),
        "apple-v1": ("image_encoder.model.", "text_encoder."),
    }
)
_COUNTER = (
    "num_batches_tracked"  # of a BatchNorm; read only where its momentum is None, so a file may lack it
)


class MisfitError(ValueError):
    """Tensors that are not those of the model in the layout.

    Attributes:
        problems: what is wrong with each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(listed(problems))
        self.problems = tuple(problems)


def our_tensors(config: ClipConfig) -> Mapping[str, Tensor]:
    """Parameters and buffers of the un-folded model by name, on the meta device; torch's random state is kept."""
    return _our_tensors(config)


@lru_cache(maxsize=32)
def _our_tensors(config: ClipConfig) -> Mapping[str, Tensor]:
    return MappingProxyType(blank(config).state_dict())


def unnamed(config: ClipConfig, layout: Layout) -> list[str]:
    """Our names of the tensors that the layout has no name for; empty when it can hold the model."""
    return [name for name, cell in _cells(config, layout).items() if cell is None]


def name_in(layout: Layout, name: str, *, config: ClipConfig) -> str | None:
    """The layout's name of one of our tensors; None where it has none."""
    cell = _cells(config, layout).get(name)
    return cell.name if cell else None


def is_counter(name: str) -> bool:
    """Whether a tensor counts a BatchNorm's batches; nothing here reads it, and a file may lack it."""
    return name.endswith("num_batches_tracked")


def their_tensors(config: ClipConfig, layout: Layout) -> dict[str, Tensor]:
    """The tensors of the model as the layout names and shapes them, on the meta device.

    `timm` has those of the image tower alone.
    """
    ours = our_tensors(config)
    cells = _cells(config, layout)
    return {cell.name: cell.form.there(ours[name]) for name, cell in cells.items() if cell and cell.name}


def to_ours(state: Mapping[str, Tensor], *, config: ClipConfig, layout: Layout) -> dict[str, Tensor]:
    """Tensors under our names, float32, contiguous and with memory of their own.

    Counters of BatchNorm may be missing and are zero then; nothing else may.

    Args:
        state: as the layout has it, on the CPU, of any floating type.
        config: of the model.
        layout: of `state`; `timm` gives the image tower alone.

    Raises:
        MisfitError: a tensor is missing, surplus, or of another shape or type; all are named.
    """
    expected = their_tensors(config, layout)
    counters = {name: value for name, value in expected.items() if is_counter(name)}
    found = {name: torch.zeros_like(value, device="cpu") for name, value in counters.items()} | dict(state)
    problems = [f"missing {name}, which the {layout} layout cannot hold" for name in unnamed(config, layout)]
    problems += misfits(found, expected=expected, any_float=True)
    if problems:
        raise MisfitError(problems)
    ours = our_tensors(config)
    return {
        name: _owned(cell.form.back(found[cell.name]))
        if cell.name
        else torch.zeros_like(ours[name], device="cpu")
        for name, cell in _cells(config, layout).items()
        if cell
    }


def to_theirs(state: Mapping[str, Tensor], *, config: ClipConfig, layout: Layout) -> dict[str, Tensor]:
    """Tensors under the layout's names and in its shapes, contiguous.

    Args:
        state: of the un-folded model.
        config: of the model.
        layout: to write; `timm` takes the image tower alone.

    Raises:
        ValueError: the layout has no name for a tensor, or takes one for zero that is not.
    """
    nameless = unnamed(config, layout)
    if nameless:
        raise ValueError(f"the {layout} layout has no name for {listed(nameless)}")
    theirs = {}
    for name, cell in _cells(config, layout).items():
        assert cell
        value = state[name].detach().cpu()
        if cell.name:
            theirs[cell.name] = cell.form.there(value).contiguous()
        elif value.any():
            largest = value.abs().max().item()
            raise ValueError(
                f"the {layout} layout has no place for {name}, and it is not zero here (up to {largest:.3g})"
            )
    return theirs


def _owned(value: Tensor) -> Tensor:
    dtype = torch.float32 if value.is_floating_point() else value.dtype
    return value.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)


@lru_cache(maxsize=64)
def _cells(config: ClipConfig, layout: Layout) -> Mapping[str, Cell | None]:
    """For each of our names the layout's; None where it has none. A layout without text tower leaves it out."""
    names = our_tensors(config)
    if layout == "pocketclip":
        return {name: Cell(name, _AS_IS) for name in names}
    if isinstance(config, CaptionerConfig):
        table = _Table(_CAPTIONER, 1, None)
        return MappingProxyType(
            {name: table.look_up(name) if layout == "open_clip" else None for name in names}
        )
    column = _COLUMNS[layout]
    above_image, above_text = _PREFIXES[layout]
    image = _Table(_FASTVIT if isinstance(config.image, FastViTConfig) else _VIT, column, config.image)
    text = _Table(_HYBRID_TEXT if isinstance(config.text, HybridTextConfig) else _TEXT, column, None)
    cells: dict[str, Cell | None] = {}
    for name in names:
        tower, _, part = name.partition(".")
        if tower == "image":
            cells[name] = _below(above_image, image.look_up(part))
        elif layout != "timm":
            cells[name] = _below(above_text, text.look_up(part)) if part else Cell(name, _AS_IS)
    return MappingProxyType(cells)


def _below(prefix: str, cell: Cell | None) -> Cell | None:
    return cell._replace(name=prefix + cell.name) if cell and cell.name else cell


class _Table:
    """A tower's rows, ready to look names up in one column."""

    def __init__(
        self, rows: tuple[_Cells, ...], column: int, config: FastViTConfig | ViTConfig | None
    ) -> None:
        self._places = _flat_places(config) if isinstance(config, FastViTConfig) else []
        attending = [str(stage) for stage, places in enumerate(self._places) if "place" in places]
        mixing = [str(stage) for stage, places in enumerate(self._places) if "place" not in places]
        numbers = {"attending": "|".join(attending) or "none", "mixing": "|".join(mixing) or "none"}
        self._rows = [(_pattern(str(row[0]), numbers), row[column]) for row in rows]

    def look_up(self, name: str) -> Cell | None:
        for pattern, found in self._rows:
            match = pattern.match(name)
            if match:
                cell = Cell(found, _AS_IS) if isinstance(found, str) else found
                if cell is None or cell.name is None:
                    return cell
                numbers = {key: int(value) for key, value in match.groupdict().items()}
                stage = next(
                    (numbers[key] for key in ("stage", "mixing", "attending") if key in numbers), None
                )
                if stage is not None:
                    numbers |= {"stage": stage} | self._places[stage]
                return cell._replace(name=cell.name.format(**numbers) + name[match.end() :])
        return None


def _pattern(part: str, numbers: Mapping[str, str]) -> re.Pattern[str]:
    """Matches a name that is the part or begins with it; its numbers are named groups."""
    words = re.split(r"\{(\w+)\}", part)
    escaped = [
        f"(?P<{word}>{numbers.get(word, '[0-9]+')})" if index % 2 else re.escape(word)
        for index, word in enumerate(words)
    ]
    return re.compile("".join(escaped) + r"(?=\.|$)")


def _flat_places(config: FastViTConfig) -> list[dict[str, int]]:
    """Where each stage's parts stand in Apple's one list of them."""
    places: list[dict[str, int]] = []
    following = 0
    num_stages = len(config.widths)
    for stage in range(num_stages):
        here: dict[str, int] = {}
        attends = stage >= num_stages - config.attention_stages
        for part, is_there in (("down", stage > 0), ("place", attends), ("body", True)):
            if is_there:
                here[part] = following
                following += 1
        places.append(here)
    return places
