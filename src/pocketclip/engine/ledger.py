"""What a folder of outputs has, what it still lacks, and how it comes to be whole.

    OUT/.done/run.json              verb, configuration and input of the run, written first; another one is refused
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

from pocketclip.data.index import INDEX_FILE, Dropped, ShardIndex, index_bytes, parse_index
from pocketclip.data.objects import PARTIAL, Store
from pocketclip.data.sample import JsonValue
from pocketclip.data.shard import ShardEntry
from pocketclip.engine.marker import DONE, VERSION, Marker, json_line, marker_file
from pocketclip.engine.prefetch import mapped
from pocketclip.engine.task import Tally, Verb
from pocketclip.engine.units import RUN_FILE, Plan, Unit

MANIFEST_FILE = "manifest.jsonl"
FAILURES_FILE = "failures.jsonl"
LISTED = 1000
"""Dropped samples that `index.json` lists; all of them are in the manifest."""

_ABSENT = (FileNotFoundError, NotADirectoryError)
_READERS = 16  # requests under way when markers are read from a store


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the folder is being made with and from.

    Attributes:
        verb: its name.
        config_digest: of the whole configuration and of who is at work.
        data_digest: of the input.
        num_threads: of torch in each worker.
    """

    verb: str
    config_digest: str
    data_digest: str
    num_threads: int


class Ledger:
    """The books of a folder.

    Args:
        out: the folder.
        verb: whose outputs it holds.
    """

    def __init__(self, out: Store, *, verb: Verb) -> None:
        self._out = out
        self._verb = verb
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
        if begun is not None and begun.verb != run.verb:
            raise ValueError(
                f"{self._name} was begun by `pocketclip {begun.verb}`: choose another folder, or delete this one"
            )
        if begun is not None:
            self._compare(config_digest=begun.config_digest, data_digest=begun.data_digest, run=run)
        else:
            self._out.put_once(RUN_FILE, json_line({"version": VERSION, **asdict(run)}))
        self.sweep()
        return None

    def sweep(self) -> None:
        """Removes what killed workers left half-made. Nobody may be at work."""
        self._out.delete_folder(PARTIAL)

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
        self._out.put(FAILURES_FILE, b"".join(json_line(dict(failure)) for failure in failures))

    def finish(self, plan: Plan, *, config: Mapping[str, JsonValue], tally: Tally) -> ShardIndex:
        """Writes manifest and index from the markers: the folder is whole. All units must be done.

        Args:
            plan: the input.
            config: what the index says of the configuration.
            tally: gathers what else it says; empty.

        Raises:
            ValueError: a split has no sample.
        """
        summary = _Summary()
        with self._out.scratch() as manifest:
            for unit, marker in self.done(plan.units):
                assert marker is not None, unit.name
                manifest.write(json_line(marker.to_json()))
                summary.add(unit, marker)
                tally.add(marker.facts)
            summary.check(done=self._verb.done)
            self._out.put(MANIFEST_FILE, manifest)
        index = summary.index(plan, config={**config, **tally.facts()})
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
        known = {"version", *(field.name for field in fields(Run))}
        if not isinstance(content, dict) or content.keys() != known or content.pop("version") != VERSION:
            raise ValueError(f"{self._name} was begun by another release of pocketclip: delete the folder")
        return Run(**content)

    def _compare(self, *, config_digest: JsonValue, data_digest: JsonValue, run: Run) -> None:
        for value, own, what in (
            (config_digest, run.config_digest, f"with another {self._verb.settings}"),
            (data_digest, run.data_digest, "from other data"),
        ):
            if value != own:
                raise ValueError(
                    f"{self._name} was {self._verb.done} {what}: choose another folder, or delete this one"
                )

    def _trusted(self, unit: Unit, *, marked: set[str], sizes: Mapping[str, int]) -> Marker | None:
        name = marker_file(unit.name)
        if name not in marked:
            return None
        with suppress(ValueError):
            marker = Marker.from_json(json.loads(self._out.read(name)))
            self._verb.check(marker.facts.more)
            written = sizes.get(unit.name) == marker.facts.num_bytes or not marker.facts.num_samples
            if marker.input_bytes == unit.num_bytes and written:
                return marker
        self._out.delete(name)
        return None


class _Summary:
    """The index, gathered marker by marker."""

    def __init__(self) -> None:
        self._splits: dict[str, list[ShardEntry]] = {}
        self._dropped: list[Dropped] = []
        self._num_dropped = 0
        self._licences: Counter[str] = Counter()

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

    def check(self, *, done: str) -> None:
        """ValueError when a split has no sample."""
        for split, entries in self._splits.items():
            if not entries:
                reason = f"; {self._dropped[-1].source}: {self._dropped[-1].reason}" if self._dropped else ""
                raise ValueError(f"no sample of split {split!r} can be {done}{reason}")

    def index(self, plan: Plan, *, config: Mapping[str, JsonValue]) -> ShardIndex:
        licences = self._licences if plan.licences is None else plan.licences
        return ShardIndex(
            source=plan.source,
            splits={split: tuple(entries) for split, entries in self._splits.items()},
            dropped=tuple(self._dropped),
            licences=dict(sorted(licences.items())),
            attribution=plan.attribution,
            config={**config, "num_dropped": self._num_dropped},
        )
