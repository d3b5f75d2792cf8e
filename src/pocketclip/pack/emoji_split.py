"""Which emoji go where: three test sets that ask three questions, by hashes alone.

- *unseen*: families (an emoji in all its skin tones and genders) that training never meets.
- *composition*: combinations that training never meets, of parts that it does.
- *style*: emoji that training meets only as the other artist drew them; *validation* asks the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pocketclip.data.foreign.candidate import unit_hash
from pocketclip.pack.emoji_names import (
    FEMALE_SIGN,
    JOINER,
    KEYCAP,
    MALE_SIGN,
    TONES,
    Codepoints,
    format_codepoints,
    is_flag,
)

SPLITS = ("train", "validation", "test-style", "test-composition", "test-unseen")

_RIGHT_ARROW = 0x27A1  # "facing right"
_PERSON, _CHILD, _OLDER, _CROWN = 0x1F9D1, 0x1F9D2, 0x1F9D3, 0x1FAC5
_NEUTRAL = {
    0x1F468: _PERSON,
    0x1F469: _PERSON,
    0x1F466: _CHILD,
    0x1F467: _CHILD,
    0x1F474: _OLDER,
    0x1F475: _OLDER,
    0x1F934: _CROWN,
    0x1F478: _CROWN,
}
# Sequences that draw what one code point draws: with other tones or genders only.
_SAME_FAMILY: Mapping[Codepoints, Codepoints] = {
    (_PERSON, JOINER, 0x2764, JOINER, _PERSON): (0x1F491,),  # couple with heart
    (_PERSON, JOINER, 0x2764, JOINER, 0x1F48B, JOINER, _PERSON): (0x1F48F,),  # kiss
    (_PERSON, JOINER, 0x1F430, JOINER, _PERSON): (0x1F46F,),  # bunny ears
    (_PERSON, JOINER, 0x1FAEF, JOINER, _PERSON): (0x1F93C,),  # wrestling
    (0x1FAF1, JOINER, 0x1FAF2): (0x1F91D,),  # handshake
    (0x1F46B,): (_PERSON, JOINER, 0x1F91D, JOINER, _PERSON),  # holding hands
    (0x1F46C,): (_PERSON, JOINER, 0x1F91D, JOINER, _PERSON),
    (0x1F46D,): (_PERSON, JOINER, 0x1F91D, JOINER, _PERSON),
    (0x1F385,): (_PERSON, JOINER, 0x1F384),  # Santa Claus, Mrs. Claus
    (0x1F936,): (_PERSON, JOINER, 0x1F384),
    (0x1F57A,): (0x1F483,),  # dancing
}


class Drawing(NamedTuple):
    """A concept in one style: one picture."""

    concept: Codepoints
    style: str

    @property
    def key(self) -> str:
        """Of its sample."""
        return f"{self.style}-{format_codepoints(self.concept)}"


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How much goes where.

    Attributes:
        salt: other salts draw other splits.
        unseen: fraction of families held out whole.
        composition: fraction of multi-part emoji held out in both styles.
        composition_pairs: the same for emoji of two toned people, of which there are very many alike.
        style: fraction of the other emoji that training meets in one style only.
        validation: the same, for validation.
        max_family: larger families are never held out whole (one would fill the test set).
    """

    salt: str = "pocketclip"
    unseen: float = 0.045
    composition: float = 0.1
    composition_pairs: float = 0.04
    style: float = 0.1
    validation: float = 0.065
    max_family: int = 18


def family_of(codepoints: Codepoints) -> Codepoints:
    """The emoji without skin tones, gender and direction: "woman firefighter: dark skin tone" -> firefighter."""
    kept = [_NEUTRAL.get(c, c) for c in codepoints if c not in TONES] or list(codepoints)
    for sign in (FEMALE_SIGN, MALE_SIGN, _RIGHT_ARROW):
        while len(kept) > 2 and sign in kept[1:]:
            at = kept.index(sign, 1)
            del kept[at - 1 : at + 1]  # with the joiner before it
    family = tuple(kept)
    return _SAME_FAMILY.get(family, family)


def parts_of(codepoints: Codepoints) -> frozenset[int]:
    """The code points that mean something on their own: people, things, tones, genders."""
    return frozenset(c for c in codepoints if c != JOINER)


def is_composed(codepoints: Codepoints) -> bool:
    """Whether it is put together of parts (flags and keycaps are spelt, not composed)."""
    return len(parts_of(codepoints)) > 1 and not is_flag(codepoints) and codepoints[-1] != KEYCAP


