"""A complete training run as a record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pocketclip.data.stream import StreamConfig
from pocketclip.fit import LoopConfig, OptimConfig
from pocketclip.train.objective import ObjectiveConfig

Freeze = Literal["nothing", "image", "text", "all-but-heads"]


@dataclass(frozen=True, kw_only=True)
class OnlineSpec:
    """A teacher that runs beside the student; its embeddings are made anew for every batch and stored nowhere.

    Attributes:
        name: in the ensemble.
        source: what it is, as `pocketclip reinforce --teacher` takes it.
        logit_scale: the inverse temperature to distil it at; None takes the one it learned.
    """

    name: str
    source: str
    logit_scale: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A complete run.

    Attributes:
        name: of the recipe.
        variant: of the model; None takes what `start` holds.
        start: weights to begin with, anything that `pocketclip.load` takes; None for random ones.
        freeze: what keeps its weights: the image tower (locked-image tuning, arXiv 2111.07991), the text tower, or
            all but the last linear map of each tower and the logit scale. Frozen towers run as in evaluation.
        seed: of the initial weights and everything drawn in the towers.
        split: of the data folder.
        stream: samples to batches. Its `image_px`, where given, also makes the model one for pictures of that size.
        global_batch: samples of a step, shared out among the processes; each computes at most `stream.batch_size` of
            them at a time, with the loss of all. None takes `stream.batch_size` from each process.
        context_length: most tokens of a text; None keeps the model's own.
        gradient_checkpointing: compute activations again in the backward pass, for memory.
        objective: the loss and its weights.
        online: teachers that run beside the student, joined with stored ones where the stream replays these.
        optim: optimizer and schedule.
        loop: lengths and intervals.
        device: where to train.
    """

    name: str
    variant: str | None = None
    start: str | None = None
    freeze: Freeze = "nothing"
    seed: int = 0
    split: str = "train"
    stream: StreamConfig
    global_batch: int | None = None
    context_length: int | None = None
    gradient_checkpointing: bool = False
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    online: tuple[OnlineSpec, ...] = ()
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig
    device: Literal["cpu", "cuda", "mps"] = "cpu"

    def __post_init__(self) -> None:
        if self.variant is None and self.start is None:
            raise ValueError("a run needs a model: set variant, or start to go on from a checkpoint")
        if self.freeze != "nothing" and self.start is None:
            raise ValueError(f"freeze {self.freeze} would keep random weights: set start to a checkpoint")
        if self.objective.distill_weight > 0.0 and not (self.stream.replay or self.online):
            raise ValueError(
                "objective.distill_weight needs the teachers' embeddings of reinforced shards: set stream.replay, "
                "or name teachers that run beside the student"
            )
        if self.online and self.objective.distill_weight == 0.0:
            raise ValueError("teachers beside the student would teach nothing: set objective.distill_weight")
        if len({spec.name for spec in self.online}) < len(self.online):
            raise ValueError(f"teachers need different names, got {[spec.name for spec in self.online]}")
        if self.objective.synthetic_weight > 0.0 and self.stream.synthetic is None:
            raise ValueError(
                "objective.synthetic_weight needs synthetic captions: set stream.synthetic to the captioners' names, "
                "a regular expression ('.*' for all)"
            )
        if self.stream.synthetic_share is not None and self.objective.synthetic_weight > 0.0:
            raise ValueError(
                "stream.synthetic_share puts synthetic captions in the place of the samples' own: "
                "objective.synthetic_weight must be 0, or leave the share out"
            )
        if self.global_batch is not None and (self.global_batch < 1 or self.loop.parts > 1):
            raise ValueError(
                "global_batch must be at least 1, and decides itself on loop.parts: leave that 1"
            )

    def samples_per_step(self, num_processes: int = 1) -> int:
        """Samples of a step of all processes together."""
        return self.global_batch or num_processes * self.stream.batch_size

    def shared_out(self, num_processes: int) -> TrainConfig:
        """The same run as each of several processes sees it, its batch and parts worked out.

        Raises:
            ValueError: `global_batch` cannot be shared out evenly.
        """
        if self.global_batch is None:
            return self
        own, rest = divmod(self.global_batch, num_processes)
        if rest:
            raise ValueError(
                f"global_batch {self.global_batch} cannot be shared out among {num_processes} processes: take a "
                "multiple of their number"
            )
        parts = -(-own // self.stream.batch_size)
        return replace(
            self,
            global_batch=None,
            stream=replace(self.stream, batch_size=own),
            loop=replace(self.loop, parts=parts),
        )
