"""What can run a model here, by name: torch in three forms, and every backend of the runtime.

B batch, H and W picture, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pocketclip.bench.config import TORCH_BACKENDS
from pocketclip.bench.subject import DTYPES, Setting, Subject
from pocketclip.data.tokenize import Tokenizer
from pocketclip.runtime.backends import BACKENDS

Call = Callable[[], object]
"""Runs a tower once on one batch, and returns when it is done."""
_TEXT = "a photo of a small dog on a beach"


@dataclass(frozen=True, kw_only=True)
class BenchBackend:
    """A way to run a model.

    Attributes:
        is_folded: whether the folded tower is run.
        can: whether it runs a model's tower for pictures of the given size, in torch's precision given.
        precision: what a measurement is called by: torch's precision, or that of the export.
        open: makes the call.
    """

    is_folded: bool
    can: Callable[[Subject, Setting], bool]
    precision: Callable[[Subject, Setting], str]
    open: Callable[[Subject, Setting], Call]


def bench_backends() -> Mapping[str, BenchBackend]:
    """Name -> backend."""
    own = {name: _torch(name) for name in TORCH_BACKENDS}
    return own | {name: _runtime(name) for name in BACKENDS}


def _torch(name: str) -> BenchBackend:
    is_folded = name != "eager"

    def open_call(subject: Subject, setting: Setting) -> Call:
        model = subject.network(
            is_folded=is_folded,
            precision=setting.precision,
            image_px=setting.image_px,
            device=setting.device,
        )
        encode = model.encode_image if setting.tower == "image" else model.encode_text
        if name == "compiled":
            encode = torch.compile(encode, dynamic=False)
        batch = _torch_batch(subject, setting)

        def call() -> None:
            with torch.inference_mode():
                encode(batch, normalize=True)
            if setting.device.startswith("cuda"):
                torch.cuda.synchronize()

        return call

    return BenchBackend(
        is_folded=is_folded,
        can=lambda subject, _: subject.is_checkpoint,
        precision=lambda _, setting: setting.precision,
        open=open_call,
    )


def _runtime(name: str) -> BenchBackend:
    backend = BACKENDS[name]

    def can(subject: Subject, setting: Setting) -> bool:
        return (
            subject.exported is not None
            and backend.is_there()
            and subject.manifest.target in backend.targets
            and setting.tower in subject.manifest.towers
            and setting.image_px in (None, subject.manifest.preprocess.size)
        )

    def open_call(subject: Subject, setting: Setting) -> Call:
        assert subject.exported is not None
        file = subject.manifest.files[setting.tower]
        tower = backend.open(subject.exported / file.name, threads=setting.threads)
        batch = _runtime_batch(subject, setting)
        return lambda: tower.run(batch)

    def precision(subject: Subject, _: Setting) -> str:
        return "bf16" if name.endswith("-bf16") else subject.manifest.precision

    return BenchBackend(is_folded=True, can=can, precision=precision, open=open_call)


def _torch_batch(subject: Subject, setting: Setting) -> torch.Tensor:
    """float [B, 3, H, W] noise, channels last, or int64 [B, L] of one sentence."""
    if setting.tower == "text":
        return subject.loaded.tokenize([_TEXT] * setting.batch_size).to(setting.device)
    size = setting.image_px or subject.image_px
    noise = torch.rand((setting.batch_size, 3, size, size), generator=torch.Generator().manual_seed(0))
    return noise.to(setting.device, DTYPES[setting.precision]).to(memory_format=torch.channels_last)


def _runtime_batch(subject: Subject, setting: Setting) -> np.ndarray:
    """What the exported tower takes: tokens [B, L], normalised float32 [B, 3, H, W], or uint8 [B, H, W, 3]."""
    manifest, rng = subject.manifest, np.random.default_rng(0)
    if setting.tower == "text":
        assert subject.exported is not None
        text = (subject.exported / manifest.files["tokenizer"].name).read_text(encoding="utf-8")
        return Tokenizer.from_json(text, manifest.context_length)([_TEXT] * setting.batch_size)
    size = manifest.preprocess.size
    pixels = rng.integers(0, 256, (setting.batch_size, size, size, 3), dtype=np.uint8)
    return pixels if manifest.pixels == "uint8" else manifest.preprocess.normalise(pixels)
