"""What a reinforced folder has, what it still lacks, and how it comes to be whole.

    OUT/.done/run.json              configuration and input of the run, written first; another one is refused
    OUT/SPLIT/NAME.tar              a shard, published whole
    OUT/.done/SPLIT/NAME.tar.json   its marker, written after it
    OUT/failures.jsonl              shards that a run had to leave out; the next run tries them again
    OUT/manifest.jsonl, index.json  written at the end, from the markers; then `.done` is removed

A restart trusts a marker whose sizes are those of input and output, and reads nothing else. A shard without a marker is
made again: the same bytes find their place taken by themselves, and that is success.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

from pocketclip.checkpoint import structure
from pocketclip.data.codec_error import CodecError, pool
from pocketclip.data.index import INDEX_FILE, Dropped, ShardIndex, index_bytes, parse_index
from pocketclip.data.objects import PARTIAL, Store
from pocketclip.data.sample import JsonValue
from pocketclip.data.shard import ShardEntry
from pocketclip.reinforce.prefetch import mapped
from pocketclip.reinforce.shard import ShardFacts
from pocketclip.reinforce.units import Plan, Unit

MANIFEST_FILE = "manifest.jsonl"
FAILURES_FILE = "failures.jsonl"
DONE = ".done"
RUN_FILE = f"{DONE}/run.json"
LISTED = 1000
"""Dropped samples that `index.json` lists; all of them are in the manifest."""

_FACTS = tuple(field.name for field in fields(ShardFacts) if field.name != "seconds")
_ABSENT = (FileNotFoundError, NotADirectoryError)
_VERSION = 1
_READERS = 16  # requests under way when markers are read from a store


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A shard that is done: one line of the manifest.

    Attributes:
        shard: its name, `SPLIT/NAME.tar`.
        input: the input's name; empty for pictures of a folder.
        input_bytes: the input's size.
        facts: what became of the unit.
        config_digest: of the whole configuration.
        teachers: name -> digest.
        captioners: name -> digest.
        engine: where it was made.
        device: what the teachers ran on.
        seconds: from the first to the last byte.
        earlier_failures: why it took more than one try.
    """

    shard: str
    input: str
    input_bytes: int
    facts: ShardFacts
    config_digest: str
    teachers: Mapping[str, str]
    captioners: Mapping[str, str]
    engine: str
    device: str
    seconds: float
    earlier_failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        """As the manifest has it."""
        content = asdict(self)
        facts = content.pop("facts")
        cost = {name: round(seconds, 3) for name, seconds in facts.pop("seconds").items()}
        return {"version": _VERSION, **content, **facts, "seconds": round(self.seconds, 3), "cost": cost}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Marker:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is none, or of another version.
        """
        content = dict(content)
        if content.pop("version", None) != _VERSION:
            raise ValueError("it is of another version")
        facts = {name: content.pop(name) for name in _FACTS if name in content}
        facts["seconds"] = content.pop("cost", None)
        return structure({**content, "facts": facts}, cls)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the folder is being made with and from.

    Attributes:
        config_digest: of the whole configuration, teachers included.
        data_digest: of the input.
        num_threads: of torch in each worker.
    """

    config_digest: str
    data_digest: str
    num_threads: int


