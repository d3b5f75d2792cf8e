"""Two networks as a teacher: batches in, rows of length 1 out, whatever library the networks come from."""

# Shape suffixes: B pictures or captions, H W C pixels, L tokens, D dimensions of an embedding.

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pocketclip.data.preprocess import Preprocess
from pocketclip.data.reinforcement import TeacherRecord
from pocketclip.data.sample import JsonValue
from pocketclip.teachers.teacher import EncodeError, Precision, TeacherSpec

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What automatic mixed precision computes in, by name; float32 is none."""


@dataclass(frozen=True, kw_only=True)
class Towers:
    """What a source gives: two networks in evaluation mode, and what they must be fed.

    Attributes:
        image: normalised float32 [B, 3, H, W] to embeddings [B, D] of any length.
        text: the tensors of `tokenize`, in order, to embeddings [B, D] of any length.
        tokenize: texts to what the text tower takes, ids [B, L] first.
        preprocess: side, mean, standard deviation and interpolation of its own pictures.
        logit_scale: the factor that it learned for its cosines.
        digest: sha256 of weights, preprocessing and tokenizer.
        facts: more for the manifest.
    """

    image: nn.Module
    text: nn.Module
    tokenize: Callable[[Sequence[str]], tuple[Tensor, ...]]
    preprocess: Preprocess
    logit_scale: float
    digest: str
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


class TowerTeacher:
    """Two towers as a `Teacher`.

    Args:
        spec: which; its logit scale, where it has one, goes before the towers' own.
        towers: the networks, which are moved to the device.
        device: where they run.
        precision: what they compute in.
        compiled: compile them.

    Raises:
        ValueError: torch has no such device, or the towers do not fit together.
    """

    def __init__(
        self,
        spec: TeacherSpec,
        towers: Towers,
        *,
        device: str = "cpu",
        precision: Precision = "fp32",
        compiled: bool = False,
    ) -> None:
        self._spec = spec
        self._towers = towers
        self._device = torch_device(device, what=f"teacher {spec.name}")
        self._precision = precision
        self._compiled = compiled
        self._image, self._text = (tower.to(self._device) for tower in (towers.image, towers.text))
        rgb = (towers.preprocess.mean, towers.preprocess.std)
        self._mean, self._std = (torch.tensor(row, device=self._device).view(1, 3, 1, 1) for row in rgb)
        self.image_px = towers.preprocess.size
        blank_BCHW = torch.zeros(1, 3, self.image_px, self.image_px, device=self._device)
        embed_dim = self._embed(self._image, blank_BCHW).shape[1]
        if compiled:
            self._image, self._text = torch.compile(self._image), torch.compile(self._text)
        self.record = TeacherRecord(
            name=spec.name,
            embed_dim=embed_dim,
            logit_scale=towers.logit_scale if spec.logit_scale is None else spec.logit_scale,
            digest=towers.digest,
        )

    def describe(self) -> dict[str, JsonValue]:
        """What it is, as JSON for a manifest."""
        return {
            "name": self._spec.name,
            "source": self._spec.source,
            "embed_dim": self.record.embed_dim,
            "logit_scale": self.record.logit_scale,
            "own_logit_scale": self._towers.logit_scale,
            "digest": self.record.digest,
            "precision": self._precision,
            "compiled": self._compiled,
            "preprocess": self._towers.preprocess.to_json(),
            **self._towers.facts,
        }

    def encode_image(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        """Embeds uint8 RGB pictures [B, H, W, 3] of `image_px` x `image_px`: float32 [B, D].

        Raises:
            EncodeError: a result is not finite; it names the rows.
        """
        assert pixels_BHWC.dtype == np.uint8, pixels_BHWC.dtype
        assert pixels_BHWC.shape[1:] == (self.image_px, self.image_px, 3), pixels_BHWC.shape
        # Bytes travel to the device, a quarter of what floats would be, and are scaled there.
        pixels = torch.from_numpy(np.require(pixels_BHWC, requirements=["C", "W"])).to(self._device)
        image_BCHW = pixels.permute(0, 3, 1, 2).float()
        image_BCHW = image_BCHW.div_(255).sub_(self._mean).div_(self._std)
        rows_BD = self._embed(self._image, image_BCHW)
        return self._checked(rows_BD, describe=lambda row: f"picture {row} of a batch")

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds captions: float32 [B, D].

        Raises:
            EncodeError: a text breaks the tokenizer, or a result is not finite; it names the rows.
        """
        rows_BD = self._embed(self._text, *self._tokens(texts))
        return self._checked(rows_BD, describe=lambda row: f"the text {_shortened(texts[row])}")

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        try:
            tokens = self._tokenized(texts)
        except ValueError as error:
            raise EncodeError(self._spec.name, self._broken(texts) or {0: str(error)}) from error
        return tuple(part.to(self._device) for part in tokens)

    def _tokenized(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        try:
            return self._towers.tokenize(texts)
        except Exception as error:  # other libraries' tokenizers raise anything, even Exception itself
            raise ValueError(f"{_shortened(texts[0])} breaks the tokenizer ({error})") from error

    def _broken(self, texts: Sequence[str]) -> dict[int, str]:
        """The texts that cannot even be tokenized alone, and why."""
        broken = {}
        for row, text in enumerate(texts):
            try:
                self._tokenized([text])
            except ValueError as error:
                broken[row] = f"the text {error}"
        return broken

    @torch.inference_mode()
    def _embed(self, tower: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """float32 [B, D], brought to length 1 in float32."""
        dtype = AUTOCAST.get(self._precision)
        with torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None):
            embed_BD = tower(*inputs)
        embed_BD = embed_BD.float()
        return embed_BD / embed_BD.norm(dim=-1, keepdim=True)

    def _checked(self, rows_BD: Tensor, *, describe: Callable[[int], str]) -> np.ndarray:
        rows = rows_BD.cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist()
        if bad:
            raise EncodeError(
                self._spec.name,
                {row: f"gives an embedding that is not finite or zero for {describe(row)}" for row in bad},
            )
        return rows


def torch_device(device: str, *, what: str) -> torch.device:
    """A device that torch has here.

    Raises:
        ValueError: it has none of that name.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA raises AssertionError
        reason = str(error).splitlines()[0]
        raise ValueError(f"{what} cannot run on device {device!r} ({reason}): try cpu") from None
    return found


def weights_digest(weights: Mapping[str, Tensor], facts: JsonValue) -> str:
    """sha256 of all weights, by name, and of what else an embedding depends on; the same wherever they were read."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    for name, value in sorted(weights.items()):
        digest.update(f"{name}{value.dtype}{list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shortened(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
