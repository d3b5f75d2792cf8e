"""Captioners: plain data names them, anything can be one, and what says nothing is left out."""

from __future__ import annotations

import pickle

import pytest
from PIL import Image

from pocketclip.teachers import Captioner, CaptionerSpec, build_captioner
from pocketclip.teachers.captioner import usable


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a/b"}, "captioner name"),
        ({"source": ""}, "source"),
        ({"num_captions": 0}, "num_captions"),
        ({"max_length": 0}, "max_length"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 0.0}, "temperature 0 writes the same caption 5 times"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_length": 31}, "min_length must be 0 to max_length"),
        ({"beams": 4}, "draws nothing: give temperature 0"),
        ({"beams": 4, "beam_groups": 3, "temperature": 0.0, "num_captions": 1}, "multiple of beam_groups"),
        ({"beams": 4, "temperature": 0.0}, "the same caption 5 times"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"diversity_penalty": -1.0}, "diversity_penalty"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CaptionerSpec(**{"name": "c", "source": "open_clip:coca_ViT-B-32/random", **fields})


def test_a_spec_is_picklable():
    spec = CaptionerSpec(name="c", source="python:m:f", top_k=50)
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["a dog", "  a   dog\n "], ("a dog", "a dog")),
        (["", "   ", "...", "?! -"], ()),
        (["a a a cat", "a a a a cat", "Dog dog DOG dog"], ("a a a cat",)),
        (["no no no", "so so very so so"], ("no no no", "so so very so so")),
        (["7", "рыжий кот", "一只猫"], ("7", "рыжий кот", "一只猫")),
    ],
)
def test_captions_that_say_nothing_are_left_out_and_the_order_kept(texts, kept):
    assert usable(texts) == kept


class Namer:
    """Writes a picture's size and its key."""

    def __init__(self, spec):
        self.name, self.digest, self._num = spec.name, "0" * 64, spec.num_captions

    def caption(self, images, keys):
        return [
            tuple(f"{key} is {image.width} wide, {n}" for n in range(self._num))
            for image, key in zip(images, keys, strict=True)
        ]

    def describe(self):
        return {"name": self.name}


def make_namer(spec, *, device, precision):
    assert (device, precision) == ("cpu", "bf16")
    return Namer(spec)


def make_nothing(spec, **settings):
    return None


def test_any_function_can_make_a_captioner():
    spec = CaptionerSpec(name="size", source=f"python:{__name__}:make_namer", num_captions=2)
    captioner = build_captioner(spec, precision="bf16")
    assert isinstance(captioner, Captioner)
    assert captioner.caption([Image.new("RGB", (7, 3))], ["k"]) == [("k is 7 wide, 0", "k is 7 wide, 1")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("blip:base", "is none of a checkpoint FILE"),
        ("some/file.safetensors", "does not exist, and is none of a checkpoint FILE"),
        (f"python:{__name__}:make_nothing", "returned a NoneType, which lacks name, digest"),
        (f"python:{__name__}:gone", "cannot be imported"),
    ],
)
def test_what_is_no_captioner_is_told(source, message):
    with pytest.raises(ValueError, match=f"captioner c: .*{message}"):
        build_captioner(CaptionerSpec(name="c", source=source))
