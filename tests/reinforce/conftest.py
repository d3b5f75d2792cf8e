from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.teachers.plain_teachers import SOURCE, PlainTeacher

from pocketclip.reinforce import ReinforceConfig
from pocketclip.teachers import TeacherSpec

HERE = Path(__file__).parents[1] / "teachers"


@pytest.fixture
def small_and_large() -> list[PlainTeacher]:
    """Two teachers of different input sizes."""
    return [PlainTeacher("small", image_px=16), PlainTeacher("larger", image_px=28, width=9)]


@pytest.fixture
def plain_config(monkeypatch) -> ReinforceConfig:
    """Two teachers that cost nothing, two views; other processes find them too, by PYTHONPATH."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{':'.join(path for path in sys.path if path)}")
    teachers = tuple(TeacherSpec(name=name, source=SOURCE) for name in ("even", "odd"))
    return ReinforceConfig(teachers=teachers, num_views=2, batch_size=8, num_threads=1)
