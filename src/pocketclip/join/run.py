"""Joins published reinforcements with pictures: every shard once, going on where an earlier run stopped.

OUT/.join/done.jsonl        shards that are done, a line each; another configuration is refused
OUT/.join/images.sqlite     where the images are
OUT/.join/pictures/         downloads of the shard at hand
OUT/train/NAME.tar          our shard, published whole
OUT/downloads.sqlite        what became of every download; stays
OUT/manifest.jsonl, missing.jsonl, index.json    written at the end; then `.join` is removed
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pocketclip.data.codec_error import CodecError, pool
from pocketclip.data.done import DoneList, manifest_line, start_done_list
from pocketclip.data.index import INDEX_FILE, Dropped, ShardIndex, read_index, write_index
from pocketclip.data.publish import publish_file, sha256_file
from pocketclip.data.sample import JsonValue
from pocketclip.data.shard import ShardEntry
from pocketclip.join.config import JoinConfig, PictureSources
from pocketclip.join.ledger import Download
from pocketclip.join.pictures import Pictures
from pocketclip.join.plan import SPLIT, Plan, Unit, plan_join
from pocketclip.join.shard import JoinRequest, Missing, ShardFacts, join_shard, kinds

MANIFEST_FILE = "manifest.jsonl"
MISSING_FILE = "missing.jsonl"
LISTED = 1000
"""Missing samples that `index.json` lists; all of them are in missing.jsonl."""

_WORK = ".join"
_DONE_FILE = f"{_WORK}/done.jsonl"
_INHERENT = ("unreadable reinforcement", "damaged shard", "duplicate uid", "other views")
# Reasons that no other picture helps against.


@dataclass(frozen=True, kw_only=True)
class JoinReport:
    """What a joined folder has, and lacks.

    Attributes:
        index: of the folder.
        num_missing: published samples that are not in it.
        kinds: how many for which kind of reason.
        num_loose: samples whose views reach only a small part of the picture: it was smaller when it was reinforced.
        num_shards: published shards.
    """

    index: ShardIndex
    num_missing: int
    kinds: Mapping[str, int]
    num_loose: int
    num_shards: int


def join(
    reinforcements: str,
    out: Path,
    *,
    config: JoinConfig = JoinConfig(),  # noqa: B008 - frozen
    pictures: PictureSources,
) -> JoinReport:
    """Writes `out`, a reinforced folder, from published reinforcements and their pictures.

    Killed anywhere and run again it goes on; finished, it is left alone, unless `pictures.retry` asks to look again for
    what is missing. The same reinforcements and pictures give the same bytes.

    Args:
        reinforcements: tars without or with pictures: a folder, a pattern with ranges in braces, or one file.
        out: the joined folder.
        config: the join.
        pictures: where they are.

    Raises:
        ValueError: `out` holds something else; the reinforcements cannot be used; not one sample has its picture.
        FileNotFoundError: a shard or a source of pictures is not there.
        PublishError: `out` cannot be written.
    """
    out = Path(out)
    plan = plan_join(reinforcements, config=config)
    _check_apart(plan, out)
    digest = f"{plan.config_digest} {plan.data_digest}"
    if not _claim(out, plan, digest=digest, again=pictures.retry):
        return _report(out, plan)
    done = DoneList(out / _DONE_FILE, digest=digest)
    _work(plan, out, done=done, config=config, sources=pictures)
    _finish(plan, out, done=done, config=config)
    return _report(out, plan)


def _check_apart(plan: Plan, out: Path) -> None:
    if any(out.resolve() in unit.path.resolve().parents for unit in plan.units):
        raise ValueError(f"{out} holds the published shards themselves: choose another folder")


def _claim(out: Path, plan: Plan, *, digest: str, again: bool) -> bool:
    """Whether there is something to do; makes the folder this join's, or refuses."""
    if (out / INDEX_FILE).exists():
        config = read_index(out).config
        if f"{config.get('digest')} {config.get('data_digest')}" != digest:
            raise ValueError(
                f"{out} was made with another configuration or from other data: choose another folder, or delete this "
                f"one"
            )
        if not again or not (out / MISSING_FILE).stat().st_size:
            shutil.rmtree(out / _WORK, ignore_errors=True)
            return False
        with (out / MANIFEST_FILE).open("rb") as lines:
            start_done_list(out / _DONE_FILE, digest=digest, lines=lines)
        (out / INDEX_FILE).unlink()
        return True
    if not (out / _DONE_FILE).exists() and out.is_dir():
        stranger = next((path for path in sorted(out.iterdir()) if path.name != _WORK), None)
        if stranger is not None:
            raise ValueError(
                f"{out} holds other files ({stranger.name}): choose an empty or new output folder"
            )
    return True


