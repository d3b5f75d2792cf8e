from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketclip.filter import ScoreConfig, score
from pocketclip.teachers import TeacherSpec

HERE = Path(__file__).parents[1] / "teachers"


@pytest.fixture(scope="session")
def scored(shapes: Path, teachers: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of `shapes` by two untrained models, the embeddings of one of them kept. Do not change it."""
    out = tmp_path_factory.mktemp("scored") / "scores"
    specs = tuple(TeacherSpec(name=name, source=str(path)) for name, path in teachers.items())
    score(
        shapes,
        out,
        config=ScoreConfig(teachers=specs, embeddings=("vit",), splits=("train", "validation"), batch_size=7),
    )
    return out


@pytest.fixture
def plain_config(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScoreConfig]:
    """Two teachers that cost nothing; other processes find them too, by PYTHONPATH."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{':'.join(path for path in sys.path if path)}")

    def make(**options: object) -> ScoreConfig:
        from tests.teachers.plain_teachers import SOURCE

        teachers = tuple(TeacherSpec(name=name, source=SOURCE) for name in ("even", "odd"))
        return ScoreConfig(**{"teachers": teachers, "batch_size": 8, "num_threads": 1, **options})

    return make
