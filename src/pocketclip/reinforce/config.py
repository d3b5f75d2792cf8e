"""What a reinforcement is: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from pocketclip.data.augment import AugmentSpec
from pocketclip.data.codec import Codec
from pocketclip.teachers.captioner import CaptionerSpec
from pocketclip.teachers.teacher import Precision, TeacherSpec


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """A complete reinforcement: all that the output's bytes depend on, apart from the input.

    Attributes:
        teachers: the ensemble.
        captioners: write synthetic captions first, each under its name.
        num_views: augmentations of each picture.
        augment: what they are drawn from.
        codec: how embeddings are stored.
        seed: of the views.
        splits: of a packed input; others have "train" alone.
        batch_size: rows a teacher sees at once, and samples that are in memory at once.
        device: where the teachers run.
        precision: what they compute in.
        compiled: compile them with torch.compile.
        num_threads: of torch in each worker, at least 1; None takes what an earlier run of the same folder took, else
            torch's own number, shared among the workers of this machine. Sums depend on it, and so do the bytes.
        shard_samples: pictures that make a shard, where the input is a folder of pictures.
    """

    teachers: tuple[TeacherSpec, ...]
    captioners: tuple[CaptionerSpec, ...] = ()
    num_views: int = 5
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    codec: Codec = "bf16"
    seed: int = 0
    splits: tuple[str, ...] = ("train",)
    batch_size: int = 256
    device: str = "cpu"
    precision: Precision = "fp32"
    compiled: bool = False
    num_threads: int | None = None
    shard_samples: int = 1000

    def __post_init__(self) -> None:
        for what, specs in (("teachers", self.teachers), ("captioners", self.captioners)):
            names = [spec.name for spec in specs]
            if len(set(names)) < len(names) or (what == "teachers" and not names):
                least = "one or more " if what == "teachers" else ""
                raise ValueError(f"reinforcement needs {least}{what} of different names, got {names}")
        for name in ("num_views", "batch_size", "shard_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {self.num_threads}")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise ValueError(f"reinforcement needs one or more different splits, got {self.splits}")