class Ledger:
    """The books of a reinforced folder.

    Args:
        out: the folder.
    """

    def __init__(self, out: Store) -> None:
        self._out = out
        self._name = out.place.url

    def num_threads(self) -> int | None:
        """Of the run that began or finished the folder; None where there was none.

        Raises:
            ValueError: the folder holds something else, or its books are damaged.
        """
        index = self.index()
        if index is not None:
            threads = index.config.get("num_threads")
            return threads if isinstance(threads, int) else None
        run = self._run()
        if run is not None:
            return run.num_threads
        strangers = (found.name for found in self._out.list() if not found.name.startswith((DONE, PARTIAL)))
        stranger = next(strangers, None)
        if stranger is not None:
            raise ValueError(
                f"{self._name} holds other files ({stranger}): choose an empty or new output folder"
            )
        return None

    def index(self) -> ShardIndex | None:
        """The index, where the folder is finished."""
        try:
            data = self._out.read(INDEX_FILE)
        except _ABSENT:
            return None
        return parse_index(data, name=f"{self._name}/{INDEX_FILE}")

    def claim(self, run: Run) -> ShardIndex | None:
        """Makes the folder this run's, or makes sure that it is.

        Returns:
            The index, when an earlier run finished the folder; its leftovers are gone.

        Raises:
            ValueError: the folder is another run's; nothing in it was touched.
        """
        index = self.index()
        if index is not None:
            digest, data_digest = index.config.get("digest"), index.config.get("data_digest")
            self._compare(config_digest=digest, data_digest=data_digest, run=run)
            self._clear()
            return index
        begun = self._run()
        if begun is not None:
            self._compare(config_digest=begun.config_digest, data_digest=begun.data_digest, run=run)
        else:
            self._out.put_once(RUN_FILE, _line({"version": _VERSION, **asdict(run)}))
        self.sweep()
        return None

    def sweep(self) -> None:
        """Removes what killed workers left half-made. Nobody may be at work."""
        self._out.delete_folder(PARTIAL)

    def mark(self, marker: Marker) -> None:
        """Marks a shard done; the first of two markers stays."""
        with suppress(FileExistsError):
            self._out.put_once(_marker_file(marker.shard), _line(marker.to_json()))

    def done(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, Marker | None]]:
        """Every unit, in order, with its marker where it is done; markers that cannot be trusted are removed."""
        marked = {found.name for found in self._out.list(DONE)} - {RUN_FILE}
        sizes = {}
        if marked:
            splits = dict.fromkeys(unit.split for unit in units)
            sizes = {found.name: found.num_bytes for split in splits for found in self._out.list(split)}
        with ThreadPoolExecutor(_READERS, thread_name_prefix="markers") as threads:
            read = partial(self._trusted, marked=marked, sizes=sizes)
            yield from zip(units, mapped(read, units, pool=threads, window=2 * _READERS), strict=True)

    def fail(self, failures: Iterable[Mapping[str, JsonValue]]) -> None:
        """Keeps the list of what this run left out."""
        self._out.put(FAILURES_FILE, b"".join(_line(dict(failure)) for failure in failures))

    def finish(self, plan: Plan, *, config: Mapping[str, JsonValue], num_views: int) -> ShardIndex:
        """Writes manifest and index from the markers: the folder is whole. All units must be done.

        Raises:
            ValueError: a split has no sample.
        """
        summary = _Summary(num_views=num_views)
        with self._out.scratch() as manifest:
            for unit, marker in self.done(plan.units):
                assert marker is not None, unit.name
                manifest.write(_line(marker.to_json()))
                summary.add(unit, marker)
            summary.check()
            self._out.put(MANIFEST_FILE, manifest)
        index = summary.index(plan, config=config)
        self._out.put(INDEX_FILE, index_bytes(index))
        self._clear()
        return index

    def _clear(self) -> None:
        self._out.delete(FAILURES_FILE)
        self._out.delete_folder(DONE)
        self.sweep()

    def _run(self) -> Run | None:
        try:
            content = json.loads(self._out.read(RUN_FILE))
        except _ABSENT:
            return None
        except ValueError as error:
            raise ValueError(f"{self._name}/{RUN_FILE} is damaged ({error}): delete the folder") from error
        if content.pop("version") != _VERSION:
            raise ValueError(f"{self._name} was begun by another release of pocketclip: delete the folder")
        return Run(**content)

    def _compare(self, *, config_digest: JsonValue, data_digest: JsonValue, run: Run) -> None:
        for value, own, what in (
            (config_digest, run.config_digest, "with another configuration or other teachers"),
            (data_digest, run.data_digest, "from other data"),
        ):
            if value != own:
                raise ValueError(
                    f"{self._name} was reinforced {what}: choose another folder, or delete this one"
                )

    def _trusted(self, unit: Unit, *, marked: set[str], sizes: Mapping[str, int]) -> Marker | None:
        name = _marker_file(unit.name)
        if name not in marked:
            return None
        with suppress(ValueError):
            marker = Marker.from_json(json.loads(self._out.read(name)))
            written = sizes.get(unit.name) == marker.facts.num_bytes or not marker.facts.num_samples
            if marker.input_bytes == unit.num_bytes and written:
                return marker
        self._out.delete(name)
        return None


class _Summary:
    """The index, gathered marker by marker."""

    def __init__(self, *, num_views: int) -> None:
        self._num_views = num_views
        self._splits: dict[str, list[ShardEntry]] = {}
        self._dropped: list[Dropped] = []
        self._num_dropped = 0
        self._licences: Counter[str] = Counter()
        self._errors: dict[str, tuple[CodecError, int]] = {}

    def add(self, unit: Unit, marker: Marker) -> None:
        facts = marker.facts
        entries = self._splits.setdefault(unit.split, [])
        for drop in facts.dropped[: LISTED - len(self._dropped)]:
            source = f"{unit.name}: {drop.source}" if unit.kind == "packed" else drop.source
            self._dropped.append(Dropped(source=source, reason=drop.reason))
        self._num_dropped += len(facts.dropped)
        self._licences.update(facts.licences)
        if not facts.num_samples:
            return
        entries.append(
            ShardEntry(
                file=unit.name,
                num_samples=facts.num_samples,
                num_bytes=facts.num_bytes,
                sha256=facts.sha256,
            )
        )
        for table, error in facts.errors.items():
            num = facts.num_texts if table.startswith("text/") else facts.num_samples * self._num_views
            known = [self._errors[table]] if table in self._errors else []
            self._errors[table] = (pool([*known, (error, num)]), num + sum(num for _, num in known))

    def check(self) -> None:
        """ValueError when a split has no sample."""
        for split, entries in self._splits.items():
            if not entries:
                reason = f"; {self._dropped[-1].source}: {self._dropped[-1].reason}" if self._dropped else ""
                raise ValueError(f"no sample of split {split!r} can be reinforced{reason}")

    def index(self, plan: Plan, *, config: Mapping[str, JsonValue]) -> ShardIndex:
        licences = self._licences if plan.licences is None else plan.licences
        errors: JsonValue = {table: asdict(error) for table, (error, _) in sorted(self._errors.items())}
        return ShardIndex(
            source=plan.source,
            splits={split: tuple(entries) for split, entries in self._splits.items()},
            dropped=tuple(self._dropped),
            licences=dict(sorted(licences.items())),
            attribution=plan.attribution,
            config={**config, "errors": errors, "num_dropped": self._num_dropped},
        )


def _marker_file(shard: str) -> str:
    return f"{DONE}/{shard}.json"


def _line(content: Mapping[str, JsonValue]) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # file names that are not UTF-8 arrive as lone surrogates; this writes those as JSON escapes
    return f"{text}\n".encode(errors="backslashreplace")
