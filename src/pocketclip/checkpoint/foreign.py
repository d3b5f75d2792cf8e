"""Checkpoints of open_clip, timm and Apple: which model a file holds, its tensors under our names, and the way back."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pocketclip.checkpoint.foreign_keys import (
    Layout,
    MisfitError,
    is_counter,
    name_in,
    our_tensors,
    their_tensors,
    to_ours,
    to_theirs,
    unnamed,
)
from pocketclip.checkpoint.layout import write_safetensors
from pocketclip.checkpoint.loaded import (
    CheckpointConfig,
    Loaded,
    same_architecture,
    tokenizer_of,
    variant_config,
)
from pocketclip.checkpoint.misfit import listed, misfits
from pocketclip.checkpoint.open_clip_config import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    read_open_clip,
    to_open_clip,
)
from pocketclip.checkpoint.weights import read_weights
from pocketclip.data.publish import publish_file, publish_folder
from pocketclip.models.captioner import CaptionerConfig
from pocketclip.models.clip import ClipConfig
from pocketclip.models.variants import CAPTIONERS, VARIANTS
from pocketclip.models.variants import variant as row_of
from pocketclip.models.vit import ViTConfig

FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_FOLDED = re.compile(r"reparam_conv|lkb_reparam|^image\.stem\.0\.(conv\.)?bias$")


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A model that another library wrote, understood.

    Attributes:
        state: all tensors of the un-folded model under our names, float32 and on the CPU.
        config: its towers, preprocessing and tokenizer.
        layout: of the file.
        variant: the variant whose towers these are; of several equal ones the file's own by its name, else the
            newest; None where only a hub folder's configuration knows them.
        num_tensors: in the file.
        notes: what was chosen or changed on the way, a sentence each.
    """

    state: Mapping[str, Tensor]
    config: CheckpointConfig
    layout: Layout
    variant: str | None
    num_tensors: int
    notes: tuple[str, ...]


def read_foreign(path: Path, *, variant: str | None = None, moving_average: bool = True) -> Foreign:
    """Reads a file of weights that open_clip, timm's trainer, Apple or a training loop wrote.

    Which model it is follows from names and shapes; or from an open_clip_config.json beside it, if the file has that
    library's name (`open_clip_*`) or is the only one of weights there. Tables of positions may have other lengths than
    the variant's: the configuration follows.

    Args:
        path: a .safetensors file, or what torch.save wrote.
        variant: what it has to be, in either spelling; None to find out.
        moving_average: of a training checkpoint that holds both, the moving average rather than the last weights.

    Raises:
        ValueError: no weights, not this variant, no variant at all, tensors missing, surplus, misshaped or not
            finite, a folded model, one tower alone; the sentence names the file, the tensors and the remedy.
    """
    name = None if variant is None else row_of(variant).name
    weights = read_weights(path, moving_average=moving_average)
    tensors = _usual_names(weights.tensors)
    layout = _layout_of(tensors, path=path)
    config_file = path.with_name(CONFIG_FILE)
    if config_file.is_file() and _belongs_to_folder(path):
        config, notes = read_open_clip(config_file)
        rows = {**VARIANTS, **CAPTIONERS}
        fitting = [row for row in rows if same_architecture(variant_config(row).model, config.model)]
        if name is not None and name not in fitting:
            raise ValueError(f"{config_file} describes no {name} but {_one_of(fitting)}: name it, or nothing")
        found = name or (_preferred(fitting, path=path) if fitting else None)
        config = _adopted(config, tensors, layout=layout)
    else:
        found, notes = _detected(tensors, layout=layout, name=name, path=path)
        config = _adopted(variant_config(found), tensors, layout=layout)
    if isinstance(config.model.image, ViTConfig) and config.preprocess.size != config.model.image.image_px:
        notes = (*notes, f"pictures are of {config.model.image.image_px} pixels, as the positions say")
        config = replace(config, preprocess=replace(config.preprocess, size=config.model.image.image_px))
    try:
        state = to_ours(tensors, config=config.model, layout=layout)
    except MisfitError as error:
        raise ValueError(f"{path} is not what {config_file.name} says: {error}") from None
    _require_finite(state, path=path)
    return Foreign(
        state=state,
        config=config,
        layout=layout,
        variant=found,
        num_tensors=len(tensors),
        notes=(*weights.notes, *notes, *_notes_on_types(tensors)),
    )


