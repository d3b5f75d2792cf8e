"""CoCa models of open_clip as captioners: the picture is seen once, its captions are sampled token by token.

Every step runs the decoder over the whole caption so far. What is drawn for a caption comes from its sample's key and
its number, so it depends neither on the batch nor on how many captions a picture gets.
"""

# Shape suffixes: B pictures, N captions being written, L tokens, V tokens of the vocabulary, M D of the picture.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pocketclip.checkpoint.hub import PREFIX, fetch
from pocketclip.data.augment import seeded
from pocketclip.data.sample import JsonValue
from pocketclip.teachers.captioner import CaptionerSpec, usable
from pocketclip.teachers.open_clip_models import OpenClipModel, load_open_clip, load_open_clip_folder
from pocketclip.teachers.sampling import choose
from pocketclip.teachers.teacher import Precision
from pocketclip.teachers.towers import AUTOCAST, torch_device


def build_coca(spec: CaptionerSpec, *, device: str, precision: Precision) -> CocaCaptioner:
    """The CoCa that `open_clip:...` or `hf-hub:ORG/NAME[@REVISION]` names.

    Raises:
        ImportError: open_clip is not installed.
        FileNotFoundError: no such file or repository.
        ConnectionError: the weights cannot be downloaded.
        ValueError: the model is no CoCa, or cannot be used.
    """
    kind, _, reference = spec.source.partition(":")
    what = f"captioner {spec.name}"
    if kind == "hf-hub":
        name = PREFIX + reference.partition("@")[0]
        found = load_open_clip_folder(fetch(PREFIX + reference), what=what, tokenizer_of=name)
    else:
        found = load_open_clip(reference, what=what)
    return CocaCaptioner(spec, found, device=device, precision=precision)


class CocaCaptioner:
    """A CoCa of open_clip as a `Captioner`.

    Args:
        spec: which, and how it samples.
        found: the model, which is moved to the device.
        device: where it runs.
        precision: what it computes in.

    Raises:
        ValueError: the model is no CoCa, or its texts are shorter than the spec's.
    """

    def __init__(
        self, spec: CaptionerSpec, found: OpenClipModel, *, device: str = "cpu", precision: Precision = "fp32"
    ) -> None:
        what = f"captioner {spec.name}"
        if not hasattr(found.model, "text_decoder") or not hasattr(found.tokenizer, "eot_token_id"):
            raise ValueError(
                f"{what}: {spec.source} is a {type(found.model).__name__} and cannot write: give a CoCa with CLIP's "
                "tokenizer, for instance open_clip:coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k"
            )
        longest = found.model.context_length
        if spec.max_length > longest:
            raise ValueError(f"{what}: max_length {spec.max_length} is beyond the model's {longest} tokens")
        self.name = spec.name
        self.digest = found.digest
        self._spec = spec
        self._found = found
        self._precision = precision
        self._device = torch_device(device, what=what)
        self._model = found.model.to(self._device)
        tokenizer = found.tokenizer
        self._start, self._end = tokenizer.sot_token_id, tokenizer.eot_token_id
        self._padding = int(self._model.pad_id)

    def describe(self) -> dict[str, JsonValue]:
        """What it is, as JSON for a manifest."""
        spec = self._spec
        return {
            "name": spec.name,
            "source": spec.source,
            "digest": self.digest,
            "num_captions": spec.num_captions,
            "temperature": spec.temperature,
            "top_k": spec.top_k,
            "top_p": spec.top_p,
            "max_length": spec.max_length,
            "seed": spec.seed,
            "precision": self._precision,
            "preprocess": self._found.preprocess.to_json(),
            **self._found.facts,
        }

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image], keys: Sequence[str]) -> list[tuple[str, ...]]:
        """Up to `num_captions` captions of each picture, those left out that say nothing.

        Args:
            images: of any mode and size; they are resized, cropped and normalised as the model's own are.
            keys: of their samples, different ones; what is sampled depends on them.

        Raises:
            ValueError: the model gives logits that are not finite; the sentence names the sample.
        """
        assert len(images) == len(keys)
        if not images:
            return []
        with torch.autocast(
            self._device.type, dtype=AUTOCAST.get(self._precision), enabled=self._precision in AUTOCAST
        ):
            seen = self._see(images)
            tokens_NL = self._write(seen, keys)
        texts = [self._text(row) for row in tokens_NL.tolist()]
        count = self._spec.num_captions
        return [usable(texts[start : start + count]) for start in range(0, len(texts), count)]

    def _see(self, images: Sequence[Image.Image]) -> Tensor:
        """What the decoder looks at: [B, M, D]."""
        preprocess = self._found.preprocess
        image_BCHW = preprocess.normalise(np.stack([preprocess.pixels(image) for image in images]))
        return self._model(torch.from_numpy(image_BCHW).to(self._device))["image_embs"]

    def _write(self, seen_BMD: Tensor, keys: Sequence[str]) -> Tensor:
        """Ids int64 [N, L] of every caption, start first; the captions of a picture are neighbours."""
        spec = self._spec
        count, length = spec.num_captions, spec.max_length
        seen_NMD = seen_BMD.repeat_interleave(count, dim=0)
        drawn = [self._draw(key, number) for key in keys for number in range(count)]
        uniform_NL = torch.tensor(drawn, dtype=torch.float64, device=self._device)
        tokens_NL = torch.full((len(drawn), 1 + length), self._end, device=self._device)
        tokens_NL[:, 0] = self._start
        writing = torch.arange(len(drawn), device=self._device)
        for place in range(length):
            logits_NV = self._next_logits(tokens_NL[writing, : place + 1], seen_NMD[writing])
            self._check(logits_NV, keys=[keys[row // count] for row in writing.tolist()])
            chosen_N = choose(
                logits_NV,
                uniform_NL[writing, place],
                temperature=spec.temperature,
                top_k=spec.top_k,
                top_p=spec.top_p,
            )
            tokens_NL[writing, place + 1] = chosen_N
            writing = writing[chosen_N != self._end]
            if not len(writing):
                break
        return tokens_NL

    def _draw(self, key: str, number: int) -> list[float]:
        rng = seeded(self._spec.seed, "caption", self._spec.name, key, number)
        return [rng.random() for _ in range(self._spec.max_length)]

    def _next_logits(self, tokens_NL: Tensor, seen_NMD: Tensor) -> Tensor:
        """float32 [N, V] of what may follow; neither a second start nor padding may."""
        unused_N1 = seen_NMD[:, 0, :1]  # the model asks for the picture's embedding too, and hands it back
        outputs = self._model(
            None, tokens_NL, image_latent=unused_N1, image_embs=seen_NMD, output_labels=False
        )
        logits_NV = outputs["logits"][:, -1].float()
        logits_NV[:, [self._start, self._padding]] = -torch.inf
        return logits_NV

    def _check(self, logits_NV: Tensor, *, keys: Sequence[str]) -> None:
        broken = (logits_NV.isnan().any(dim=-1) | logits_NV.isposinf().any(dim=-1)).nonzero()
        if len(broken):
            key = keys[int(broken[0, 0])]
            raise ValueError(
                f"captioner {self.name} gives logits that are not finite for sample {key}: its weights have diverged, "
                f"or {self._precision} is too coarse for them"
            )

    def _text(self, tokens: Sequence[int]) -> str:
        """What stands between start and end; bytes that are no text are left out."""
        written = tokens[1:]
        if self._end in written:
            written = written[: written.index(self._end)]
        return self._found.tokenizer.decode(written).replace("�", "")
