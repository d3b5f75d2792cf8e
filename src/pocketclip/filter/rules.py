"""Rules: what a row's own columns must say for it to be kept, and what is counted of them."""

# Shape suffixes: N rows of a chunk, K centroids, D dimensions.

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pocketclip.filter.language import UNKNOWN, code_number

Operator = Literal[">=", "<=", "!=", ">", "<", "="]
_TEXT = re.compile(r"\s*([\w/.-]+)\s*(>=|<=|!=|>|<|=)\s*([^<>=!\s].*?)\s*")
_ORDER: Mapping[str, Callable[[np.ndarray, np.float64], np.ndarray]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

DERIVED: Mapping[str, tuple[str, ...]] = {
    "min_side": ("width", "height"),
    "max_side": ("width", "height"),
    "aspect": ("width", "height"),
    "pixels": ("width", "height"),
}
"""Columns that are worked out of others: the shorter and the longer side, their ratio (1 and more), the area."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition on one column; a row that does not meet it is dropped.

    Attributes:
        column: a column of the score files, or one of `DERIVED`.
        op: how it is compared.
        values: with what: one number; for = and != any of several, which are languages' codes for `language`.
    """

    column: str
    op: Operator
    values: tuple[float | str, ...]

    def __post_init__(self) -> None:
        if self.op not in get_args(Operator):
            raise ValueError(f"rule {self.name}: {self.op!r} is none of {', '.join(get_args(Operator))}")
        if not self.values or (len(self.values) > 1 and self.op not in ("=", "!=")):
            raise ValueError(f"rule {self.name}: {self.op} takes one value")
        is_language = self.column == "language"
        if is_language and self.op not in ("=", "!="):
            raise ValueError(f"rule {self.name}: languages are compared by = and != alone")
        if any(isinstance(value, str) != is_language for value in self.values):
            raise ValueError(f"rule {self.name}: {'codes' if is_language else 'numbers'} are compared here")

    @property
    def name(self) -> str:
        """As it is written."""
        values = [value if isinstance(value, str) else f"{value:g}" for value in self.values]
        return f"{self.column}{self.op}{','.join(values)}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of the score files that it reads."""
        return DERIVED.get(self.column, (self.column,))

    def keeps(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether each row meets it, bool [N].

        A row without the value (a score that could not be made) does not; but where the value is a number of the
        sample's own details (`meta/`) that only some have, it does.
        """
        values_N = derived(self.column, columns)
        if self.op in _ORDER:
            number = self.values[0]
            assert isinstance(number, float)
            kept_N = _ORDER[self.op](values_N, np.float64(number))
        else:
            wanted = [code_number(v) if isinstance(v, str) else v for v in self.values]
            kept_N = np.isin(values_N, np.array(wanted, np.float64)) == (self.op == "=")
        missing_N = np.isnan(values_N)
        return np.where(missing_N, self.column.startswith("meta/"), kept_N)


def parse_rule(text: str) -> Rule:
    """`COLUMN OP VALUE`: `chars>=6`, `aspect<=3`, `language=en,de`, `score/l14>=0.28`, `meta/punsafe<0.5`.

    Raises:
        ValueError: it is of another form.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"rule {text!r} is not of the form COLUMN>=VALUE (or <=, >, <, =, !=)")
    column, op, value = match.groups()
    parts = [part.strip() for part in value.split(",")]
    try:
        values = tuple(part if column == "language" else float(part) for part in parts)
    except ValueError:
        raise ValueError(f"rule {text!r}: {value!r} is no number") from None
    if column == "language" and any(not re.fullmatch("[a-z]{2,4}", part) for part in parts):
        raise ValueError(
            f"rule {text!r}: languages are codes of two letters, of four for scripts, or {UNKNOWN}"
        )
    return Rule(column=column, op=op, values=values)  # ty: ignore[invalid-argument-type]


def derived(name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """A column as numbers to compare, float64 [N]; not a number where a picture has no size."""
    if name not in DERIVED:
        return columns[name].astype(np.float64)
    width_N, height_N = (columns[side].astype(np.float64) for side in ("width", "height"))
    short_N, long_N = np.minimum(width_N, height_N), np.maximum(width_N, height_N)
    known_N = short_N > 0
    match name:
        case "min_side":
            values_N = short_N
        case "max_side":
            values_N = long_N
        case "pixels":
            values_N = short_N * long_N
        case _:
            values_N = long_N / np.where(known_N, short_N, 1)
    return np.where(known_N, values_N, np.nan)


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Groups of pictures, some of which are wanted: DataComp's image-based filtering.

    Attributes:
        centroids_KD: float32, of length 1.
        wanted: numbers of the wanted ones.
    """

    centroids_KD: np.ndarray
    wanted: frozenset[int]

    def keeps(self, image_ND: np.ndarray) -> np.ndarray:
        """Whether the nearest centroid of each picture is wanted, bool [N]; no embedding is near to none."""
        nearest_N = (image_ND @ self.centroids_KD.T).argmax(axis=1)
        return np.isin(nearest_N, sorted(self.wanted)) & (image_ND != 0).any(axis=1)
