"""What every worker of a reinforcement does: it holds the teachers and captioners, and makes a shard of a unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pocketclip.checkpoint import structure
from pocketclip.data.codec_error import CodecError, pool
from pocketclip.data.sample import JsonValue
from pocketclip.engine import Facts, Job, OpenUnit, Verb
from pocketclip.reinforce.config import ReinforceConfig
from pocketclip.reinforce.shard import ShardFacts, reinforce_shard
from pocketclip.reinforce.views import ShardRequest
from pocketclip.teachers.captioner import Captioner, build_captioner
from pocketclip.teachers.teacher import Teacher, build_teacher


@dataclass(frozen=True, kw_only=True)
class ReinforceTask:
    """A reinforcement as the engine takes it. See `engine.Task`.

    Attributes:
        config: the reinforcement; `num_threads` is a number.
        num_loaders: threads that decode and augment.
    """

    config: ReinforceConfig
    num_loaders: int

    @property
    def num_threads(self) -> int:
        """See `Task`."""
        return self.config.num_threads or 1

    @property
    def device(self) -> str:
        """See `Task`."""
        return self.config.device

    def build(self) -> ShardMaker:
        """See `Task`. Raises what `build_teacher` and `build_captioner` do."""
        config = self.config
        teachers = [
            build_teacher(spec, device=config.device, precision=config.precision, compiled=config.compiled)
            for spec in config.teachers
        ]
        captioners = [
            build_captioner(spec, device=config.device, precision=config.precision)
            for spec in config.captioners
        ]
        return ShardMaker(self, teachers=teachers, captioners=captioners)


class ShardMaker:
    """Teachers and captioners at work. See `engine.Maker`.

    Args:
        task: what they do.
        teachers: the ensemble.
        captioners: write first.
    """

    def __init__(self, task: ReinforceTask, *, teachers: list[Teacher], captioners: list[Captioner]) -> None:
        self._task = task
        self._teachers = teachers
        self._captioners = captioners

    @property
    def described(self) -> dict[str, JsonValue]:
        """See `Maker`: `teachers` and `captioners`, and the `records` of teachers and `digests` of captioners."""
        return {
            "records": [asdict(teacher.record) for teacher in self._teachers],
            "digests": {captioner.name: captioner.digest for captioner in self._captioners},
            "teachers": [dict(teacher.describe()) for teacher in self._teachers],
            "captioners": [dict(captioner.describe()) for captioner in self._captioners],
        }

    def make(
        self,
        unit: OpenUnit,
        file: IO[bytes],
        *,
        job: Job,
        folder: Path | None,
        progress: Callable[[int], object],
    ) -> Facts:
        """See `Maker`."""
        config = self._task.config
        request = ShardRequest(
            num_views=config.num_views,
            augment=config.augment,
            codec=config.codec,
            seed=config.seed,
            batch_size=config.batch_size,
            config_digest=job.config_digest,
            num_loaders=self._task.num_loaders,
        )
        made = reinforce_shard(
            unit,
            file,
            name=job.unit.name,
            teachers=self._teachers,
            captioners=self._captioners,
            request=request,
            folder=folder,
            progress=progress,
        )
        return self._facts(made)

    def _facts(self, made: ShardFacts) -> Facts:
        errors: JsonValue = {table: asdict(error) for table, error in made.errors.items()}
        return Facts(
            num_samples=made.num_samples,
            num_bytes=made.num_bytes,
            sha256=made.sha256,
            input_sha256=made.input_sha256,
            dropped=made.dropped,
            licences=made.licences,
            seconds=made.seconds,
            more={
                "num_texts": made.num_texts,
                "errors": errors,
                "teachers": {teacher.record.name: teacher.record.digest for teacher in self._teachers},
                "captioners": {captioner.name: captioner.digest for captioner in self._captioners},
            },
        )


@dataclass(frozen=True, kw_only=True)
class _More:
    """What a reinforcement says of a shard, beside what the engine does.

    Attributes:
        num_texts: of all its samples.
        errors: by table (`image/NAME`), what the codec cost.
        teachers: name -> digest.
        captioners: name -> digest.
    """

    num_texts: int
    errors: Mapping[str, CodecError]
    teachers: Mapping[str, str]
    captioners: Mapping[str, str]


def _more(content: Mapping[str, JsonValue]) -> _More:
    """ValueError when `Facts.more` is not what `ShardMaker` writes."""
    return structure(content, _More)


VERB = Verb(name="reinforce", done="reinforced", settings="configuration or other teachers", check=_more)


class ErrorTally:
    """The codec's errors, pooled over all shards. See `engine.Tally`.

    Args:
        num_views: of each picture.
    """

    def __init__(self, *, num_views: int) -> None:
        self._num_views = num_views
        self._errors: dict[str, tuple[CodecError, int]] = {}

    def add(self, facts: Facts) -> None:
        """See `Tally`."""
        more = _more(facts.more)
        for table, error in more.errors.items():
            num = more.num_texts if table.startswith("text/") else facts.num_samples * self._num_views
            known = [self._errors[table]] if table in self._errors else []
            self._errors[table] = (pool([*known, (error, num)]), num + sum(num for _, num in known))

    def facts(self) -> dict[str, JsonValue]:
        """See `Tally`."""
        errors: JsonValue = {table: asdict(error) for table, (error, _) in sorted(self._errors.items())}
        return {"errors": errors}
