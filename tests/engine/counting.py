"""A verb that counts the words of captions: small, and nothing like reinforcement. Other processes import it too."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pocketclip.data.index import Dropped
from pocketclip.data.objects import Place
from pocketclip.engine import EngineConfig, Facts, Verb, plan_units, run_task, settled_threads


@dataclass(frozen=True, kw_only=True)
class CountConfig:
    least: int = 1  # words of a caption
    num_threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class CountTask:
    least: int
    num_threads: int = 1
    num_loaders: int = 1
    device: str = "cpu"

    def build(self):
        return CountMaker(self)


class CountMaker:
    def __init__(self, task):
        self.described = {"counter": "words"}
        self._least = task.least

    def make(self, unit, file, *, job, folder, progress):
        lines, dropped = [], []
        for item in unit.items:
            progress(1)
            num = 0 if isinstance(item, Dropped) else len(item.captions[0].split())
            if isinstance(item, Dropped):
                dropped.append(item)
            elif num < self._least:
                dropped.append(Dropped(source=item.key, reason=f"{num} words"))
            else:
                lines.append((item.key, num))
        data = "".join(f"{key} {num}\n" for key, num in lines).encode()
        file.write(data)
        return Facts(
            num_samples=len(lines),
            num_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest() if lines else "",
            input_sha256=unit.sha256(),
            dropped=tuple(dropped),
            licences={},
            seconds={"count": 0.0},
            more={"num_words": sum(num for _, num in lines)},
        )


def check(more):
    if not isinstance(more.get("num_words"), int):
        raise ValueError("a count is missing")


VERB = Verb(name="count", done="counted", settings="way of counting", check=check)


class WordTally:
    def __init__(self):
        self.num_words = 0

    def add(self, facts):
        self.num_words += facts.more["num_words"]

    def facts(self):
        return {"num_words": self.num_words}


def count(data: Path, out: Path, *, config: CountConfig, engine: EngineConfig = EngineConfig()):  # noqa: B008
    place = Place(url=str(out))
    return run_task(
        CountTask(
            least=config.least,
            num_threads=settled_threads(place, verb=VERB, engine=engine, asked=config.num_threads),
        ),
        plan=plan_units(Place(url=str(data)), splits=("train",), shard_samples=1000),
        out=place,
        verb=VERB,
        engine=engine,
        digest=lambda described: hashlib.sha256(json.dumps([asdict(config), described]).encode()).hexdigest(),
        config=lambda described: {"least": config.least, **described},
        tally=WordTally(),
    )
