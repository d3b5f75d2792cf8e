"""One checkpoint from another: ours from anybody's, and anybody's from ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import nn

from pocketclip.checkpoint.foreign import FILE_SUFFIXES, read_foreign, write_foreign
from pocketclip.checkpoint.foreign_keys import LAYOUTS, Layout
from pocketclip.checkpoint.loaded import Loaded, same_architecture, variant_config
from pocketclip.checkpoint.open_clip_config import timm_name
from pocketclip.checkpoint.store import find, from_foreign, is_own, load_own, require_variant, save
from pocketclip.models.captioner import Captioner
from pocketclip.models.variants import CAPTIONERS, VARIANTS
from pocketclip.models.variants import variant as row_of

# What open_clip calls a model of the same towers, and Apple's first release.
_OPEN_CLIP_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "mobileclip_s1": "MobileCLIP-S1",
        "mobileclip2_s0": "MobileCLIP2-S0",
        "mobileclip2_s2": "MobileCLIP2-S2",
        "mobileclip2_b": "MobileCLIP2-B",
        "mobileclip2_s3": "MobileCLIP2-S3",
        "mobileclip2_s4": "MobileCLIP2-S4",
        "mobileclip2_l_14": "MobileCLIP2-L-14",
        "coca_vit_b_32": "coca_ViT-B-32",
        "coca_vit_l_14": "coca_ViT-L-14",
    }
)
_APPLE_NAMES = ("mobileclip_s0", "mobileclip_s1", "mobileclip_s2", "mobileclip_b")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was converted.

    Attributes:
        source: as it was given.
        file: that the weights were in.
        layout: of that file.
        variant: whose towers these are; None where no variant has them.
        num_tensors: in that file, or the model's.
        num_image_parameters: of the image tower, un-folded.
        num_text_parameters: of the text tower, un-folded.
        num_decoder_parameters: of a captioner's upper half; 0 for a model that does not write.
        notes: what was chosen or changed on the way, a sentence each.
        out: file or folder that was written.
        to: its layout.
        digest: of the model as pocketclip loads it.
        usage: a line of Python that loads what was written; None where the other library has no name for it.
    """

    source: str
    file: str
    layout: Layout
    variant: str | None
    num_tensors: int
    num_image_parameters: int
    num_text_parameters: int
    num_decoder_parameters: int
    notes: tuple[str, ...]
    out: str
    to: Layout
    digest: str
    usage: str | None


def convert(
    source: str | Path,
    out: Path,
    *,
    variant: str | None = None,
    to: Layout = "pocketclip",
    moving_average: bool = True,
) -> Conversion:
    """Reads a checkpoint of any layout and writes it in another. The same source gives the same bytes.

    Args:
        source: what `load` takes, but for the name of a variant.
        out: file or folder to write; it appears whole or not at all.
        variant: what the source has to hold, in either spelling; None for whatever it does.
        to: `pocketclip`, a file. `open_clip`, a folder for `open_clip.create_model("local-dir:OUT")` and the hub, or a
            file (.safetensors, .pt) for `create_model(NAME, pretrained=OUT)`. `timm`, a file of the image tower.
            `apple-v1`, a file for Apple's first release.
        moving_average: of a training checkpoint that holds both, the moving average rather than the last weights.

    Returns:
        What was understood and written.

    Raises:
        ValueError: the source is no checkpoint or another variant's, or the layout cannot hold the model.
        FileNotFoundError: nothing there.
        PublishError: disk full, or the place cannot be written.
    """
    if to not in LAYOUTS:
        raise ValueError(f"{to!r} is no layout: it is one of {', '.join(LAYOUTS)}")
    name = None if variant is None else row_of(variant).name
    path = find(source)
    if path is None:
        raise FileNotFoundError(
            f"{source} does not exist: give a checkpoint, a folder with one, or hf-hub:ORG/NAME"
        )
    out = Path(out)
    if out.exists() and (out.samefile(path) or out.samefile(path.parent)):
        raise ValueError(f"{out} is the source itself: choose another output")
    notes: tuple[str, ...] = ()
    layout: Layout = "pocketclip"
    if is_own(path):
        loaded = load_own(path)
        require_variant(loaded.config, name, what=str(source))
        num_tensors = len(loaded.model.state_dict())
        found = name or _variant_of(loaded)
    else:
        foreign = read_foreign(path, variant=name, moving_average=moving_average)
        loaded = from_foreign(foreign, source=path.name)
        layout, found, notes, num_tensors = (
            foreign.layout,
            foreign.variant,
            foreign.notes,
            foreign.num_tensors,
        )
    usage = _usage(loaded, out, to=to)
    if to == "pocketclip":
        save(out, loaded.model, config=loaded.config, tokenizer=loaded.tokenizer)
    else:
        write_foreign(loaded, out, layout=to)
    writes = isinstance(loaded.model, Captioner)
    return Conversion(
        source=str(source),
        file=path.name,
        layout=layout,
        variant=found,
        num_tensors=num_tensors,
        num_image_parameters=_num_parameters(loaded.model.image),
        num_text_parameters=_num_parameters(loaded.model.text),
        num_decoder_parameters=_num_parameters(loaded.model.decoder) if writes else 0,
        notes=notes,
        out=str(out),
        to=to,
        digest=loaded.digest,
        usage=usage,
    )


def _num_parameters(part: nn.Module) -> int:
    return sum(value.numel() for value in part.parameters())


_ALL: Mapping[str, object] = MappingProxyType({**VARIANTS, **CAPTIONERS})


def _variant_of(loaded: Loaded, *, among: Mapping[str, object] = _ALL) -> str | None:
    """The newest variant that has the model's towers, of the same length where there is one."""
    model = loaded.config.model
    same = [row for row in among if same_architecture(variant_config(row).model, model)]
    same = [row for row in same if variant_config(row).model.text == model.text] or same
    return next((row for row in same if row.startswith("mobileclip2")), same[0] if same else None)


def _usage(loaded: Loaded, out: Path, *, to: Layout) -> str | None:
    """A line of Python that loads what is written."""
    model, preprocess = loaded.config.model, loaded.config.preprocess
    match to:
        case "pocketclip":
            return f'pocketclip.load("{out}")'
        case "timm":
            name = timm_name(model.image)
            called = f'timm.create_model("{name}", num_classes={model.embed_dim}, checkpoint_path="{out}")'
            return called if name else None
        case "apple-v1":
            apples = _variant_of(loaded, among=dict.fromkeys(_APPLE_NAMES))
            return apples and f'mobileclip.create_model_and_transforms("{apples}", pretrained="{out}")'
    if out.suffix not in FILE_SUFFIXES:
        return f'open_clip.create_model_and_transforms("local-dir:{out}")'
    row = _variant_of(loaded, among=_OPEN_CLIP_NAMES)
    if row is None:
        return None
    expected = variant_config(row)
    sized = "" if expected.preprocess.size == preprocess.size else f", force_image_size={preprocess.size}"
    context = model.text.context_length
    if isinstance(loaded.model, Captioner) and expected.model.text.context_length != context:
        return None  # open_clip would lengthen one half of the decoder alone
    longer = "" if expected.model.text.context_length == context else f", force_context_length={context}"
    return (
        f'open_clip.create_model_and_transforms("{_OPEN_CLIP_NAMES[row]}", pretrained="{out}", '
        f"image_mean={preprocess.mean}, image_std={preprocess.std}, "
        f'image_interpolation="{preprocess.interpolation}"{sized}{longer})'
    )
