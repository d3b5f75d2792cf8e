"""A model to be measured: a variant with random weights, a checkpoint, an exported folder, or both of the latter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch

from pocketclip.checkpoint import Loaded, create, load
from pocketclip.checkpoint.loaded import same_architecture
from pocketclip.models import VARIANTS, Clip, ClipConfig, fold, variant
from pocketclip.models.count import describe_towers
from pocketclip.runtime.manifest import MANIFEST_FILE, Manifest, read_manifest

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One thing to measure: which tower, run how, on what.

    Attributes:
        tower: "image" or "text".
        backend: name of what runs it.
        precision: of weights and arithmetic.
        threads: number of threads.
        batch_size: pictures or texts at a time.
        image_px: side of the pictures; None for texts.
        device: of torch.
    """

    tower: str
    backend: str
    precision: str
    threads: int
    batch_size: int
    image_px: int | None
    device: str


class Subject:
    """A model in all the forms that are measured; each is made when it is first asked for.

    Attributes:
        name: in tables.
        source: what it was read from.
        exported: folder of its exported form; None for none.
    """

    def __init__(self, name: str, source: Path | str, *, exported: Path | None = None) -> None:
        """Find the model.

        Raises:
            ValueError: neither a checkpoint, nor a variant's name, nor an exported model.
            OSError: it cannot be read.
        """
        self.name = name
        self.source = str(source)
        is_exported = (Path(source) / MANIFEST_FILE).is_file()
        self.exported = Path(source) if is_exported else exported
        self._forms: dict[tuple[bool, str, int | None], Clip] = {}
        self._loaded: Loaded | None = None if is_exported else _load(self.source)

    @cached_property
    def manifest(self) -> Manifest:
        """Of the exported form."""
        assert self.exported is not None
        return read_manifest(self.exported)

    @property
    def is_checkpoint(self) -> bool:
        """Whether torch can run it."""
        return self._loaded is not None

    @property
    def image_px(self) -> int:
        """Side of the pictures it is made for."""
        return self.loaded.config.preprocess.size if self._loaded else self.manifest.preprocess.size

    @property
    def loaded(self) -> Loaded:
        """The checkpoint."""
        assert self._loaded is not None
        return self._loaded

    @property
    def variant(self) -> str | None:
        """The first variant that has its towers; None for none."""
        if self._loaded is None:
            return self.manifest.model if self.manifest.model in VARIANTS else None
        own = self._loaded.config.model
        return next((name for name, row in VARIANTS.items() if same_architecture(row.model, own)), None)

    def network(self, *, is_folded: bool, precision: str, image_px: int | None, device: str) -> Clip:
        """The model as it was trained or folded, in a precision, for pictures of a size; kept until `forget`."""
        key = (is_folded, precision, image_px)
        if key not in self._forms:
            model = self.loaded.model
            if image_px not in (None, self.image_px):
                model = model.resized(image_px=image_px)
            if is_folded:
                model = fold(model)
            elif model is self.loaded.model and precision != "fp32":
                model = model.resized()  # a copy
            self._forms[key] = model.to(device, DTYPES[precision]).to(memory_format=torch.channels_last)
        return self._forms[key]

    def forget(self) -> None:
        """Drops all forms but the checkpoint itself."""
        self._forms.clear()

    def release(self) -> None:
        """Drops the checkpoint too, for those who hold on to one form only."""
        self.forget()
        self._loaded = None

    def macs(self, tower: str, *, is_folded: bool, image_px: int | None) -> int | None:
        """Multiply-accumulates for one picture or text; None where the network is not known."""
        config = self._config()
        if config is None:
            return None
        cost = _costs(config, image_px or self.image_px)
        counted = cost.image if tower == "image" else cost.text
        return (counted.folded if is_folded else counted.train).macs

    def _config(self) -> ClipConfig | None:
        if self._loaded is not None:
            return self._loaded.config.model
        return None if self.variant is None else variant(self.variant).model


_costs = cache(lambda config, image_px: describe_towers(config, image_px=image_px))


def _load(source: str) -> Loaded:
    """A checkpoint; a variant's name gives the same random weights every time."""
    if not Path(source).exists():
        try:
            name = variant(source).name
        except ValueError:
            name = None
        if name is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return create(name)
    return load(source)
