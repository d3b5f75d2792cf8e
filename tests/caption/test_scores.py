"""Scores against the library that computes them, and against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from pocketclip.caption import ClipScorer, score_captions

WRITTEN = {"a": ["a red circle"], "b": ["a blue square on white"], "c": ["green thing"]}
TRUE = {
    "a": ["A red circle.", "circle painted red"],
    "b": ["a blue square", "one blue square on a white page"],
    "c": ["a green triangle"],
}


def test_what_needs_no_references_is_worked_out_by_hand():
    scores = score_captions({"a": ["a red cat", "red red red"], "b": ["dog"]}, asked=2)
    assert (scores.pictures, scores.captions) == (2, 3)
    assert scores.degenerate == pytest.approx(2 / 4)  # one stutters, one is missing
    assert scores.words == pytest.approx(7 / 3)
    assert scores.words_sd == pytest.approx(np.std([3, 3, 1]))
    assert scores.words_most == 3
    assert scores.distinct_1 == pytest.approx(4 / 7)
    assert not {"cider", "bleu_4", "clip_score"} & set(scores.values())


def test_references_are_compared_as_the_library_does():
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    scores = score_captions(WRITTEN, TRUE)
    plain = {key: [text.lower().rstrip(".") for text in texts] for key, texts in TRUE.items()}
    assert scores.cider == pytest.approx(cider.Cider().compute_score(plain, WRITTEN)[0])
    assert scores.bleu_4 == pytest.approx(bleu.Bleu(4).compute_score(plain, WRITTEN, verbose=0)[0][3])
    assert scores.rouge_l == pytest.approx(rouge.Rouge().compute_score(plain, WRITTEN)[0])
    assert "cider" in scores.text()


def test_people_beat_a_shuffle_in_every_score():
    pytest.importorskip("pycocoevalcap")
    same = score_captions({key: texts[:1] for key, texts in TRUE.items()}, TRUE)
    keys = list(TRUE)
    shuffled = {key: TRUE[keys[(row + 1) % 3]][:1] for row, key in enumerate(keys)}
    other = score_captions(shuffled, TRUE)
    assert same.bleu_1 == pytest.approx(1.0)
    assert same.rouge_l == pytest.approx(1.0)
    for name in ("cider", "bleu_1", "rouge_l", "meteor_exact"):
        assert getattr(same, name) > getattr(other, name) + 0.2, name


def test_several_captions_of_a_picture_are_candidates_of_their_own():
    pytest.importorskip("pycocoevalcap")
    once = score_captions(WRITTEN, TRUE)
    twice = score_captions({key: texts * 2 for key, texts in WRITTEN.items()}, TRUE)
    assert twice.captions == 2 * once.captions
    for name in ("cider", "bleu_1", "rouge_l", "meteor_exact"):
        assert getattr(twice, name) == pytest.approx(getattr(once, name)), name


def test_what_cannot_be_scored_is_told():
    with pytest.raises(ValueError, match="there are no captions to score"):
        score_captions({})
    pytest.importorskip("pycocoevalcap")
    with pytest.raises(ValueError, match="1 pictures have captions and no reference, x for one"):
        score_captions({"x": ["a cat"]}, {"y": ["a cat"]})


NAMED = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


class Colours:
    """A teacher whose embedding of a picture is its mean colour; of a text, a colour that it names."""

    image_px = 8

    def encode_image(self, pixels):
        mean = pixels.reshape(len(pixels), -1, 3).mean(1)
        return (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)

    def encode_text(self, texts):
        return np.array([next(c for n, c in NAMED.items() if n in text) for text in texts], np.float32)


def test_clip_score_is_two_and_a_half_cosines():
    scorer = ClipScorer(Colours(), prompt="")
    red, half = Image.new("RGB", (20, 12), "red"), Image.new("RGB", (9, 9), (255, 255, 0))
    assert scorer([red, red, half], ["red", "green", "green"]) == pytest.approx([2.5, 0.0, 2.5 / 2**0.5])
    assert scorer([], []) == []
