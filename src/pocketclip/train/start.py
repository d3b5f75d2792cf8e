"""The model that a run begins with: random or loaded, of another size where asked for, parts of it frozen."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from pocketclip.checkpoint import CheckpointConfig, Loaded, create, load
from pocketclip.checkpoint.loaded import as_loaded
from pocketclip.checkpoint.store import find
from pocketclip.data.tokenize import Tokenizer
from pocketclip.train.config import Freeze, TrainConfig


def starting_model(config: TrainConfig) -> Loaded:
    """The model of step 0, on the CPU, in evaluation mode.

    Raises:
        ValueError: no such variant; `config.start` holds another one, or cannot be used; sizes no tower can have.
        FileNotFoundError: there is nothing at `config.start`.
    """
    if config.start is None:
        assert config.variant is not None
        torch.manual_seed(config.seed)
        model = create(config.variant)
    elif find(config.start) is None:
        raise FileNotFoundError(
            f"start {config.start} does not exist: give a checkpoint, a folder with one or hf-hub:ORG/NAME (a "
            "variant's random weights are what a run without start begins with)"
        )
    else:
        model = load(config.start, variant=config.variant)
    return _of_many_sizes(_of_another_size(model, config), config)


def _of_another_size(model: Loaded, config: TrainConfig) -> Loaded:
    wanted = _resized(model.config, config)
    if wanted == model.config:
        return model
    resized = model.model.resized(image_px=config.stream.image_px, context_length=config.context_length)
    tokenizer = Tokenizer(wanted.tokenizer, merges=model.tokenizer.merges)
    return as_loaded(resized, config=replace(wanted, model=resized.config), tokenizer=tokenizer)


def _of_many_sizes(model: Loaded, config: TrainConfig) -> Loaded:
    """The same model, whose image tower takes every side of `stream.sizes_px`: a FastViT does as it is."""
    tower = model.config.model.image
    if config.stream.sizes_px and tower.kind == "vit":
        wrong = [side for side in config.stream.sizes_px if side % tower.patch_px]
        if wrong:
            raise ValueError(
                f"recipe {config.name}: stream.sizes_px has {wrong[0]}, and the image tower cuts pictures into patches "
                f"of {tower.patch_px} pixels: take multiples of that"
            )
        setattr(model.model.image, "any_size", True)  # noqa: B010 - only a ViT has it
    return model


def freeze(model: nn.Module, what: Freeze) -> tuple[nn.Module, ...]:
    """Takes the gradients of what is frozen away, in place.

    Args:
        model: a `Clip`.
        what: to freeze.

    Returns:
        The towers that have to stay in evaluation mode, so that their running statistics keep too.
    """
    image, text = model.get_submodule("image"), model.get_submodule("text")
    towers = {"nothing": (), "image": (image,), "text": (text,), "all-but-heads": (image, text)}[what]
    for tower in towers:
        tower.requires_grad_(False)
    if what == "all-but-heads":
        for tower in towers:
            tower.get_submodule("head").requires_grad_(True)
    return towers


def _resized(model: CheckpointConfig, config: TrainConfig) -> CheckpointConfig:
    """The configuration with the sizes of pictures and texts that the run asks for; its towers are still the old."""
    size = config.stream.image_px or model.preprocess.size
    length = config.context_length or model.tokenizer.context_length
    return replace(
        model,
        preprocess=replace(model.preprocess, size=size),
        tokenizer=replace(model.tokenizer, context_length=length),
    )
