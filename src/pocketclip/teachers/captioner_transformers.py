"""Image-to-text models of transformers as captioners: BLIP, Florence-2, Qwen-VL, and the others of their class.

Their own `generate` runs; only the draw is ours, so that a caption depends on its sample's key and its number, and on
no library's generator. A picture is taken at a time, all its captions together.
"""

# Shape suffixes: N captions of a picture, L tokens, V tokens of the vocabulary.

from __future__ import annotations

import json
import pickle
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from PIL import Image
from torch import Tensor

from pocketclip.checkpoint import choose, noise
from pocketclip.data.augment import seeded
from pocketclip.data.picture import to_rgb
from pocketclip.data.sample import JsonValue
from pocketclip.teachers.captioner import CaptionerSpec
from pocketclip.teachers.teacher import Precision
from pocketclip.teachers.towers import AUTOCAST, torch_device, weights_digest
from pocketclip.teachers.vocabulary import vocabulary_digest

if TYPE_CHECKING:
    from types import ModuleType

_BROKEN = (
    *(ValueError, RuntimeError, AttributeError, TypeError, KeyError),
    *(pickle.UnpicklingError, safetensors.SafetensorError),
)
_PROBLEMS = ("missing_keys", "mismatched_keys", "error_msgs")
_PLACES = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
# What is asked where a spec asks for nothing: Florence-2 knows tasks by name, a model that chats takes a sentence.
_TASKS = {"florence2": "<CAPTION>"}
_REQUEST = "Describe this image in one sentence."


def build_transformers(
    spec: CaptionerSpec, reference: str, *, device: str, precision: Precision
) -> TransformersCaptioner:
    """The model of `ORG/NAME[@REVISION]` on the hub, or of a folder that transformers wrote.

    Raises:
        ImportError: transformers is not installed.
        OSError: the model cannot be found, downloaded or read.
        ValueError: the model writes no text for pictures, or cannot be used.
    """
    what = f"captioner {spec.name}"
    transformers = _library(what)
    name, _, revision = (reference, "", "") if Path(reference).is_dir() else reference.partition("@")
    where = {"revision": revision} if revision else {}
    with _readable(reference, what=what):
        model, found = transformers.AutoModelForImageTextToText.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **where
        )
        wrong = {problem: sorted(map(str, found[problem])) for problem in _PROBLEMS if found.get(problem)}
        if wrong:  # transformers would go on with random weights
            raise ValueError(f"its weights do not fit its configuration: {wrong}")
        processor = transformers.AutoProcessor.from_pretrained(name, **where)
    return TransformersCaptioner(spec, model, processor, device=device, precision=precision)


