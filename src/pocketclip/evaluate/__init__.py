"""Evaluate: models and pictures in, metrics with intervals out, on public sets and on one's own."""

from pocketclip.evaluate.bootstrap import Interval
from pocketclip.evaluate.during import make_evaluator
from pocketclip.evaluate.embedder import Embedder
from pocketclip.evaluate.results import EvaluateConfig, ModelFacts, Report, Result, SplitFacts
from pocketclip.evaluate.rows import Average, Row, average, average_38, read_rows, write_rows
from pocketclip.evaluate.run import evaluate
from pocketclip.evaluate.suite import SuiteConfig, SuiteReport, evaluate_tasks
from pocketclip.evaluate.tasks import TASKS, Task, find_tasks

__all__ = [
    "TASKS",
    "Average",
    "Embedder",
    "EvaluateConfig",
    "Interval",
    "ModelFacts",
    "Report",
    "Result",
    "Row",
    "SplitFacts",
    "SuiteConfig",
    "SuiteReport",
    "Task",
    "average",
    "average_38",
    "evaluate",
    "evaluate_tasks",
    "find_tasks",
    "make_evaluator",
    "read_rows",
    "write_rows",
]
