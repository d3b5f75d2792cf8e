"""A model card: what a checkpoint says of itself, for the page of its repository."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from pocketclip.checkpoint.loaded import Loaded

# Who edits the page deletes this line, and keeps the page.
MARK = "<!-- Written by pocketclip. The next upload writes it anew, unless this line is deleted. -->"

_RECORDED = (
    ("converted from", "converted.file"),
    ("in the layout", "converted.layout"),
    ("recipe", "config.name"),
    ("variant", "config.variant"),
    ("steps", "config.loop.num_steps"),
    ("pictures a step", "config.stream.batch_size"),
    ("learning rate, highest", "config.optim.lr_peak"),
    ("weight decay", "config.optim.weight_decay"),
    ("seed", "config.seed"),
    ("weight of the captions' loss", "config.objective.caption_weight"),
    ("weight of distillation", "config.objective.distill_weight"),
    ("weight of synthetic captions", "config.objective.synthetic_weight"),
    ("SHA-256 of the data's index", "data_sha256"),
)


def model_card(loaded: Loaded, repo_id: str, *, license: str, with_open_clip: bool) -> str:  # noqa: A002
    """The README.md of a repository: front matter, what the model is, how to load it, how it was trained.

    Args:
        loaded: the model, un-folded.
        repo_id: "ORG/NAME".
        license: an identifier of the hub (`apache-2.0`, `other`, `unknown`).
        with_open_clip: whether the repository holds open_clip's layout too.

    Raises:
        ValueError: `license` is no identifier.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise ValueError(
            f"license is {license!r}: it must be one of the hub's identifiers, such as apache-2.0, other or unknown"
        )
    parts = [
        _front_matter(license=license, with_open_clip=with_open_clip),
        MARK,
        f"# {repo_id.partition('/')[2]}",
        _what_it_is(loaded),
        "## With pocketclip",
        _python(_WITH_POCKETCLIP, repo_id=repo_id),
        *(("## With open_clip", _python(_WITH_OPEN_CLIP, repo_id=repo_id)) if with_open_clip else ()),
        "## What goes in",
        _what_goes_in(loaded),
        "## How it was trained",
        _how_it_was_trained(loaded.config.run),
    ]
    return "\n\n".join(parts) + "\n"


_WITH_POCKETCLIP = """
import pocketclip
from PIL import Image

loaded = pocketclip.load("hf-hub:{repo_id}")
image = loaded.preprocess(Image.open("photo.jpg"))[None]
image_embed = loaded.model.encode_image(image, normalize=True)
text_embed = loaded.model.encode_text(loaded.tokenize(["a dog", "a cat"]), normalize=True)
probabilities = (loaded.model.logit_scale.exp() * image_embed @ text_embed.T).softmax(dim=-1)
"""
_WITH_OPEN_CLIP = """
import open_clip
from PIL import Image

model, _, preprocess = open_clip.create_model_and_transforms("hf-hub:{repo_id}")
tokenize = open_clip.get_tokenizer("hf-hub:{repo_id}")
model.eval()
image_embed = model.encode_image(preprocess(Image.open("photo.jpg"))[None], normalize=True)
text_embed = model.encode_text(tokenize(["a dog", "a cat"]), normalize=True)
"""


def _python(code: str, *, repo_id: str) -> str:
    return f"```python\n{code.strip().format(repo_id=repo_id)}\n```"


def _front_matter(*, license: str, with_open_clip: bool) -> str:  # noqa: A002
    lines = [
        "---",
        f"library_name: {'open_clip' if with_open_clip else 'pocketclip'}",
        f"license: {license}",
        "pipeline_tag: zero-shot-image-classification",
        "tags:",
        *(f"- {tag}" for tag in ("clip", "mobileclip", "pocketclip")),
        "---",
    ]
    return "\n".join(lines)


def _what_it_is(loaded: Loaded) -> str:
    model, config = loaded.model, loaded.config.model
    return (
        f"A small image-text model of the CLIP kind: {_millions(model.image)} million parameters look at pictures "
        f"(`{config.image.kind}`), {_millions(model.text)} million read texts (`{config.text.kind}`), and both answer "
        f"with an embedding of {config.embed_dim} numbers; what belongs together lies close together."
    )


def _millions(tower: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in tower.parameters()) / 1e6:.1f}"


def _what_goes_in(loaded: Loaded) -> str:
    preprocess, tokenizer = loaded.config.preprocess, loaded.config.tokenizer
    size = preprocess.size
    return "\n".join(
        (
            f"- Pictures: RGB, shorter side resized to {size} pixels ({preprocess.interpolation}, antialiased), the "
            f"centre {size} x {size} cut out, scaled to [0, 1], then mean {list(preprocess.mean)} subtracted and "
            f"divided by {list(preprocess.std)}.",
            f"- Texts: CLIP's byte-pair encoding with {tokenizer.vocab_size:,} ids, {tokenizer.context_length} a text; "
            "longer ones are cut.",
        )
    )


def _how_it_was_trained(run: Mapping[str, Any]) -> str:
    lines = [f"- {label}: {value}" for label, path in _RECORDED if (value := _at(run, path)) is not None]
    return "\n".join(lines) if lines else "The checkpoint does not say."


def _at(values: object, path: str) -> str | int | float | None:
    """The plain value at a dotted path, or None where there is none."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, Mapping) else None
    return values if isinstance(values, str | int | float) else None