def _work(plan: Plan, out: Path, *, done: DoneList, config: JoinConfig, sources: PictureSources) -> None:
    """Makes the shards that are not there, and again those that lack pictures where that is asked."""
    request = JoinRequest(
        teachers=plan.teachers,
        layout=plan.layout,
        synthetic=config.synthetic,
        tag=config.tag,
        codec=config.codec,
        sha256=config.sha256,
        longest_px=config.longest_px,
        config_digest=plan.config_digest,
    )
    todo = [unit for unit in plan.units if _is_left(unit, out, done=done, again=sources.retry)]
    if not todo:
        return
    with ExitStack() as stack:
        progress = stack.enter_context(
            _Progress(num_shards=len(plan.units), num_done=len(plan.units) - len(todo))
        )
        pictures = stack.enter_context(
            Pictures(
                out=out,
                work=out / _WORK,
                sources=sources,
                check=config.sha256 == "check",
                report=progress.indexed,
                told=progress.told,
            )
        )
        threads = stack.enter_context(ThreadPoolExecutor(sources.num_threads, thread_name_prefix="pictures"))
        for unit in todo:
            num_new = pictures.prepare(unit, before=out / unit.name)
            if num_new or unit.name not in done:
                facts = _make(
                    unit, out, pictures=pictures, request=request, threads=threads, progress=progress
                )
                done.add(unit.name, facts)
            pictures.done()
            progress.shard()


def _is_left(unit: Unit, out: Path, *, done: DoneList, again: bool) -> bool:
    facts = done.get(unit.name)
    if facts is None or facts["input_bytes"] != unit.num_bytes:
        return True
    path = out / unit.name
    if facts["num_samples"] and (not path.is_file() or path.stat().st_size != facts["num_bytes"]):
        done.forget(unit.name)
        return True
    return again and any(not one.reason.startswith(_INHERENT) for one in _missing(facts))


class _NothingError(Exception):
    """A shard without a sample, which is not written."""

    def __init__(self, facts: ShardFacts) -> None:
        super().__init__()
        self.facts = facts


def _make(
    unit: Unit,
    out: Path,
    *,
    pictures: Pictures,
    request: JoinRequest,
    threads: ThreadPoolExecutor,
    progress: _Progress,
) -> dict[str, JsonValue]:
    """Publishes a shard; what became of it."""
    input_sha256 = sha256_file(unit.path)
    try:
        with publish_file(out / unit.name) as file:
            facts = join_shard(
                unit.path,
                file,
                name=unit.name,
                find=pictures.find,
                caption=pictures.caption,
                request=request,
                input_sha256=input_sha256,
                pool=threads,
                folder=out / _WORK,
                progress=progress.samples,
            )
            if not facts.num_samples:
                raise _NothingError(facts)
    except _NothingError as nothing:
        facts = nothing.facts
    progress.missing(len(facts.missing))
    return {
        "input": unit.path.name,
        "input_bytes": unit.num_bytes,
        "input_sha256": input_sha256,
        **facts.to_json(),
    }


def _finish(plan: Plan, out: Path, *, done: DoneList, config: JoinConfig) -> None:
    """Writes the lists and, last, the index."""
    summary = _Summary()
    with publish_file(out / MANIFEST_FILE) as manifest, publish_file(out / MISSING_FILE) as missing:
        for unit, facts in _all(plan, done):
            manifest.write(manifest_line(unit.name, facts))
            for one in _missing(facts):
                missing.write(manifest_line(unit.name, asdict(one)))
            summary.add(unit, facts)
        summary.check(plan)
    write_index(out, summary.index(plan, config=config))
    shutil.rmtree(out / _WORK, ignore_errors=True)


def _all(plan: Plan, done: DoneList) -> Iterator[tuple[Unit, dict[str, Any]]]:
    for unit in plan.units:
        facts = done.get(unit.name)
        assert facts is not None, unit.name
        yield unit, facts


def _missing(facts: Mapping[str, Any]) -> Iterator[Missing]:
    return (Missing(**one) for one in facts["missing"])


