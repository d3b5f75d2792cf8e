"""The dataset doctor: what is wrong with a shard set, a page of it, and the set without it."""

from __future__ import annotations

from pocketclip.search.doctor.clean import check_cleanable, write_clean
from pocketclip.search.doctor.examine import Diagnosis, DoctorConfig, examine

__all__ = ["Diagnosis", "DoctorConfig", "check_cleanable", "examine", "write_clean"]
