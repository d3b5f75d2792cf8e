"""The three questions the test sets ask, as properties of any set of emoji."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.pack.emoji_names import load_names, parse_codepoints
from pocketclip.pack.emoji_split import (
    SPLITS,
    Drawing,
    SplitConfig,
    assign_splits,
    choose_concepts,
    family_of,
    is_composed,
    parts_of,
)

pytest.importorskip("emoji", reason="needs the extra demo")

STYLES = ("round", "square")
CONCEPTS = sorted(load_names(("en",)))
MUCH = SplitConfig(unseen=0.2, composition=0.4, composition_pairs=0.2, style=0.2, validation=0.2)


def by_split(splits):
    return {name: {drawing for drawing, split in splits.items() if split == name} for name in SPLITS}


def check_questions(splits, twins=()):
    """What the names of the splits promise."""
    sets = by_split(splits)
    in_train = {drawing.concept for drawing in sets["train"]}
    families = {family_of(concept) for concept in in_train}
    parts = {part for concept in in_train for part in parts_of(concept)}
    for drawing in sets["test-unseen"]:
        assert family_of(drawing.concept) not in families
    for concept in {drawing.concept for drawing in sets["test-composition"]}:
        assert is_composed(concept)
        assert {splits[Drawing(concept, style)] for style in STYLES} == {"test-composition"}
        assert family_of(concept) in families
        assert parts_of(concept) <= parts
    for name in ("test-style", "validation"):
        for concept, style in sets[name]:
            others = [splits[Drawing(concept, other)] for other in STYLES if other != style]
            assert others == ["train"]
    for group in twins:
        for style in STYLES:
            assert len({splits[Drawing(concept, style)] for concept in group}) == 1


@st.composite
def concepts_and_twins(draw):
    concepts = draw(st.lists(st.sampled_from(CONCEPTS), min_size=1, max_size=300, unique=True))
    pairs = st.tuples(st.sampled_from(concepts), st.sampled_from(concepts))
    return concepts, draw(st.lists(pairs, max_size=8))


@settings(deadline=None, max_examples=60)
@given(concepts_and_twins(), st.text(max_size=5))
def test_the_questions_hold_for_any_emoji_twins_and_salt(content, salt):
    concepts, twins = content
    config = SplitConfig(
        salt=salt, unseen=0.2, composition=0.4, composition_pairs=0.2, style=0.2, validation=0.2
    )
    splits = assign_splits(concepts, styles=STYLES, twins=twins, config=config)
    assert set(splits) == {Drawing(concept, style) for concept in concepts for style in STYLES}
    check_questions(splits, twins)


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False))
def test_order_does_not_matter(rng):
    concepts = CONCEPTS[::10]
    twins = [[concepts[1], concepts[2]], [concepts[2], concepts[9]]]
    expected = assign_splits(concepts, styles=STYLES, twins=twins, config=MUCH)
    rng.shuffle(concepts)
    rng.shuffle(twins)
    for group in twins:
        rng.shuffle(group)
    assert assign_splits(concepts, styles=STYLES, twins=twins, config=MUCH) == expected


def test_the_defaults_ask_every_question_often_enough():
    splits = assign_splits(CONCEPTS, styles=STYLES, config=SplitConfig())
    check_questions(splits)
    counts = {name: len(drawings) for name, drawings in by_split(splits).items()}
    assert 300 <= counts["test-style"] <= 450
    assert 300 <= counts["test-composition"] <= 450
    assert 250 <= counts["test-unseen"] <= 400
    assert 200 <= counts["validation"] <= 300
    styles = [drawing.style for drawing in by_split(splits)["test-style"]]
    assert 0.4 < styles.count("round") / len(styles) < 0.6


def test_most_emoji_keep_their_split_when_some_are_added():
    half = assign_splits(CONCEPTS[::2], styles=STYLES, config=SplitConfig())
    whole = assign_splits(CONCEPTS, styles=STYLES, config=SplitConfig())
    moved = [drawing for drawing, split in half.items() if whole[drawing] != split]
    assert len(moved) < 0.03 * len(half)


@pytest.mark.parametrize(
    ("stems", "family"),
    [
        (["1f469-1f3ff-200d-1f692", "1f468-200d-1f692", "1f9d1-1f3fb-200d-1f692"], "1f9d1-200d-1f692"),
        (["1f3ca", "1f3ca-1f3fe-200d-2640-fe0f", "1f3ca-200d-2642"], "1f3ca"),
        (["1f491-1f3fb", "1f469-1f3ff-200d-2764-200d-1f468-1f3fe"], "1f491"),
        (["1f6b6-200d-2640-200d-27a1", "1f6b6-1f3fb-200d-27a1", "1f6b6"], "1f6b6"),
        (["1f385", "1f936-1f3fb", "1f9d1-200d-1f384"], "1f9d1-200d-1f384"),
        (["1f46b", "1f469-1f3fb-200d-1f91d-200d-1f469-1f3ff"], "1f9d1-200d-1f91d-200d-1f9d1"),
        (["2640"], "2640"),  # the sign alone is no gender of something else
        (["27a1"], "27a1"),
        (["1f3ff"], "1f3ff"),
    ],
)
def test_families_are_without_tone_gender_and_direction(stems, family):
    assert {family_of(parse_codepoints(stem)) for stem in stems} == {parse_codepoints(family)}


def test_limits_choose_whole_families():
    chosen = choose_concepts(CONCEPTS, limit=400, salt="a")
    assert 300 <= len(chosen) <= 400
    families = {family_of(concept) for concept in chosen}
    assert {concept for concept in CONCEPTS if family_of(concept) in families} == set(chosen)
    assert choose_concepts(CONCEPTS, limit=400, salt="b") != chosen
    assert choose_concepts(CONCEPTS, limit=None, salt="a") == tuple(CONCEPTS)
