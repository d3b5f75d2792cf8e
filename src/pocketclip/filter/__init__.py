"""Filtering: scores of image-text pairs, and what of a pool is kept by them."""

from __future__ import annotations

from pocketclip.filter.baselines import BASELINES, Baseline
from pocketclip.filter.config import (
    ClusterFile,
    Duplicates,
    FilterConfig,
    ScoreConfig,
    Top,
    parse_clusters,
    parse_duplicates,
    parse_top,
)
from pocketclip.filter.decide import Decision, Step
from pocketclip.filter.keep import filter_pool
from pocketclip.filter.rules import Rule, parse_rule
from pocketclip.filter.run import score
from pocketclip.filter.scores import Pool

__all__ = [
    "BASELINES",
    "Baseline",
    "ClusterFile",
    "Decision",
    "Duplicates",
    "FilterConfig",
    "Pool",
    "Rule",
    "ScoreConfig",
    "Step",
    "Top",
    "filter_pool",
    "parse_clusters",
    "parse_duplicates",
    "parse_rule",
    "parse_top",
    "score",
]
