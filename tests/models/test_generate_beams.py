"""Beam search: with enough beams it finds the best caption of all; with few it is the textbook's; groups differ."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from pocketclip.models.generate_beams import search
from pocketclip.models.generate_choice import Rules

START, END, V = 4, 5, 6
WORDS = (0, 1, 2, 3)


class Toy:
    """`Steps` whose logits are a table of what was written: any function of picture and prefix."""

    def __init__(self, *, pictures: int, rows_each: int, seed: int = 0) -> None:
        self.prefixes = [(picture,) for picture in range(pictures) for _ in range(rows_each)]
        self.seed = seed

    def step(self, token_N):
        self.prefixes = [
            (*prefix, token) for prefix, token in zip(self.prefixes, token_N.tolist(), strict=True)
        ]
        return torch.stack([self.logits(prefix) for prefix in self.prefixes])

    def keep(self, row_N):
        self.prefixes = [self.prefixes[row] for row in row_N.tolist()]

    def logits(self, prefix):
        number = sum((token + 1) * 7**place for place, token in enumerate(prefix))
        return torch.randn(V, generator=torch.Generator().manual_seed(self.seed * 10**6 + number)) * 2


RULES = Rules(start=START, end=END, never=(START,))


def score(toy, picture, tokens, *, power, max_length, rules=RULES):
    """Of a caption: the sum of logarithms over its length, the end counted unless it was cut."""
    total, prefix, written = 0.0, (picture, START), []
    for token in tokens if len(tokens) == max_length else [*tokens, END]:
        logits = toy.logits(prefix)[None].clone()
        rules.apply(logits, torch.tensor([written], dtype=torch.int64))
        total += logits.log_softmax(-1)[0, token].item()
        prefix, written = (*prefix, token), [*written, token]
    return total / len(written) ** power


def run(seed=0, *, pictures=2, beams=4, groups=1, num=1, length=4, power=1.0, penalty=0.0, rules=RULES):
    toy = Toy(pictures=pictures, rows_each=beams, seed=seed)
    return search(
        toy,
        rules,
        pictures=pictures,
        beams=beams,
        groups=groups,
        diversity_penalty=penalty,
        length_penalty=power,
        max_length=length,
        num_captions=num,
    )


@pytest.mark.parametrize("power", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("rules", [RULES, Rules(start=START, end=END, never=(START,), min_length=2)])
def test_with_enough_beams_the_best_of_all_captions_is_found(power, rules):
    length = 3
    captions = [
        list(words)
        for size in range(rules.min_length, length + 1)
        for words in itertools.product(WORDS, repeat=size)
    ]
    found = run(seed=3, beams=len(WORDS) ** length, num=5, length=length, power=power, rules=rules)
    toy = Toy(pictures=2, rows_each=1, seed=3)
    for picture in range(2):
        ranked = sorted(
            captions,
            key=lambda tokens, picture=picture: (
                -score(toy, picture, tokens, power=power, max_length=length, rules=rules)
            ),
        )
        assert found[picture] == ranked[:5]


def textbook(toy, picture, *, beams, length, power):
    """Beam search in plain Python: all continuations, the best of them, nothing ever given up early."""
    alive, finished = [(0.0, [])], []
    for place in range(1, length + 1):
        options = []
        for total, written in alive:
            logs = toy.logits((picture, START, *written)).clone()
            logs[START] = -torch.inf
            options += [
                (total + value, [*written, token])
                for token, value in enumerate(logs.log_softmax(-1).tolist())
                if not math.isinf(value)
            ]
        options = sorted(options, key=lambda one: -one[0])
        best = options[: 2 * beams]
        finished += [
            (total / place**power, tokens[:-1]) for total, tokens in best[:beams] if tokens[-1] == END
        ]
        alive = [one for one in best if one[1][-1] != END][:beams]
    finished += [(total / length**power, tokens) for total, tokens in alive]
    return [tokens for _, tokens in sorted(finished, key=lambda one: -one[0])]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_few_beams_search_as_the_textbook_does(seed, power):
    found = run(seed=seed, beams=3, num=3, length=6, power=power)
    toy = Toy(pictures=2, rows_each=1, seed=seed)
    for picture in range(2):
        expected = textbook(toy, picture, beams=3, length=6, power=power)
        assert found[picture] == expected[: len(found[picture])]
        assert found[picture]


def test_a_picture_does_not_depend_on_its_neighbours():
    together = run(seed=1, pictures=4, beams=3, num=3, length=6)
    alone = run(seed=1, pictures=1, beams=3, num=3, length=6)
    assert together[0] == alone[0]
    assert len({str(captions) for captions in together}) == 4


def test_groups_that_are_not_kept_apart_find_the_same_and_apart_they_differ():
    alike = run(seed=2, beams=6, groups=3, num=3, length=5, penalty=0.0)
    for captions in alike:
        assert captions[0] == captions[1] == captions[2]
    words = Rules(start=START, end=END, never=(START,), min_length=5)
    apart = run(seed=2, beams=3, groups=3, num=3, length=5, penalty=100.0, rules=words)
    for captions in apart:
        assert [len(set(tokens)) for tokens in zip(*captions, strict=True)] == [3] * 5  # at every place
    some = run(seed=2, beams=6, groups=3, num=3, length=5, penalty=0.5)
    assert [captions[0] for captions in some] == [
        captions[0] for captions in alike
    ]  # the first group is free


def test_rules_hold_in_a_search():
    rules = Rules(start=START, end=END, never=(0, START), min_length=4, no_repeat_ngram=1)
    for captions in run(beams=4, num=4, length=6, rules=rules):
        for tokens in captions:
            assert len(tokens) >= 3  # three words there are, and then nothing is left
            assert len(set(tokens)) == len(tokens)
            assert not {0, START, END} & set(tokens)
