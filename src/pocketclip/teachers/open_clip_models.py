"""Models of open_clip by name, folder or repository, with their tokenizer and preprocessing."""

from __future__ import annotations

import json
import logging
import pickle
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from torch import Tensor

from pocketclip.data.preprocess import Preprocess
from pocketclip.data.sample import JsonValue
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.teachers.towers import weights_digest
from pocketclip.teachers.vocabulary import vocabulary_digest

if TYPE_CHECKING:
    from types import ModuleType

CONFIG_FILE = "open_clip_config.json"
_RANDOM = "random"
_BROKEN = (RuntimeError, ValueError, TypeError, KeyError, pickle.UnpicklingError, safetensors.SafetensorError)


@dataclass(frozen=True, kw_only=True)
class OpenClipModel:
    """A model of open_clip, in evaluation mode, float32.

    Attributes:
        model: with `encode_image` and `encode_text`; a CoCa writes captions too.
        tokenizer: open_clip's own.
        tokenize: texts to int64 ids [B, L], the same as `tokenizer` gives.
        preprocess: of its own pictures.
        digest: sha256 of weights, configuration, preprocessing and tokenizer.
        facts: for a manifest.
    """

    model: Any
    tokenizer: Any
    tokenize: Callable[[Sequence[str]], Tensor]
    preprocess: Preprocess
    digest: str
    facts: Mapping[str, JsonValue]


def load_open_clip(reference: str, *, what: str) -> OpenClipModel:
    """A model by `MODEL/PRETRAINED`, `MODEL/random` or a folder in open_clip's layout.

    PRETRAINED is one of open_clip's tags or a file of weights. QuickGELU, which some weights were trained with and a
    model's name does not say, is taken from the tag.

    Args:
        reference: which.
        what: whose it is, for the sentence.

    Raises:
        ImportError: open_clip is not installed.
        FileNotFoundError: no such file of weights.
        ConnectionError: the weights cannot be downloaded.
        ValueError: no such model or tag, or weights that do not fit.
    """
    open_clip = _library(what)
    if (Path(reference) / CONFIG_FILE).is_file():
        return load_open_clip_folder(Path(reference), what=what)
    name, separator, tag = reference.partition("/")
    if name not in open_clip.list_models() or not separator or not tag:
        raise ValueError(
            f"{what}: open_clip:{reference} is no folder with {CONFIG_FILE}, nor MODEL/PRETRAINED with a model of "
            "open_clip.list_models(); give for instance open_clip:ViT-B-32/laion2b_s34b_b79k"
        )
    known = {} if tag == _RANDOM else open_clip.get_pretrained_cfg(name, tag)
    weights = None if tag == _RANDOM else _weights_file(name, tag, known=known, what=what)
    source = f"open_clip:{reference}"
    with _readable(source, what=what), _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(
            name,
            tag if known else weights,
            force_quick_gelu=bool(known.get("quick_gelu", False)),
            pretrained_text=False,
            require_pretrained=weights is not None,
        )
        if tag == _RANDOM and hasattr(model, "text_decoder"):
            # open_clip leaves this memory as it finds it
            torch.nn.init.normal_(model.text_decoder.text_projection, std=model.text_decoder.width**-0.5)
        tokenizer = open_clip.get_tokenizer(name)
        quick_gelu = any(type(module).__name__ == "QuickGELU" for module in model.modules())
        config = open_clip.get_model_config(name) | {"quick_gelu": quick_gelu}
        return _described(model, tokenizer, config=config)