def write_foreign(loaded: Loaded, out: Path, *, layout: Layout) -> None:
    """Writes a model as another library has it, whole or not at all. The same model gives the same bytes.

    Args:
        loaded: un-folded.
        out: `open_clip`: a folder, for `open_clip.create_model("local-dir:OUT")` and for the hub, or a file, for
            `open_clip.create_model(NAME, pretrained=OUT)`. `timm`: a file of the image tower, for
            `timm.create_model(NAME, num_classes=EMBED_DIM, checkpoint_path=OUT)`. `apple-v1`: a file for Apple's
            first release. Files end in .safetensors, .pt, .pth or .bin.
        layout: one of these.

    Raises:
        ValueError: the model is folded, or the layout cannot hold it; nothing was written.
        PublishError: disk full, or the place cannot be written.
    """
    assert layout != "pocketclip"
    state = loaded.model.state_dict()
    wrong = misfits(state, expected=our_tensors(loaded.config.model))
    if wrong:
        raise ValueError(
            f"{out} was not written: the model is folded, or not the config's own: {listed(wrong)}"
        )
    try:
        values = to_open_clip(loaded.config, tokenizer=loaded.tokenizer) if layout == "open_clip" else {}
        tensors = to_theirs(state, config=loaded.config.model, layout=layout)
    except ValueError as error:
        raise ValueError(
            f"{out} was not written: {error}; write it for pocketclip or in another layout"
        ) from None
    if out.suffix in FILE_SUFFIXES:
        _write_tensors(out, tensors)
    elif layout == "open_clip":
        with publish_folder(out, marker=CONFIG_FILE) as folder:
            (folder / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            _write_tensors(folder / WEIGHTS_FILE, tensors)
    else:
        raise ValueError(f"{out} was not written: the {layout} layout is one file, OUT.pt or OUT.safetensors")


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with publish_file(path) as file:
        if path.suffix == ".safetensors":
            write_safetensors(file, tensors, metadata={"format": "pt"})
            return
        # A path's name would become part of the bytes, and so would strides, and all memory that a view is of.
        buffer = io.BytesIO()
        torch.save({name: _plain(value) for name, value in tensors.items()}, buffer)
        file.write(buffer.getbuffer())


def _plain(value: Tensor) -> Tensor:
    flat = value.reshape(-1)
    return (flat if flat.untyped_storage().nbytes() == flat.nbytes else flat.clone()).view(value.shape)


def _belongs_to_folder(path: Path) -> bool:
    """Whether what the folder says of a model is said of this file."""
    others = [other for other in path.absolute().parent.iterdir() if other.suffix in FILE_SUFFIXES]
    return path.name.startswith("open_clip_") or len(others) == 1


def _usual_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower of open_clip's older class under `text.`, and the logit scale as a scalar."""
    has_bare_text = "text_projection" in tensors and any(name.startswith("visual.") for name in tensors)
    own = ("visual.", "logit_")
    named = {
        f"text.{name}" if has_bare_text and not name.startswith(own) else name: value
        for name, value in tensors.items()
    }
    scale = named.get("logit_scale")
    if scale is not None and scale.shape == (1,):
        named["logit_scale"] = scale.reshape(())
    return named


def _layout_of(names: Iterable[str], *, path: Path) -> Layout:
    names = list(names)
    folded = [name for name in names if _FOLDED.search(name)]
    if folded:
        raise ValueError(
            f"{path} is folded for inference ({len(folded)} tensors such as {folded[0]}) and its training branches are "
            "gone: give the checkpoint from before folding (reparameterization); pocketclip folds it itself"
        )

    def has(*starts: str) -> bool:
        return all(any(name.startswith(start) for name in names) for start in starts)

    if has("visual.trunk.", "text.") or has("visual.", "text.", "text_decoder."):
        return "open_clip"
    if has("image_encoder.model.", "text_encoder."):
        return "apple-v1"
    if has("image.", "text."):
        return "pocketclip"
    towers = {
        "an image": ("stages.", "blocks.", "network.", "image_encoder."),
        "a text": ("token_embedding", "text_encoder."),
    }
    for tower, starts in towers.items():
        if any(has(start) for start in starts):
            raise ValueError(
                f"{path} holds {tower} tower alone, and a model has two: give a checkpoint with both"
            )
    raise ValueError(
        f"{path} is not a pocketclip checkpoint, and holds no model of this family (its tensors are "
        f"{', '.join(names[:3])} and so on): give weights of a MobileCLIP or MobileCLIP2, of open_clip's, timm's or "
        "Apple's layout"
    )


def _detected(
    tensors: Mapping[str, Tensor], *, layout: Layout, name: str | None, path: Path
) -> tuple[str, tuple[str, ...]]:
    """The variant that the tensors are of, and notes on the choice."""
    writes = any(name.startswith(("text_decoder.", "decoder.")) for name in tensors)
    rows = CAPTIONERS if writes else VARIANTS
    problems = {row: _problems(row, tensors, layout=layout) for row in rows}
    fitting = [row for row, wrong in problems.items() if not wrong]
    if name is not None:
        if name not in fitting:
            wrong = listed(problems[name])
            hint = f"; it fits {_one_of(fitting)}, so name that one" if fitting else ""
            raise ValueError(f"{path} holds no {name}: {wrong}{hint}")
        return name, ()
    if not fitting:
        least = min(map(len, problems.values()))
        nearest = _preferred([row for row, wrong in problems.items() if len(wrong) == least], path=path)
        if len(problems[nearest]) > len(tensors) / 2:
            raise ValueError(
                f"{path} fits no variant, {nearest} least badly: {listed(problems[nearest])}; give weights of "
                f"one of {', '.join(rows)}"
            )
        raise ValueError(
            f"{path} is not a whole {nearest}: {listed(problems[nearest])}; copy or download it again"
        )
    configs = {row: _adopted(variant_config(row), tensors, layout=layout) for row in fitting}
    fitting = [
        row for row in fitting if configs[row] == variant_config(row)
    ] or fitting  # of this very length
    found = _preferred(fitting, path=path)
    named = _named(path)
    if named not in fitting and any(configs[row] != configs[found] for row in fitting):
        raise ValueError(
            f"{path} may be {_one_of(fitting)}, which differ in more than weights: say which, with --variant NAME or "
            "variant=NAME"
        )
    notes = []
    if named is not None and named not in fitting:
        notes.append(f"the file's name says {named}, its tensors are those of {found}")
    elif named is None and len(fitting) > 1:
        others = ", ".join(row for row in fitting if row != found)
        notes.append(f"taken for {found}; {others} would be the same but for the weights")
    return found, tuple(notes)


def _problems(row: str, tensors: Mapping[str, Tensor], *, layout: Layout) -> list[str]:
    """What keeps the tensors from being those of a variant in the layout."""
    config = _adopted(variant_config(row), tensors, layout=layout).model
    expected = their_tensors(config, layout)
    expected = {name: value for name, value in expected.items() if name in tensors or not is_counter(name)}
    nameless = [f"missing {name}, which the {layout} layout cannot hold" for name in unnamed(config, layout)]
    return nameless + misfits(tensors, expected=expected, any_float=True)


def _adopted(config: CheckpointConfig, tensors: Mapping[str, Tensor], *, layout: Layout) -> CheckpointConfig:
    """The configuration with the lengths of the tables of positions that the file has."""
    model = config.model
    writes = isinstance(model, CaptionerConfig)
    places = _num_places("text.position", tensors, model=model, layout=layout)
    if places is not None and places >= 2 + writes:  # a captioner's class token has a place of its own
        model = replace(model, text=replace(model.text, context_length=places - writes))
    image = model.image
    if isinstance(image, ViTConfig):
        position = "image.tower.position" if writes else "image.position"
        places = _num_places(position, tensors, model=model, layout=layout)
        if places is not None:
            side = math.isqrt(places)  # one more for a class token is never a square
            if side:
                model = replace(model, image=replace(image, image_px=side * image.patch_px))
    return replace(config, model=model, tokenizer=tokenizer_of(model))


def _num_places(name: str, tensors: Mapping[str, Tensor], *, model: ClipConfig, layout: Layout) -> int | None:
    theirs = name_in(layout, name, config=model)
    value = None if theirs is None else tensors.get(theirs)
    return None if value is None or value.ndim < 2 else value.shape[-2]


def _preferred(fitting: list[str], *, path: Path) -> str:
    """Of equal variants the one that the file is named after, else the newest generation's."""
    named = _named(path)
    if named in fitting:
        return named
    return next((row for row in fitting if row.startswith("mobileclip2")), fitting[0])


def _named(path: Path) -> str | None:
    """The variant that a file, or the hub's folder of it, is named after."""
    places = [path.name, *(parent.name for parent in path.absolute().parents[:3])]
    for place in places:
        text = re.sub(r"[^a-z0-9]+", "_", place.lower()).replace("_b_lt", "_blt")
        names = [
            row for row in (*VARIANTS, *CAPTIONERS) if re.search(rf"(?<![a-z0-9]){row}(?![a-z0-9])", text)
        ]
        if names:
            return max(names, key=len)
    return None


def _one_of(names: list[str]) -> str:
    return " or ".join(names) if names else "none of the variants"


def _require_finite(state: Mapping[str, Tensor], *, path: Path) -> None:
    broken = [
        name
        for name, value in state.items()
        if value.is_floating_point() and value.numel() and not torch.stack(value.aminmax()).isfinite().all()
    ]
    if broken:
        raise ValueError(
            f"{path} has numbers that are not finite in {len(broken)} tensors ({', '.join(broken[:8])}): the run that "
            "wrote it diverged or overflowed; take an earlier checkpoint, or save in float32"
        )


def _notes_on_types(tensors: Mapping[str, Tensor]) -> list[str]:
    types = {value.dtype for value in tensors.values() if value.is_floating_point()} - {torch.float32}
    return [f"{str(dtype).removeprefix('torch.')} became float32" for dtype in sorted(types, key=str)]