class TransformersCaptioner:
    """An image-to-text model of transformers as a `Captioner`.

    Args:
        spec: which, and how it samples; a search has no groups here.
        model: with `generate`.
        processor: pictures and a request to the model's inputs.
        device: where it runs.
        precision: what it computes in.

    Raises:
        ValueError: the spec asks for groups of beams.
    """

    def __init__(
        self,
        spec: CaptionerSpec,
        model: Any,  # noqa: ANN401
        processor: Any,  # noqa: ANN401
        *,
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        what = f"captioner {spec.name}"
        if spec.beam_groups > 1:
            raise ValueError(f"{what}: transformers searches with one group of beams: give beam_groups 1")
        self.name = spec.name
        self._spec = spec
        self._device = torch_device(device, what=what)
        self._model = model.to(self._device).eval().requires_grad_(False)
        self._processor = processor
        self._precision = precision
        self._request = _request(spec, model, processor)
        self._chats = bool(getattr(processor, "chat_template", None))  # the request stands before the answer
        self._facts: dict[str, JsonValue] = {
            "library": "transformers",
            "config": _without_places(json.loads(model.config.to_json_string(use_diff=True))),
            "request": self._request,
        }
        depends_on = self._facts | {
            "processor": _without_places(json.loads(processor.image_processor.to_json_string())),
            "vocabulary": vocabulary_digest(processor.tokenizer),
        }
        self.digest = weights_digest(model.state_dict(), depends_on)

    def describe(self) -> dict[str, JsonValue]:
        """What it is, as JSON for a manifest."""
        return {
            **self._spec.to_json(),
            "digest": self.digest,
            "precision": self._precision,
            **self._facts,
        }

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image], keys: Sequence[str]) -> list[tuple[str, ...]]:
        """Up to `num_captions` captions of each picture, those left out that say nothing.

        Args:
            images: of any mode and size; the model's own processor prepares them.
            keys: of their samples, different ones; what is sampled depends on them.

        Raises:
            ValueError: the model gives logits that are not finite; the sentence names the sample.
        """
        assert len(images) == len(keys)
        return [self._caption(image, key) for image, key in zip(images, keys, strict=True)]

    def _caption(self, image: Image.Image, key: str) -> tuple[str, ...]:
        rgb = to_rgb(image, name=key)
        request = {} if self._request is None else {"text": self._request}
        inputs = self._processor(images=rgb, return_tensors="pt", **request).to(self._device)
        half = AUTOCAST.get(self._precision)
        with torch.autocast(self._device.type, dtype=half, enabled=half is not None), torch.random.fork_rng():
            tokens_NL = self._model.generate(**inputs, **self._settings(key))
        asked = inputs["input_ids"].shape[1] if self._chats else 0
        texts = self._processor.batch_decode(tokens_NL[:, asked:].cpu(), skip_special_tokens=True)
        return self._spec.finished([text.replace("�", "") for text in texts])

    def _settings(self, key: str) -> dict[str, Any]:
        spec = self._spec
        draws = spec.temperature > 0
        settings: dict[str, Any] = {
            "max_new_tokens": spec.max_length,
            "min_new_tokens": spec.min_length,
            "num_return_sequences": spec.num_captions,
            "num_beams": spec.beams,
            "length_penalty": spec.length_penalty if spec.beams > 1 else None,
            "repetition_penalty": spec.repetition_penalty,
            "no_repeat_ngram_size": spec.no_repeat_ngram,
            "do_sample": draws,
            "temperature": 1.0 if draws else None,
            "top_k": 0 if draws else None,
            "top_p": 1.0 if draws else None,
        }
        if draws:
            settings["logits_processor"] = [_Draw(spec, key)]
        return {name: value for name, value in settings.items() if value is not None}


class _Draw:
    """Draws a token for each caption and leaves it alone, so that the library has no choice.

    Args:
        spec: how.
        key: of the sample.
    """

    def __init__(self, spec: CaptionerSpec, key: str) -> None:
        self._spec = spec
        self._key = key
        self._place = 0
        seed = seeded(spec.seed, "caption", spec.name, key).getrandbits(64)
        self._noise_NL = noise([seed], count=spec.num_captions, length=spec.max_length)

    def __call__(self, tokens_NL: Tensor, scores_NV: Tensor) -> Tensor:
        if bool((scores_NV.isnan() | scores_NV.isposinf()).any()):
            raise ValueError(
                f"captioner {self._spec.name} gives logits that are not finite for sample {self._key}: its weights "
                "have diverged, or its precision is too coarse for them"
            )
        chosen_N = choose(
            scores_NV,
            self._noise_NL[:, self._place].to(scores_NV.device),
            temperature=self._spec.temperature,
            top_k=self._spec.top_k,
            top_p=self._spec.top_p,
        )
        self._place += 1
        return torch.full_like(scores_NV, -torch.inf).scatter_(1, chosen_N[:, None], 0.0)


def _request(spec: CaptionerSpec, model: Any, processor: Any) -> str | None:  # noqa: ANN401
    """What the model is asked beside the picture; None where it needs nothing."""
    kind = model.config.model_type
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": spec.request or _REQUEST}]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
    return spec.request or _TASKS.get(kind)


def _without_places(config: JsonValue) -> JsonValue:
    if isinstance(config, dict):
        return {key: _without_places(value) for key, value in config.items() if key not in _PLACES}
    return config


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
