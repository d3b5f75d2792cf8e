"""One published shard and its pictures become one of ours; a sample enters whole, or is missing with its reason.

A reason begins with a few words that say of which kind it is, up to a colon; reports count by them.
"""

# Shape suffixes: N samples, A views of each, P parameters of a view, T captions, D dimensions of a teacher, W of all.

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Literal

import numpy as np

from pocketclip.data.augment import pack
from pocketclip.data.codec import Codec
from pocketclip.data.foreign.fields import make_key
from pocketclip.data.foreign.published import PublishedSample, read_details, read_published
from pocketclip.data.foreign.published_picture import as_published
from pocketclip.data.foreign.published_teachers import split_columns
from pocketclip.data.foreign.published_views import ViewLayout, extent, read_view
from pocketclip.data.foreign.tars import Group, picture_of, read_groups
from pocketclip.data.index import Dropped
from pocketclip.data.picture import PictureError
from pocketclip.data.reinforcement import BLOCK_NAME, Embeddings, ReinforcementWriter, TeacherRecord
from pocketclip.data.sample import JsonValue, Sample
from pocketclip.data.shard import ShardWriter, shard_writer
from pocketclip.join.images import Found

_UNREADABLE = "unreadable reinforcement"
_TOGETHER = 64  # samples in memory at once
_UNIT = 0.02  # lengths of published rows are off by so much at most: bfloat16's rounding, and some
_LOOSE = 0.55  # crops that reach less far, in both directions, were hardly drawn for this picture


