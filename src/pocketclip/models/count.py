"""What a model costs: parameters and multiply-accumulates of each stage, trained and folded, without its weights.

The towers are built, folded and run on torch's meta device: shapes without numbers, so that the largest is counted in
about a second and no memory.

One MAC is one multiplication and one addition. Counted are convolutions (every tap, those in the padding too), linear
layers, and attention's two products, queries with keys and weights with values, in full also where a causal mask
leaves half of them out. Not counted, as in the papers: biases, normalisation, activations, softmax, pooling, sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pocketclip.models.attention_pool import PooledImage
from pocketclip.models.caption_text import CaptionDecoder, CaptionText
from pocketclip.models.captioner import Captioner, network
from pocketclip.models.clip import ClipConfig
from pocketclip.models.convolution import ConvFFN, ConvNorm
from pocketclip.models.fastvit import FastViT, MapAttention, Stage
from pocketclip.models.fold import fold
from pocketclip.models.hybrid_text import HybridText, MixerBlock
from pocketclip.models.residual import Residual
from pocketclip.models.text import TextTransformer
from pocketclip.models.vit import ViT, ViTConfig


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Parameters, and multiply-accumulates for one picture or text."""

    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One row of a tower's table.

    Attributes:
        name: `stem`, `stage 2`, `blocks 1-12` and so on; unique in its tower.
        shape: what leaves it for one picture or text: [C, H, W], [L, C] or [D].
        train: as it is trained, with all branches.
        folded: after `fold`.
    """

    name: str
    shape: tuple[int, ...]
    train: Cost
    folded: Cost


@dataclass(frozen=True, kw_only=True)
class TowerCost:
    """A tower, stage by stage.

    Attributes:
        input_shape: one picture [3, H, W], or the ids of one text [L].
        stages: in the order they are run; every parameter is in exactly one.
        published_parameters: as the paper's Table 8 counts them (MobileCLIP2, arXiv 2508.20691). Its towers are
            reparameterised by the published code. That folds branches, RepMixers and positional convolutions as
            `fold` does, and leaves the BatchNorms of a ConvFFN, of attention and of a ViT's stem, and the layer
            scales outside RepMixers.
    """

    input_shape: tuple[int, ...]
    stages: tuple[StageCost, ...]
    published_parameters: int

    @property
    def train(self) -> Cost:
        """All stages as they are trained."""
        return _total([stage.train for stage in self.stages])

    @property
    def folded(self) -> Cost:
        """All stages after `fold`."""
        return _total([stage.folded for stage in self.stages])


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """Both towers; the logit scale, one more parameter, is in neither.

    Attributes:
        image: one picture.
        text: one text.
        decoder: of a captioner, all logits of one text at once; None for a model that does not write.
    """

    image: TowerCost
    text: TowerCost
    decoder: TowerCost | None = None


def describe_towers(config: ClipConfig, *, image_px: int, context_length: int | None = None) -> ModelCost:
    """Counts both towers of a model, stage by stage.

    Args:
        config: the two towers.
        image_px: side of the square picture; a ViT's positions are counted for that size.
        context_length: tokens of a text; None for the config's own.

    Raises:
        ValueError: a size that no picture or text has, or that the image tower cannot take.
    """
    if image_px < 1:
        raise ValueError(f"image_px is {image_px}; a picture has at least 1 pixel a side.")
    length = config.text.context_length if context_length is None else context_length
    text = replace(config.text, context_length=length)
    image = replace(config.image, image_px=image_px) if isinstance(config.image, ViTConfig) else config.image
    with torch.device("meta"):
        model = network(replace(config, image=image, text=text)).eval()
        image_1CHW = torch.empty(1, 3, image_px, image_px)
        tokens_1L = torch.empty(1, length, dtype=torch.int64)
        decoder = _count_decoder(model, length=length) if isinstance(model, Captioner) else None
    return ModelCost(
        image=_count(model.image, image_1CHW), text=_count(model.text, tokens_1L), decoder=decoder
    )


def _count_decoder(model: Captioner, *, length: int) -> TowerCost:
    width, num_seen = model.config.embed_dim, model.config.pool.num_queries - 1
    x_1LC, seen_1MC = (torch.empty(1, num, width) for num in (length, num_seen))
    cost = _count(model.decoder, seen_1MC, x_1LC)
    return replace(cost, input_shape=tuple(x_1LC.shape[1:]))


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A row before it is counted: modules that are called once each, one after the other, and loose parameters."""

    name: str
    modules: Sequence[nn.Module]
    loose: Sequence[nn.Parameter | None] = ()


@dataclass(frozen=True, kw_only=True)
class _Counted:
    """A row of one form of a tower."""

    name: str
    shape: tuple[int, ...]
    cost: Cost


def _count(tower: nn.Module, *inputs: Tensor) -> TowerCost:
    rows = zip(_run(tower, *inputs), _run(fold(tower), *inputs), strict=True)
    stages = tuple(
        StageCost(name=train.name, shape=train.shape, train=train.cost, folded=folded.cost)
        for train, folded in rows
    )
    num_folded = sum(stage.folded.parameters for stage in stages)
    return TowerCost(
        input_shape=tuple(inputs[0].shape[1:]),
        stages=stages,
        published_parameters=num_folded + _left_by_published_code(tower),
    )


