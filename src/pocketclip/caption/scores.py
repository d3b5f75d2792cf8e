"""How good captions are: against people's captions, against the pictures, and in themselves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from pocketclip.caption.words import distinct, is_degenerate, meteor_exact, words


class Scorer(Protocol):
    """A scorer of pycocoevalcap."""

    def compute_score(
        self, gts: Mapping[str, list[str]], res: Mapping[str, list[str]]
    ) -> tuple[float, Sequence[float]]:
        """The score of all pictures, and each one's."""
        ...


@dataclass(frozen=True, kw_only=True)
class CaptionScores:
    """Scores of a set of captions; those that need what was not given are None.

    Attributes:
        pictures: that were captioned.
        captions: that were written.
        cider: CIDEr-D (Vedantam et al., 2015), 0 to 10.
        bleu_1, bleu_4: of the whole set (Papineni et al., 2002), 0 to 1.
        rouge_l: mean of the longest common subsequences' F-score (Lin, 2004), 0 to 1.
        meteor_exact: mean METEOR with exact matches alone, 0 to 1; see `words.meteor_exact`.
        clip_score: mean of 2.5 times the cosine with the picture, not below 0 (Hessel et al., 2021).
        distinct_1, distinct_2: different words, and pairs of words, over all of them.
        degenerate: share of the captions that were asked for and are missing, say nothing or stutter.
        words: a caption's mean number of words.
        words_sd: its standard deviation over captions.
        words_most: the longest caption's.
    """

    pictures: int
    captions: int
    cider: float | None = None
    bleu_1: float | None = None
    bleu_4: float | None = None
    rouge_l: float | None = None
    meteor_exact: float | None = None
    clip_score: float | None = None
    distinct_1: float
    distinct_2: float
    degenerate: float
    words: float
    words_sd: float
    words_most: int

    def values(self) -> dict[str, float]:
        """The scores that there are, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if value is not None}

    def text(self) -> str:
        """One line a score."""
        return "\n".join(
            f"{value:10,d}  {name}" if isinstance(value, int) else f"{value:10.3f}  {name}"
            for name, value in self.values().items()
        )


def score_captions(
    candidates: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[str]] | None = None,
    *,
    asked: int | None = None,
    clip_scores: Sequence[float] | None = None,
) -> CaptionScores:
    """Scores captions; CIDEr, BLEU and ROUGE are pycocoevalcap's, on our words.

    A picture's several captions each count as a candidate of their own.

    Args:
        candidates: captions by picture.
        references: people's captions by picture, one or more of every picture in `candidates`; None for the scores
            that need none.
        asked: captions that each picture should have; None for as many as it has.
        clip_scores: of every caption, in any order, where a model measured them.

    Raises:
        ImportError: there are references and pycocoevalcap is not installed.
        ValueError: no picture, or one without references.
    """
    if not candidates:
        raise ValueError("there are no captions to score")
    texts = [text for some in candidates.values() for text in some]
    lengths = [len(words(text)) for text in texts] or [0]
    wanted = asked * len(candidates) if asked is not None else len(texts)
    sound = sum(not is_degenerate(text) for text in texts)
    against = _against(candidates, references) if references is not None and texts else {}
    return CaptionScores(
        pictures=len(candidates),
        captions=len(texts),
        clip_score=statistics.fmean(clip_scores) if clip_scores else None,
        distinct_1=distinct(texts, n=1),
        distinct_2=distinct(texts, n=2),
        degenerate=1 - sound / max(wanted, len(texts), 1),
        words=statistics.fmean(lengths),
        words_sd=statistics.pstdev(lengths),
        words_most=max(lengths),
        **against,
    )


def _cider(
    scorer: Scorer, candidates: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]]
) -> list[float]:
    """Every caption's CIDEr, with word weights of the pictures, however many captions each has."""
    true = {key: [said for text in references[key] if (said := " ".join(words(text)))] for key in candidates}
    scores: list[float] = []
    for number in range(max(map(len, candidates.values()))):
        written = {
            key: [" ".join(words("".join(texts[number : number + 1])))] for key, texts in candidates.items()
        }
        there = [number < len(texts) for texts in candidates.values()]
        _, each = scorer.compute_score(true, written)
        scores += [float(score) for score, is_there in zip(each, there, strict=True) if is_there]
    return scores


def scorers() -> tuple[Any, Any, Any]:
    """The library's scorers: BLEU, CIDEr, ROUGE.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ImportError(
            "scoring captions against references needs pycocoevalcap, not installed here: pip install pycocoevalcap"
        ) from error
    return Bleu(4), Cider(), Rouge()


def _against(
    candidates: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    bleu_scorer, cider_scorer, rouge_scorer = scorers()
    missing = [key for key in candidates if not any(words(text) for text in references.get(key, ()))]
    if missing:
        raise ValueError(
            f"{len(missing)} pictures have captions and no reference, {missing[0]} for one: give references of all"
        )
    written: dict[str, list[str]] = {}
    true: dict[str, list[str]] = {}
    for key, texts in candidates.items():
        said = [" ".join(words(text)) for text in references[key]]
        for number, text in enumerate(texts):
            name = f"{key}#{number}"
            written[name], true[name] = [" ".join(words(text))], [text for text in said if text]
    bleu, _ = bleu_scorer.compute_score(true, written, verbose=0)
    meteor = [
        meteor_exact(written[name][0].split(), [text.split() for text in true[name]]) for name in written
    ]
    return {
        "cider": statistics.fmean(_cider(cider_scorer, candidates, references)),
        "bleu_1": float(bleu[0]),
        "bleu_4": float(bleu[3]),
        "rouge_l": float(rouge_scorer.compute_score(true, written)[0]),
        "meteor_exact": statistics.fmean(meteor),
    }
