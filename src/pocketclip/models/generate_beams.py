"""Beam search, and diverse beam search in groups (Vijayakumar et al., arXiv 1610.02424, section 3).

A caption's score is the sum of its tokens' logarithms of probability over its length, the end counted, to the power of
the length penalty. A group keeps going until none of its beams can beat the captions that it has.

Shape suffixes: B pictures, G groups, K beams of a group, N = B * G * K rows, L tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from pocketclip.models.generate_choice import Rules, check_finite
from pocketclip.models.generate_steps import Steps


class _Beam(NamedTuple):
    """A partial caption: sum of logarithms, tokens, and the row of the last step that it goes on from."""

    total: float
    tokens: list[int]
    row: int


@dataclass(kw_only=True)
class _Group:
    """One group of one picture: its first row, its beams, and the captions that it has finished, best first."""

    row: int
    beams: list[_Beam]
    finished: list[tuple[float, list[int]]] = field(default_factory=list)
    is_done: bool = False

    def finish(self, score: float, tokens: list[int], *, most: int) -> None:
        """Takes a caption in where it is among the best."""
        self.finished = sorted([*self.finished, (score, tokens)], key=lambda one: -one[0])[:most]


def search(
    steps: Steps,
    rules: Rules,
    *,
    pictures: int,
    beams: int,
    groups: int,
    diversity_penalty: float,
    length_penalty: float,
    max_length: int,
    num_captions: int,
) -> list[list[list[int]]]:
    """The best captions that a search finds, as ids without start and end.

    Args:
        steps: with `beams` rows a picture, neighbours.
        rules: what may be written.
        pictures: B.
        beams: of a picture, all groups together.
        groups: that search one after the other at each place.
        diversity_penalty: see `Style`.
        length_penalty: see `Style`.
        max_length: tokens of a caption at most; one that has no end by then counts as it is.
        num_captions: of each picture, the best of every group before the second best of any.
    """
    size = beams // groups
    firsts = torch.arange(pictures * groups).mul(size).view(pictures, groups).tolist()
    found = [[_Group(row=row, beams=[_Beam(0.0, [], row)]) for row in firsts_G] for firsts_G in firsts]
    going = list(range(pictures))
    token_N = torch.full((pictures * beams,), rules.start, dtype=torch.int64)
    written_NL = torch.empty(pictures * beams, 0, dtype=torch.int64)
    for length in range(1, max_length + 1):
        logits_NV = steps.step(token_N)
        check_finite(logits_NV, picture_N=torch.tensor(going).repeat_interleave(beams))
        rules.apply(logits_NV, written_NL)
        logs_NV = logits_NV.log_softmax(dim=-1)
        for picture in going:
            _extend(
                found[picture],
                logs_NV,
                end=rules.end,
                size=size,
                diversity_penalty=diversity_penalty,
                scale=length**length_penalty,
            )
            _close(found[picture], size=size, length=length, max_length=max_length, power=length_penalty)
        going = [picture for picture in going if not all(group.is_done for group in found[picture])]
        if not going:
            break
        left = [group for picture in going for group in found[picture]]
        rows = [beam for group in left for beam in _rows(group, size=size, written=[rules.end] * length)]
        steps.keep(torch.tensor([beam.row for beam in rows]))
        written_NL = torch.tensor([beam.tokens for beam in rows])
        token_N = written_NL[:, -1]
        _renumber(left, size=size)
    return [_best(groups_, num_captions) for groups_ in found]


def _extend(
    groups: list[_Group],
    logs_NV: Tensor,
    *,
    end: int,
    size: int,
    diversity_penalty: float,
    scale: float,
) -> None:
    """Every group of a picture takes its best next tokens, later ones not those of earlier ones."""
    taken: list[int] = []
    for group in groups:
        if group.is_done:
            continue
        total_KV = torch.tensor([[beam.total] for beam in group.beams], device=logs_NV.device)
        total_KV = total_KV + logs_NV[[beam.row for beam in group.beams]]
        ranked_KV = total_KV
        if taken and diversity_penalty:
            times_V = torch.bincount(torch.tensor(taken), minlength=logs_NV.shape[1]).to(logs_NV.device)
            ranked_KV = total_KV - diversity_penalty * times_V
        place = ranked_KV.flatten().topk(min(2 * size, ranked_KV.numel())).indices
        totals = total_KV.flatten()[place].tolist()
        beams, group.beams = group.beams, []
        for rank, (total, at) in enumerate(zip(totals, place.tolist(), strict=True)):
            beam, token = beams[at // logs_NV.shape[1]], at % logs_NV.shape[1]
            if math.isinf(total) or len(group.beams) == size:
                continue
            if token != end:
                group.beams.append(_Beam(total, [*beam.tokens, token], beam.row))
            elif rank < size:
                group.finish(total / scale, beam.tokens, most=size)
        taken += [beam.tokens[-1] for beam in group.beams]


def _close(groups: list[_Group], *, size: int, length: int, max_length: int, power: float) -> None:
    """Ends the groups whose beams cannot beat what they have, or may not go on."""
    for group in groups:
        if group.is_done:
            continue
        if length == max_length:
            for beam in group.beams:
                group.finish(beam.total / length**power, beam.tokens, most=size)
            group.is_done = True
        elif not group.beams:
            group.is_done = True
        elif len(group.finished) == size:
            longest = max_length if power > 0 else length + 1
            best = max(beam.total for beam in group.beams)
            group.is_done = group.finished[-1][0] >= best / longest**power


def _rows(group: _Group, *, size: int, written: list[int]) -> list[_Beam]:
    """As many as a group has; one that is done, or has fewer beams, runs the others for nothing."""
    idle = _Beam(-math.inf, written, group.row)
    beams = [] if group.is_done else group.beams
    return beams + [beams[0] if beams else idle] * (size - len(beams))


def _renumber(groups: list[_Group], *, size: int) -> None:
    for index, group in enumerate(groups):
        group.row = index * size
        group.beams = [beam._replace(row=group.row + k) for k, beam in enumerate(group.beams)]


def _best(groups: list[_Group], num: int) -> list[list[int]]:
    """The best of every group, best first, then the second ones, and so on."""
    ranked = [
        (place, -score, tokens) for group in groups for place, (score, tokens) in enumerate(group.finished)
    ]
    return [tokens for _, _, tokens in sorted(ranked, key=lambda one: one[:2])[:num]]
