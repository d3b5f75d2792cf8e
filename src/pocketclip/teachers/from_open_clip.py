"""Every model of open_clip as a teacher."""

# Shape suffixes: B pictures or captions.

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pocketclip.checkpoint import load
from pocketclip.checkpoint.hub import PREFIX, fetch, model_files
from pocketclip.teachers.from_checkpoint import loaded_towers
from pocketclip.teachers.open_clip_models import (
    CONFIG_FILE,
    OpenClipModel,
    load_open_clip,
    load_open_clip_folder,
)
from pocketclip.teachers.teacher import TeacherSpec
from pocketclip.teachers.towers import Towers


def open_clip_towers(spec: TeacherSpec, reference: str) -> Towers:
    """The towers of `MODEL/PRETRAINED`, `MODEL/random` or a folder; raises what `load_open_clip` raises."""
    return _towers(load_open_clip(reference, what=f"teacher {spec.name}"))


def hub_towers(spec: TeacherSpec, reference: str) -> Towers:
    """The towers of `ORG/NAME[@REVISION]` on the hub: a checkpoint of pocketclip, or open_clip's layout.

    Raises:
        ImportError: open_clip is not installed.
        FileNotFoundError: no such repository, or nobody to ask for it.
        ConnectionError: the hub cannot be reached.
        ValueError: the repository holds no model that can be used.
    """
    folder = fetch(PREFIX + reference)
    files = model_files((path.name for path in folder.iterdir()), where=PREFIX + reference)
    if CONFIG_FILE not in files:
        return loaded_towers(load(folder))
    name = PREFIX + reference.partition("@")[0]
    return _towers(load_open_clip_folder(folder, what=f"teacher {spec.name}", tokenizer_of=name))


def _towers(found: OpenClipModel) -> Towers:
    from pocketclip.teachers.open_clip_attention import merge_attention  # it needs open_clip

    model = found.model
    merge_attention(model)

    def tokenize(texts: Sequence[str]) -> tuple[Tensor, ...]:
        return (found.tokenize(texts),)

    return Towers(
        image=_Encoder(model, "encode_image"),
        text=_Encoder(model, "encode_text"),
        tokenize=tokenize,
        preprocess=found.preprocess,
        logit_scale=float(model.logit_scale.exp().item()),
        digest=found.digest,
        facts=found.facts,
    )


class _Encoder(nn.Module):
    """One of a model's methods as a network, which can be compiled."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, inputs: Tensor) -> Tensor:
        return getattr(self.model, self.method)(inputs)
