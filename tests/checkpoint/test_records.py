"""Records come back from JSON as they were; what does not fit is named with its place, all of it at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import pytest

from pocketclip.checkpoint import structure, unstructure, variant_config
from pocketclip.models.clip import ClipConfig
from pocketclip.models.variants import VARIANTS
from pocketclip.recipes.registry import RECIPES
from pocketclip.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    kind: Literal["a", "b"] = "a"
    inner: Inner
    pair: tuple[float, float] = (0.0, 1.0)
    maybe: int | None = None


WHOLE = {"name": "n", "kind": "b", "inner": {"size": 3, "share": 1}, "pair": [1, 2.5], "maybe": None}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_comes_back(name):
    model = variant_config(name).model
    assert structure(json.loads(json.dumps(unstructure(model))), ClipConfig) == model


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_back(name):
    config = RECIPES[name]()
    assert structure(json.loads(json.dumps(unstructure(config))), TrainConfig) == config


def test_a_whole_number_is_a_float_where_one_is_wanted():
    made = structure(WHOLE, Outer)
    assert made == Outer(name="n", kind="b", inner=Inner(size=3, share=1.0), pair=(1.0, 2.5))
    assert type(made.inner.share) is float


@pytest.mark.parametrize(
    ("change", "saying"),
    [
        ({"name": 3}, "expected str, got 3 at name"),
        ({"inner": {"size": "3"}}, r"expected int, got '3' at inner\.size"),
        ({"inner": {"size": 3.0}}, r"expected int, got 3\.0 at inner\.size"),
        ({"inner": {"size": True}}, r"expected int, got True at inner\.size"),
        ({"inner": {"size": 3, "share": "1"}}, r"expected float, got '1' at inner\.share"),
        ({"inner": {"share": 1.0}}, r"field 'size' is missing at inner\.size"),
        ({"inner": None}, "at inner"),
        ({"kind": "c"}, "expected one of 'a', 'b', got 'c' at kind"),
        ({"pair": [1.0]}, "at pair"),
        ({"pair": [1.0, "x"]}, r"at pair\[1\]"),
        ({"maybe": "x"}, "at maybe"),
        ({"more": 1}, "unknown field more"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change, saying):
    with pytest.raises(ValueError, match=saying):
        structure({**WHOLE, **change}, Outer)


def test_all_that_does_not_fit_is_named_at_once():
    with pytest.raises(ValueError, match="name.*kind.*more") as caught:
        structure({**WHOLE, "name": 3, "kind": "c", "more": 1}, Outer)
    assert str(caught.value).count(";") == 2


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ({"kind": "lstm", "width": 8}, "expected a kind among 'transformer', 'hybrid', got 'lstm' at text"),
        ({"width": 8}, "got None at text"),
        ([1], r"expected a mapping with a kind \('transformer', 'hybrid'\), got \[1\] at text"),
        ({"kind": "hybrid", "width": 8, "causal": True}, "unknown field causal at text"),
    ],
)
def test_records_of_a_union_are_told_apart_by_their_kind(text, saying):
    model = unstructure(VARIANTS["mobileclip_s0"].model)
    with pytest.raises(ValueError, match=saying):
        structure({**model, "text": text}, ClipConfig)


@pytest.mark.parametrize("value", [None, 3, "text", [], [1]])
def test_what_is_no_mapping_is_told(value):
    with pytest.raises(ValueError, match="Outer"):
        structure(value, Outer)