class _Summary:
    """The index, gathered shard by shard."""

    def __init__(self) -> None:
        self._entries: list[ShardEntry] = []
        self._dropped: list[Dropped] = []
        self._num_missing = self._num_loose = 0
        self._kinds: dict[str, int] = {}
        self._num_views: set[int] = set()
        self._errors: dict[str, tuple[CodecError, int]] = {}

    def add(self, unit: Unit, facts: Mapping[str, Any]) -> None:
        missing = list(_missing(facts))
        for one in missing[: LISTED - len(self._dropped)]:
            self._dropped.append(Dropped(source=f"{unit.name}: {one.uid}", reason=one.reason))
        self._num_missing += len(missing)
        self._num_loose += facts["num_loose"]
        for kind, num in kinds(missing).items():
            self._kinds[kind] = self._kinds.get(kind, 0) + num
        if not facts["num_samples"]:
            return
        self._num_views.add(facts["num_views"])
        self._entries.append(
            ShardEntry(
                file=unit.name,
                num_samples=facts["num_samples"],
                num_bytes=facts["num_bytes"],
                sha256=facts["sha256"],
            )
        )
        for table, values in facts["errors"].items():
            num = (
                facts["num_texts"] if table.startswith("text/") else facts["num_samples"] * facts["num_views"]
            )
            known = [self._errors[table]] if table in self._errors else []
            self._errors[table] = (
                pool([*known, (CodecError(**values), num)]),
                num + sum(num for _, num in known),
            )

    def check(self, plan: Plan) -> None:
        """ValueError when not one sample has its picture."""
        if not self._entries:
            first = f"; {self._dropped[0].source}: {self._dropped[0].reason}" if self._dropped else ""
            raise ValueError(
                f"not one sample of {plan.source} can be joined{first}; with more pictures, look again (--retry)"
            )

    def index(self, plan: Plan, *, config: JoinConfig) -> ShardIndex:
        errors: JsonValue = {table: asdict(error) for table, (error, _) in sorted(self._errors.items())}
        num_views: JsonValue = sorted(self._num_views)[0] if len(self._num_views) == 1 else None
        teachers: JsonValue = [dict(asdict(teacher)) for teacher in plan.teachers]
        return ShardIndex(
            source=plan.source,
            splits={SPLIT: tuple(self._entries)},
            dropped=tuple(self._dropped),
            config={
                "digest": plan.config_digest,
                "data_digest": plan.data_digest,
                "num_views": num_views,
                "codec": config.codec,
                "teachers": teachers,
                "errors": errors,
                "num_dropped": self._num_missing,
                "missing": dict(self._kinds),
                "num_loose": self._num_loose,
            },
        )


def _report(out: Path, plan: Plan) -> JoinReport:
    index = read_index(out)
    config: Mapping[str, Any] = index.config
    missing = config["missing"]
    return JoinReport(
        index=index,
        num_missing=config["num_dropped"],
        kinds=dict(sorted(missing.items(), key=lambda item: (-item[1], item[0]))),
        num_loose=config["num_loose"],
        num_shards=len(plan.units),
    )


class _Progress:
    """One line: samples and shards done, what is missing, downloads."""

    def __init__(self, *, num_shards: int, num_done: int) -> None:
        self._num_shards = num_shards
        self._num_done = num_done
        self._facts = {"shards": f"{num_done}/{num_shards}", "missing": 0}
        self._bar = tqdm(desc="join", unit="sample", mininterval=1)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def indexed(self, num: int) -> None:
        """So many more pictures are in the index of images."""
        self._facts["images"] = int(self._facts.get("images", 0)) + num
        self._show()

    def told(self, download: Download) -> None:
        """A download ended."""
        name = "failed" if download.reason else "downloaded"
        self._facts[name] = int(self._facts.get(name, 0)) + 1
        self._show()

    def samples(self, num: int) -> None:
        """So many more samples are through."""
        self._bar.update(num)

    def missing(self, num: int) -> None:
        """So many samples of a shard are missing."""
        self._facts["missing"] = int(self._facts["missing"]) + num

    def shard(self) -> None:
        """A shard is done."""
        self._num_done += 1
        self._facts["shards"] = f"{self._num_done}/{self._num_shards}"
        self._show()

    def _show(self) -> None:
        self._bar.set_postfix(self._facts, refresh=False)
        self._bar.update(0)