def _left_by_published_code(tower: nn.Module) -> int:
    """Parameters that the published reparameterisation leaves and `fold` does not; see `TowerCost`."""
    left = 0
    for module in tower.modules():
        if isinstance(module, ConvFFN):
            left += module.conv.norm.num_features  # scale and shift instead of a bias
        if isinstance(module, MapAttention) and isinstance(module.norm, nn.BatchNorm2d):
            left -= module.norm.num_features  # scale and shift instead of a bias of query, key and value
        if isinstance(module, Residual) and module.scale is not None:
            left += module.scale.numel()
    if isinstance(tower, ViT):
        stem = [module for module in tower.stem.modules() if isinstance(module, ConvNorm)]
        left += sum(module.norm.num_features for module in stem)
    return left


def _run(tower: nn.Module, *inputs: Tensor) -> list[_Counted]:
    """Counts the parts of a tower in one pass."""
    parts = list(_parts(tower))
    counter = FlopCounterMode(display=False)
    flops: dict[nn.Module, int] = {}
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def before(module: nn.Module, _inputs: object) -> None:
        assert module not in flops
        flops[module] = -counter.get_total_flops()

    def after(module: nn.Module, _inputs: object, output: Tensor) -> None:
        flops[module] += counter.get_total_flops()
        shapes[module] = tuple(output.shape[1:])

    hooks = [
        hook
        for part in parts
        for module in part.modules
        for hook in (module.register_forward_pre_hook(before), module.register_forward_hook(after))
    ]
    with counter, torch.no_grad():
        tower(*inputs)
    for hook in hooks:
        hook.remove()
    rows = []
    for part in parts:
        loose = sum(parameter.numel() for parameter in part.loose if parameter is not None)
        macs = sum(flops[module] for module in part.modules) // 2
        cost = Cost(parameters=_num_parameters(part.modules) + loose, macs=macs)
        rows.append(_Counted(name=part.name, shape=shapes[part.modules[-1]], cost=cost))
    total = _total([row.cost for row in rows])
    assert total == Cost(parameters=_num_parameters([tower]), macs=counter.get_total_flops() // 2)
    return rows


def _parts(tower: nn.Module) -> Iterator[_Part]:
    if isinstance(tower, FastViT):
        yield from _fastvit_parts(tower)
    elif isinstance(tower, ViT):
        yield _Part(name="stem", modules=_called(tower.stem))
        yield _Part(name="positions", modules=[tower.pre_norm], loose=[tower.class_token, tower.position])
        yield from _block_parts(tower.blocks)
        yield _Part(name="head", modules=[tower.norm, tower.head])
    elif isinstance(tower, PooledImage):
        yield from (part for part in _parts(tower.tower) if part.name != "head")
        yield _Part(name="pool", modules=[tower.pool, tower.norm, tower.head])
    elif isinstance(tower, CaptionText):
        yield _Part(name="embedding", modules=[tower.token], loose=[tower.position, tower.class_token])
        yield from _block_parts(tower.blocks)
        yield _Part(name="head", modules=[tower.norm, tower.head])
    elif isinstance(tower, CaptionDecoder):
        pairs = [block for pair in zip(tower.blocks, tower.looking, strict=True) for block in pair]
        yield _Part(name=f"blocks 1-{len(tower.blocks)}, each with one that looks", modules=pairs)
        yield _Part(name="head", modules=[tower.norm, tower.head])
    else:
        assert isinstance(tower, TextTransformer | HybridText), type(tower)
        yield _Part(name="embedding", modules=[tower.token], loose=[tower.position])
        yield from _block_parts(tower.blocks)
        yield _Part(name="head", modules=[tower.norm, tower.head])


def _fastvit_parts(tower: FastViT) -> Iterator[_Part]:
    yield _Part(name="stem", modules=_called(tower.stem))
    for number, stage in enumerate(tower.stages, 1):
        assert isinstance(stage, Stage)
        if stage.downsample is not None:
            yield _Part(name=f"downsample {number}", modules=_called(stage.downsample))
        kind = "" if stage.position is None else ", attention"
        yield _Part(name=f"stage {number}{kind}", modules=[*_called(stage.position), *_called(stage.blocks)])
    yield _Part(name="expand", modules=[tower.expand])
    yield _Part(name="head", modules=[tower.head])


def _block_parts(blocks: nn.Sequential | nn.ModuleList) -> Iterator[_Part]:
    """Neighbours of one kind share a row."""
    first = 1
    for kind, group in itertools.groupby(blocks, key=type):
        modules = list(group)
        last = first + len(modules) - 1
        name = f"blocks {first}-{last}" if last > first else f"block {first}"
        yield _Part(name=f"{name}, RepMixer" if kind is MixerBlock else name, modules=modules)
        first = last + 1


def _called(module: nn.Module | None) -> list[nn.Module]:
    """The modules that are called when a tower runs: a Sequential's own, whoever loops over them."""
    if module is None:
        return []
    return list(module) if isinstance(module, nn.Sequential) else [module]


def _num_parameters(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _total(costs: Sequence[Cost]) -> Cost:
    return Cost(parameters=sum(cost.parameters for cost in costs), macs=sum(cost.macs for cost in costs))