def load_open_clip_folder(folder: Path, *, what: str, tokenizer_of: str | None = None) -> OpenClipModel:
    """A model in a folder of open_clip's layout.

    Args:
        folder: with configuration and weights.
        what: whose it is, for the sentence.
        tokenizer_of: where the tokenizer's name is looked up if its files are not in the folder.

    Raises:
        ImportError: open_clip is not installed.
        ValueError: the folder cannot be used.
    """
    open_clip = _library(what)
    local = f"local-dir:{folder}"
    with _readable(str(folder), what=what), _quiet():
        config = open_clip.get_model_config(local)
        named_elsewhere = config["text_cfg"].get("hf_tokenizer_name") and not any(
            (folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")
        )
        model = open_clip.create_model(local, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(tokenizer_of if named_elsewhere and tokenizer_of else local)
        return _described(model, tokenizer, config=config)


def _described(model: Any, tokenizer: Any, *, config: dict[str, Any]) -> OpenClipModel:  # noqa: ANN401
    """`model` with what its embeddings depend on."""
    for part in (config["vision_cfg"], config["text_cfg"]):  # where base weights came from
        for key in ("timm_model_pretrained", "hf_model_pretrained"):
            part.pop(key, None)
    preprocess = _preprocess(model.visual.preprocess_cfg)
    facts: dict[str, JsonValue] = {
        "library": "open_clip",
        "context_length": int(tokenizer.context_length),
        "config": config,
    }
    if getattr(model, "logit_bias", None) is not None:
        facts["logit_bias"] = float(model.logit_bias.item())
    depends_on = facts | {"preprocess": preprocess.to_json(), "vocabulary": vocabulary_digest(tokenizer)}
    return OpenClipModel(
        model=model.eval().requires_grad_(False),
        tokenizer=tokenizer,
        tokenize=_fast(tokenizer),
        preprocess=preprocess,
        digest=weights_digest(model.state_dict(), depends_on),
        facts=facts,
    )


def _fast(tokenizer: Any) -> Callable[[Sequence[str]], Tensor]:  # noqa: ANN401
    """The tokenizer, or ours where it is CLIP's as it comes, which gives the same ids without Python's loops."""
    plain = type(tokenizer).__name__ == "SimpleTokenizer" and tokenizer.reduction_fn is None
    if plain and tokenizer.clean_fn.__name__ == "_clean_lower" and len(tokenizer.all_special_ids) == 2:
        ours = Tokenizer(TokenizerConfig(context_length=tokenizer.context_length))
        return lambda texts: torch.from_numpy(ours(list(texts)))
    return lambda texts: tokenizer(list(texts))


def _preprocess(found: Mapping[str, Any]) -> Preprocess:
    size = found["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ValueError(f"its pictures are {width}x{height}, not square, and views are")
    interpolation = "bilinear" if found["interpolation"] == "bilinear" else "bicubic"
    (red, green, blue), (red_std, green_std, blue_std) = found["mean"], found["std"]
    return Preprocess(
        size=int(height),
        mean=(float(red), float(green), float(blue)),
        std=(float(red_std), float(green_std), float(blue_std)),
        interpolation=interpolation,
    )


def _weights_file(name: str, tag: str, *, known: Mapping, what: str) -> str:
    """The file of weights of a tag, downloaded if it has to be."""
    open_clip = _library(what)
    if not known:
        if Path(tag).is_file():
            return tag
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise FileNotFoundError(
            f"{what}: {tag!r} is neither a file nor one of the tags of {name} ({tags}); `random` takes random weights"
        )
    try:
        return open_clip.download_pretrained(known)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"{what}: the weights open_clip:{name}/{tag} cannot be downloaded ({_first_line(error)}): connect, or "
            "fetch them once into the cache that HF_HOME names"
        ) from error


@contextmanager
def _readable(source: str, *, what: str) -> Generator[None]:
    """What open_clip raises about a model, as one sentence."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{what}: {source} cannot be read ({_first_line(error)})") from error
    except _BROKEN as error:
        raise ValueError(f"{what}: open_clip cannot load {source} ({_first_line(error)})") from error


@contextmanager
def _quiet() -> Generator[None]:
    """open_clip logs to the root logger, and so adds a handler to it, and warns of what is meant here."""
    root = logging.getLogger()
    handlers, disabled = root.handlers[:], root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers


def _library(what: str) -> ModuleType:
    try:
        import open_clip
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{what} needs {error.name}, which is not installed: pip install 'pocketclip[teachers]'"
        ) from error
    return open_clip


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return json.dumps(lines[0], ensure_ascii=False)[1:-1] if lines else type(error).__name__
