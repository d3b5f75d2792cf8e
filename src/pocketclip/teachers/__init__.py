"""Teachers and captioners: what gives a data set its embeddings and synthetic captions, wherever it comes from."""

from __future__ import annotations

from pocketclip.teachers.captioner import Captioner, CaptionerSpec, build_captioner
from pocketclip.teachers.teacher import EncodeError, Precision, Teacher, TeacherSpec, build_teacher

__all__ = [
    "Captioner",
    "CaptionerSpec",
    "EncodeError",
    "Precision",
    "Teacher",
    "TeacherSpec",
    "build_captioner",
    "build_teacher",
]