def choose_concepts(
    concepts: Iterable[Codepoints], *, limit: int | None, salt: str
) -> tuple[Codepoints, ...]:
    """At most `limit` concepts, whole families at a time so that compositions keep their parts' company.

    Args:
        concepts: all of them.
        limit: None keeps all.
        salt: of the hash that orders the families.

    Returns:
        The chosen concepts, in order of their code points.
    """
    ordered = sorted(set(concepts))
    if limit is None:
        return tuple(ordered)
    families: dict[Codepoints, list[Codepoints]] = {}
    for concept in ordered:
        families.setdefault(family_of(concept), []).append(concept)
    chosen: list[Codepoints] = []
    for family in sorted(families, key=lambda f: unit_hash(salt, "choose", format_codepoints(f))):
        members = families[family]
        if len(members) <= max(1, limit // 8) and len(chosen) + len(members) <= limit:
            chosen += members
    return tuple(sorted(chosen))


def assign_splits(
    concepts: Iterable[Codepoints],
    *,
    styles: Sequence[str],
    twins: Iterable[Iterable[Codepoints]] = (),
    config: SplitConfig,
) -> dict[Drawing, str]:
    """The split of every drawing; a pure function of its arguments, in whatever order they come.

    Args:
        concepts: each drawn in every style.
        styles: their names.
        twins: groups of concepts that one artist drew as one and the same picture ("pilot", "man pilot").
            They share a split, or a test picture would be in training under another name.
        config: fractions and salt.

    Returns:
        drawing -> one of `SPLITS`.
    """
    ordered = sorted(set(concepts))
    alike = _Groups(ordered)
    clans = _Groups(ordered)  # families, and families that share a picture
    first_of_family: dict[Codepoints, Codepoints] = {}
    for concept in ordered:
        clans.join(concept, first_of_family.setdefault(family_of(concept), concept))
    for group in twins:
        first, *others = sorted(group)
        for other in others:
            alike.join(first, other)
            clans.join(first, other)
    roles: dict[Codepoints, str] = {}
    for group in alike.groups():
        clan = clans.members(group[0])
        roles |= dict.fromkeys(group, _draw_role(group, clan=clan, config=config))
    _return_orphans(roles, alike=alike, salt=config.salt)
    splits: dict[Drawing, str] = {}
    for concept in ordered:
        name = format_codepoints(alike.members(concept)[0])
        tested = styles[int(unit_hash(config.salt, "tested", name) * len(styles))]
        one_style = roles[concept] in ("test-style", "validation")
        for style in styles:
            held_out = style == tested or not one_style
            splits[Drawing(concept, style)] = roles[concept] if held_out else "train"
    return splits


def _draw_role(group: list[Codepoints], *, clan: list[Codepoints], config: SplitConfig) -> str:
    name, family = format_codepoints(group[0]), format_codepoints(min(map(family_of, clan)))
    if len(clan) <= config.max_family and unit_hash(config.salt, "unseen", family) < config.unseen:
        return "test-unseen"
    pair = sum(c in TONES for c in group[0]) > 1
    fraction = config.composition_pairs if pair else config.composition
    if all(map(is_composed, group)) and unit_hash(config.salt, "composition", name) < fraction:
        return "test-composition"
    draw = unit_hash(config.salt, "style", name)
    if draw < config.style:
        return "test-style"
    return "validation" if draw < config.style + config.validation else "train"


def _return_orphans(roles: dict[Codepoints, str], *, alike: _Groups, salt: str) -> None:
    """Moves to training every composition of which training would lack the family or a part."""
    families: set[Codepoints] = set()
    parts: set[int] = set()

    def learn(concept: Codepoints) -> None:
        families.add(family_of(concept))
        parts.update(parts_of(concept))

    held_out = [c for c, role in roles.items() if role == "test-composition"]
    for concept, role in roles.items():
        if role not in ("test-unseen", "test-composition"):
            learn(concept)
    for concept in sorted(held_out, key=lambda c: unit_hash(salt, "orphan", format_codepoints(c))):
        orphan = family_of(concept) not in families or not parts_of(concept) <= parts
        if orphan and roles[concept] == "test-composition":
            for twin in alike.members(concept):
                roles[twin] = "train"
                learn(twin)


class _Groups:
    """Groups of concepts that grow together (a union-find with members)."""

    def __init__(self, concepts: Iterable[Codepoints]) -> None:
        self._members = {concept: [concept] for concept in concepts}

    def join(self, one: Codepoints, other: Codepoints) -> None:
        a, b = self._members[one], self._members[other]
        if a is not b:
            a += b
            for concept in b:
                self._members[concept] = a

    def members(self, concept: Codepoints) -> list[Codepoints]:
        return sorted(self._members[concept])

    def groups(self) -> list[list[Codepoints]]:
        return [self.members(c) for c in self._members if c == min(self._members[c])]
