"""What is wrong with named tensors: missing, surplus, of another shape or type, all told at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

_MOST = 8  # names of each kind that a sentence holds


def misfits(
    found: Mapping[str, Tensor], *, expected: Mapping[str, Tensor], any_float: bool = False
) -> list[str]:
    """What is wrong with each tensor of `found`, in words; empty when all fit.

    Args:
        found: tensors of any shape, by name.
        expected: tensors of the right shape and type (meta ones will do), by name.
        any_float: whether float16, bfloat16, float32 and float64 stand for each other.
    """
    wrong = [f"missing {name}" for name in expected if name not in found]
    wrong += [f"surplus {name}" for name in found if name not in expected]
    for name in sorted(found.keys() & expected.keys()):
        one, wanted = found[name], expected[name]
        both_float = any_float and one.is_floating_point() and wanted.is_floating_point()
        if one.shape != wanted.shape:
            wrong.append(f"{name} is {list(one.shape)}, expected {list(wanted.shape)}")
        elif one.dtype != wanted.dtype and not both_float:
            wrong.append(f"{name} is {one.dtype}, expected {wanted.dtype}")
    return wrong


def listed(wrong: Sequence[str]) -> str:
    """`misfits` as part of a sentence: the first of each kind, then how many more there are."""
    kinds: dict[str, list[str]] = {}
    for problem in wrong:
        first = problem.split(" ", 1)[0]
        kinds.setdefault(first if first in ("missing", "surplus") else "", []).append(problem)
    named = [problem for problems in kinds.values() for problem in problems[:_MOST]]
    left = len(wrong) - len(named)
    return "; ".join(named) + (f"; and {left} more" if left else "")
