"""CLIP, SigLIP and SigLIP 2 of transformers as teachers."""

# Shape suffixes: B pictures or captions, N patches.

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from PIL import Image
from torch import Tensor, nn

from pocketclip.data.preprocess import Preprocess
from pocketclip.data.sample import JsonValue
from pocketclip.teachers.teacher import TeacherSpec
from pocketclip.teachers.towers import Towers, weights_digest
from pocketclip.teachers.vocabulary import vocabulary_digest

if TYPE_CHECKING:
    from types import ModuleType

KINDS = ("clip", "siglip", "siglip2")
_PROBLEMS = ("missing_keys", "mismatched_keys", "error_msgs")
_BROKEN = (
    *(ValueError, RuntimeError, AttributeError, TypeError, KeyError),
    *(pickle.UnpicklingError, safetensors.SafetensorError),
)
# Of a configuration, where it came from rather than what it is.
_PLACES = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")


def transformers_towers(spec: TeacherSpec, reference: str) -> Towers:
    """The towers of `ORG/NAME[@REVISION]` on the hub, or of a folder that transformers wrote.

    SigLIP's logit bias is recorded and not used: distillation compares softmax distributions over a batch, to which
    a constant adds nothing.

    Raises:
        ImportError: transformers is not installed.
        OSError: the model cannot be found, downloaded or read.
        ValueError: the model is of another kind, or cannot be used.
    """
    what = f"teacher {spec.name}"
    transformers = _library(what)
    folder = Path(reference)
    name, _, revision = (reference, "", "") if folder.is_dir() else reference.partition("@")
    where = {"revision": revision} if revision else {}
    with _readable(reference, what=what):
        kind = transformers.AutoConfig.from_pretrained(name, **where).model_type
        if kind not in KINDS:
            raise ValueError(
                f"it is a {kind}, and teachers are {', '.join(KINDS)}; see python:MODULE:FUNCTION"
            )
        model, found = transformers.AutoModel.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **where
        )
        wrong = {problem: sorted(map(str, found[problem])) for problem in _PROBLEMS if found.get(problem)}
        if wrong:  # transformers would go on with random weights
            raise ValueError(f"its weights do not fit its configuration: {wrong}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **where)
        processor = transformers.AutoImageProcessor.from_pretrained(name, **where)
        preprocess = _preprocess(processor, model.config)
    return _towers(model.eval().requires_grad_(False), tokenizer, preprocess)


def _towers(model: Any, tokenizer: Any, preprocess: Preprocess) -> Towers:  # noqa: ANN401
    context_length = model.config.text_config.max_position_embeddings

    def tokenize(texts: Sequence[str]) -> tuple[Tensor, ...]:
        made = tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=context_length, return_tensors="pt"
        )
        # A tokenizer says whether its model was trained with padding masked; SigLIP was not.
        masked = "attention_mask" in tokenizer.model_input_names
        return (made["input_ids"], made["attention_mask"]) if masked else (made["input_ids"],)

    facts: dict[str, JsonValue] = {
        "library": "transformers",
        "context_length": context_length,
        "config": _without_places(json.loads(model.config.to_json_string(use_diff=True))),
    }
    if getattr(model, "logit_bias", None) is not None:
        facts["logit_bias"] = float(model.logit_bias.item())
    depends_on = facts | {"preprocess": preprocess.to_json(), "vocabulary": vocabulary_digest(tokenizer)}
    return Towers(
        image=_PatchedImageTower(model) if model.config.model_type == "siglip2" else _ImageTower(model),
        text=_TextTower(model),
        tokenize=tokenize,
        preprocess=preprocess,
        logit_scale=float(model.logit_scale.exp().item()),
        digest=weights_digest(model.state_dict(), depends_on),
        facts=facts,
    )


def _without_places(config: JsonValue) -> JsonValue:
    if isinstance(config, dict):
        return {key: _without_places(value) for key, value in config.items() if key not in _PLACES}
    return config


def _preprocess(processor: Any, config: Any) -> Preprocess:  # noqa: ANN401
    """Size, mean, standard deviation and filter, read from the model's own processor as data."""
    if config.model_type == "siglip2":  # any number of patches up to this; views are square
        size = math.isqrt(processor.max_num_patches) * config.vision_config.patch_size
    else:
        size = config.vision_config.image_size
    (red, green, blue), (red_std, green_std, blue_std) = processor.image_mean, processor.image_std
    bilinear = processor.resample == Image.Resampling.BILINEAR
    return Preprocess(
        size=size,
        mean=(red, green, blue),
        std=(red_std, green_std, blue_std),
        interpolation="bilinear" if bilinear else "bicubic",
    )


class _ImageTower(nn.Module):
    def __init__(self, model: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values=image).pooler_output


class _PatchedImageTower(nn.Module):
    """SigLIP 2 takes a picture's patches as rows, with their number in both directions."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        side = self.model.config.vision_config.patch_size
        batch, channels, height, width = image.shape
        rows, columns = height // side, width // side
        split = image.reshape(batch, channels, rows, side, columns, side)
        patches_BNC = split.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, side * side * channels)
        shapes = torch.tensor([[rows, columns]], device=image.device).expand(batch, 2)
        mask_BN = torch.ones(batch, rows * columns, dtype=torch.int32, device=image.device)
        found = self.model.get_image_features(
            pixel_values=patches_BNC, pixel_attention_mask=mask_BN, spatial_shapes=shapes
        )
        return found.pooler_output


class _TextTower(nn.Module):
    def __init__(self, model: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output


@contextmanager
def _readable(source: str, *, what: str) -> Generator[None]:
    """What transformers raises about a model, as one sentence."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{what}: transformers:{source} cannot be found or downloaded ({_first_line(error)}): give ORG/NAME, or a "
            "folder that transformers wrote"
        ) from error
    except _BROKEN as error:
        raise ValueError(f"{what}: transformers:{source} cannot be used ({_first_line(error)})") from error


def _library(what: str) -> ModuleType:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{what} needs {error.name}, which is not installed: pip install 'pocketclip[teachers]'"
        ) from error
    return transformers


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
