"""Evaluate: checkpoints and packed pictures in, a report with intervals out."""

from pocketclip.evaluate.bootstrap import Interval
from pocketclip.evaluate.during import make_evaluator
from pocketclip.evaluate.embedder import Embedder
from pocketclip.evaluate.results import EvaluateConfig, ModelFacts, Report, Result, SplitFacts
from pocketclip.evaluate.run import evaluate

__all__ = [
    "Embedder",
    "EvaluateConfig",
    "Interval",
    "ModelFacts",
    "Report",
    "Result",
    "SplitFacts",
    "evaluate",
    "make_evaluator",
]