@dataclass(frozen=True, kw_only=True)
class JoinRequest:
    """What to do to a shard.

    Attributes:
        teachers: whose the columns are.
        layout: of the views.
        synthetic, tag, codec, sha256, longest_px: as in `JoinConfig`.
        config_digest: recorded in the shard.
    """

    teachers: tuple[TeacherRecord, ...]
    layout: ViewLayout
    synthetic: str
    tag: str | None
    codec: Codec
    sha256: Literal["check", "ignore"]
    longest_px: int | None
    config_digest: str


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A published sample that is not in the shard.

    Attributes:
        uid: its uid, or what a reader calls it.
        url: of its picture, where known.
        reason: "kind: details".
    """

    uid: str
    url: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """What became of a published shard.

    Attributes:
        num_samples: in our shard; 0 when nothing was written.
        num_texts: of all its samples.
        num_views: of each; 0 when nothing was written.
        num_loose: samples whose views reach only a small part of the picture.
        num_bytes: size of our shard.
        sha256: of our shard; empty when nothing was written.
        missing: what is not in it.
        errors: by table, what the codec cost.
    """

    num_samples: int
    num_texts: int
    num_views: int
    num_loose: int
    num_bytes: int
    sha256: str
    missing: tuple[Missing, ...]
    errors: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, JsonValue]:
        """As a line of the manifest."""
        return asdict(self)


Finder = Callable[[str, str, "str | None"], "Callable[[], Found] | str"]
"""Says by key, uid and address how to get a picture, or why there is none; called in one thread."""


def join_shard(
    tar: Path,
    file: IO[bytes],
    *,
    name: str,
    find: Finder,
    caption: Callable[[str], str | None],
    request: JoinRequest,
    input_sha256: str,
    pool: Executor,
    folder: Path | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> ShardFacts:
    """Writes our shard of a published one.

    Args:
        tar: the published shard.
        file: open for writing; nothing is written when no sample is whole.
        name: of our shard, for messages.
        find: the pictures.
        caption: of a uid, where published shard and picture have none.
        request: the rest.
        input_sha256: of the published shard.
        pool: decodes.
        folder: for temporary files; None takes the system's.
        progress: called with the number of published samples that are through since the last call.
    """
    with ReinforcementWriter(
        augment=request.layout.spec, codec=request.codec, teachers=request.teachers, folder=folder
    ) as block:
        shard = _Shard(writer=shard_writer(file, path=Path(name)), block=block)
        for outcomes in _prepared(tar, find=find, caption=caption, request=request, pool=pool):
            shard.add(outcomes)
            progress(len(outcomes))
        return shard.facts(config_digest=request.config_digest, input_sha256=input_sha256)


@dataclass(frozen=True, kw_only=True)
class _Joined:
    """A whole sample."""

    uid: str
    url: str | None
    sample: Sample
    params_AP: np.ndarray = field(repr=False)
    embeddings: list[Embeddings] = field(repr=False)  # of each teacher, of this one sample
    is_loose: bool


@dataclass(kw_only=True)
class _Shard:
    """The shard being written."""

    writer: ShardWriter
    block: ReinforcementWriter
    missing: list[Missing] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    num_views: int = 0  # of each sample, as the first has them
    num_texts: int = 0
    num_loose: int = 0

    def add(self, outcomes: Iterable[_Joined | Missing]) -> None:
        """Appends the samples that are whole."""
        whole: list[_Joined] = []
        for outcome in outcomes:
            if isinstance(outcome, Missing):
                self.missing.append(outcome)
                continue
            self.num_views = self.num_views or len(outcome.params_AP)
            reason = _refusal(outcome, keys=self.keys, num_views=self.num_views)
            if reason:
                self.missing.append(Missing(uid=outcome.uid, url=outcome.url, reason=reason))
                continue
            self.keys.add(outcome.sample.key)
            whole.append(outcome)
        _write(whole, self.writer.add, self.block)
        self.num_texts += sum(len(one.sample.texts()) for one in whole)
        self.num_loose += sum(one.is_loose for one in whole)

    def facts(self, *, config_digest: str, input_sha256: str) -> ShardFacts:
        """Writes the block and the end, unless there is nothing."""
        if self.writer:
            reasons = {one.uid: one.reason for one in reversed(self.missing)}
            made = self.block.finish(config_digest=config_digest, input_sha256=input_sha256, dropped=reasons)
            self.writer.add_long_block(BLOCK_NAME, made.chunks, num_bytes=made.num_bytes)
            self.writer.finish()
        entry = self.writer.entry()
        errors = self.block.errors() if self.writer else {}
        return ShardFacts(
            num_samples=len(self.writer),
            num_texts=self.num_texts,
            num_views=self.num_views if self.writer else 0,
            num_loose=self.num_loose,
            num_bytes=entry.num_bytes,
            sha256=entry.sha256 if self.writer else "",
            missing=tuple(self.missing),
            errors={table: asdict(error) for table, error in errors.items()},
        )


def _prepared(
    tar: Path,
    *,
    find: Finder,
    caption: Callable[[str], str | None],
    request: JoinRequest,
    pool: Executor,
) -> Iterator[list[_Joined | Missing]]:
    """The samples of a tar, some at a time, in its order."""
    groups = iter(read_groups(tar))
    while some := list(islice(groups, _TOGETHER)):
        tasks = [_task(group, find=find, caption=caption, request=request) for group in some]
        yield list(pool.map(lambda task: task(), tasks))


def _task(
    group: Group | Dropped, *, find: Finder, caption: Callable[[str], str | None], request: JoinRequest
) -> Callable[[], _Joined | Missing]:
    """What is left to do for a sample, in any thread; the databases are asked here, in one."""
    if isinstance(group, Dropped):
        cut = Missing(uid=group.source, url=None, reason=f"damaged shard: {group.reason}")
        return lambda: cut
    try:
        uid, url, _ = read_details(group)
    except ValueError as error:
        unreadable = Missing(uid=group.key, url=None, reason=f"{_UNREADABLE}: {error}")
        return lambda: unreadable
    picture = picture_of(group.members)
    get = (lambda: Found(image=picture.data)) if picture is not None else find(make_key(uid), uid, url)
    if isinstance(get, str):
        gone = Missing(uid=uid, url=url, reason=get)
        return lambda: gone
    own = caption(uid)

    def join() -> _Joined | Missing:
        published = read_published(group, synthetic=request.synthetic, tag=request.tag)
        if isinstance(published, Dropped):
            return Missing(uid=uid, url=url, reason=f"{_UNREADABLE}: {published.reason}")
        try:
            return _join(published, get(), captions=(own,) if own else (), request=request)
        except _UnfitError as error:
            reason = str(error)
        except PictureError as error:
            reason = f"damaged picture: {str(error).removeprefix(f'{published.source}: ')}"
        except (ValueError, OSError) as error:
            reason = f"{_UNREADABLE}: {error}"
        return Missing(uid=uid, url=url, reason=reason)

    return join


class _UnfitError(ValueError):
    """A sample that cannot be joined; the sentence is its whole reason."""


def _join(
    published: PublishedSample, found: Found, *, captions: tuple[str, ...], request: JoinRequest
) -> _Joined:
    if request.sha256 == "check" and not found.is_checked:
        _check_hash(published, found)
    captions = published.captions or captions or found.captions
    if not captions:
        raise _UnfitError("no caption: neither published nor with the picture nor in a table")
    num_rows = published.num_ground_truth
    captions = captions[:num_rows]
    image, extension, picture = as_published(
        found.image, name=published.source, longest_px=request.longest_px
    )
    views = _views(published, request=request, width=picture.width, height=picture.height)
    reach = extent(published.views, layout=request.layout)
    meta = {"uid": published.uid, "url": published.url, "sha256": published.sha256}
    sample = Sample(
        key=published.key,
        image=image,
        extension=extension,
        captions=captions,
        synthetic=published.synthetic,
        meta={**published.meta, **{name: value for name, value in meta.items() if value}},
    )
    text_TW = np.concatenate([published.text_TW[: len(captions)], published.text_TW[num_rows:]])
    _check_lengths(published, teachers=request.teachers)
    return _Joined(
        uid=published.uid,
        url=published.url,
        sample=sample,
        params_AP=views,
        embeddings=[
            Embeddings(image_NAD=image_AD[None], text_TD=text_TD)
            for image_AD, text_TD in zip(
                split_columns(published.image_AW, request.teachers),
                split_columns(text_TW, request.teachers),
                strict=True,
            )
        ],
        is_loose=reach[0] < _LOOSE * picture.width and reach[1] < _LOOSE * picture.height,
    )


def _views(published: PublishedSample, *, request: JoinRequest, width: int, height: int) -> np.ndarray:
    reach_w, reach_h = extent(published.views, layout=request.layout)
    if reach_w > width or reach_h > height:
        raise _UnfitError(
            f"other size: its views were drawn for a picture of at least {reach_w}x{reach_h}, this is {width}x{height}"
        )
    views = [read_view(view, layout=request.layout, width=width, height=height) for view in published.views]
    return np.stack([pack(view) for view in views])


def _check_hash(published: PublishedSample, found: Found) -> None:
    if published.sha256 is None:
        return
    own = hashlib.sha256(found.image).hexdigest()
    if published.sha256 not in (own, found.sha256):
        raise _UnfitError(
            f"another picture: its sha256 is {found.sha256 or own}, published is {published.sha256}"
        )


def _check_lengths(published: PublishedSample, *, teachers: Sequence[TeacherRecord]) -> None:
    for rows_NW, what in ((published.image_AW, "view"), (published.text_TW, "caption")):
        for teacher, rows_ND in zip(teachers, split_columns(rows_NW, teachers), strict=True):
            length_N = np.linalg.norm(rows_ND, axis=1)
            worst = int(np.abs(length_N - 1).argmax())
            if abs(length_N[worst] - 1) > _UNIT:
                raise ValueError(f"{what} {worst} of {teacher.name} has length {length_N[worst]:.3f}, not 1")


def _refusal(joined: _Joined, *, keys: set[str], num_views: int) -> str:
    """Why a whole sample cannot enter this shard, or nothing."""
    if joined.sample.key in keys:
        return "duplicate uid: another sample of the shard has it already"
    if len(joined.params_AP) != num_views:
        return f"other views: it has {len(joined.params_AP)}, the first sample of the shard has {num_views}"
    return ""


def _write(whole: Sequence[_Joined], add: Callable[[Sample], None], block: ReinforcementWriter) -> None:
    if not whole:
        return
    for one in whole:
        add(one.sample)
    embeddings = [
        Embeddings(
            image_NAD=np.concatenate([one.image_NAD for one in of_teacher]),
            text_TD=np.concatenate([one.text_TD for one in of_teacher]),
        )
        for of_teacher in zip(*(one.embeddings for one in whole), strict=True)
    ]
    counts = [len(one.sample.texts()) for one in whole]
    block.add(np.stack([one.params_AP for one in whole]), counts, embeddings)


def kinds(missing: Iterable[Missing]) -> dict[str, int]:
    """How many are missing, by the first words of their reasons; downloads by what the server said, too."""
    counts: dict[str, int] = {}
    for one in missing:
        kind, _, details = one.reason.partition(":")
        label = f"{kind}: {details.strip()}" if kind == "download failed" else kind
        counts[label] = counts.get(label, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
