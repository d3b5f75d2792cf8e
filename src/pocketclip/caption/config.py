"""What is asked of captioning: which models write, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pocketclip.teachers import CaptionerSpec, Precision


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """How pictures are captioned.

    Attributes:
        models: captioner's name -> its source; several are an ensemble, each of which writes.
        splits: of packed folders; empty for all.
        num_captions: of each picture by each captioner.
        temperature: None takes the likeliest words where one caption is asked for or beams search, and draws at 1
            where several are.
        top_k, top_p, max_length, min_length, beams, beam_groups, diversity_penalty, length_penalty,
            repetition_penalty, no_repeat_ngram, first_sentence, seed: as in `CaptionerSpec`.
        batch_size: pictures at a time.
        device: where the captioners run.
        precision: what they compute in.
    """

    models: Mapping[str, str]
    splits: tuple[str, ...] = ()
    num_captions: int = 1
    temperature: float | None = None
    top_k: int | None = None
    top_p: float = 0.9
    max_length: int = 30
    min_length: int = 0
    beams: int = 1
    beam_groups: int = 1
    diversity_penalty: float = 0.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    first_sentence: bool = False
    seed: int = 0
    batch_size: int = 16
    device: str = "cpu"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("captioning needs a model or more")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def specs(self) -> list[CaptionerSpec]:
        """The captioners.

        Raises:
            ValueError: settings that make no sense together.
        """
        temperature = self.temperature
        if temperature is None:
            temperature = 0.0 if self.num_captions == 1 or self.beams > 1 else 1.0
        return [
            CaptionerSpec(
                name=name,
                source=source,
                num_captions=self.num_captions,
                temperature=temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                max_length=self.max_length,
                min_length=self.min_length,
                beams=self.beams,
                beam_groups=self.beam_groups,
                diversity_penalty=self.diversity_penalty,
                length_penalty=self.length_penalty,
                repetition_penalty=self.repetition_penalty,
                no_repeat_ngram=self.no_repeat_ngram,
                first_sentence=self.first_sentence,
                seed=self.seed,
            )
            for name, source in self.models.items()
        ]
