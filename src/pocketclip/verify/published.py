"""Looks into a shard that others published, with pictures or without."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketclip.data.foreign.published import PublishedSample, read_published
from pocketclip.data.foreign.published_picture import as_published
from pocketclip.data.foreign.published_teachers import split_columns
from pocketclip.data.foreign.published_views import ViewLayout, extent, read_view
from pocketclip.data.foreign.tars import Group, read_groups
from pocketclip.data.index import Dropped
from pocketclip.data.reinforcement import TeacherRecord
from pocketclip.verify.defect import Findings, ShardCheck, duplicates
from pocketclip.verify.packed import hash_keys
from pocketclip.verify.rows import replay, wrong_rows

_TOLERANCE = 0.02  # of a length: bfloat16's rounding, and that of half-precision teachers


@dataclass(frozen=True, kw_only=True)
class PublishedSettings:
    """What is known of a published set.

    Attributes:
        layout: of its views.
        teachers: whose the columns are.
        check_sha256: compare pictures with their published hashes.
    """

    layout: ViewLayout
    teachers: tuple[TeacherRecord, ...]
    check_sha256: bool


def check_published(path: Path, *, name: str, settings: PublishedSettings, sample: int | None) -> ShardCheck:
    """Looks into a shard.

    Args:
        path: the shard.
        name: what to call it.
        settings: what is known of its set.
        sample: how many samples to look into, spread evenly; None for all.
    """
    findings = Findings(name)
    uids: list[str] = []
    num_checked = 0
    wanted = _wanted(path, sample=sample)
    for number, group in enumerate(read_groups(path)):
        if isinstance(group, Dropped):
            findings.add(f"damaged shard: {group.reason}", key=group.source.partition(": ")[2])
            continue
        uids.append(group.key)
        if wanted is None or number in wanted:
            num_checked += 1
            _check(group, settings, findings)
    for uid in duplicates(uids):
        findings.add("duplicate key: more than one sample of the shard has it", key=uid)
    return ShardCheck(
        shard=name,
        layout="published",
        num_samples=len(uids),
        num_checked=num_checked,
        num_views=findings.num_views,
        num_texts=findings.num_texts,
        key_hashes=hash_keys(uids),
        defects=tuple(findings.defects),
    )


def is_published(path: Path) -> bool:
    """Whether the first sample of a tar has the files of a published reinforcement."""
    first = next(iter(read_groups(path, only=())), None)
    if not isinstance(first, Group):
        return False
    return any(member.extension in ("paug.json", "npz", "pth.gz") for member in first.members)


def _wanted(path: Path, *, sample: int | None) -> frozenset[int] | None:
    """Numbers of the samples to look into; None for all."""
    if sample is None:
        return None
    num = sum(1 for _ in read_groups(path, only=()))
    return frozenset(np.linspace(0, num - 1, min(sample, num)).round().astype(int).tolist())


def _check(group: Group, settings: PublishedSettings, findings: Findings) -> None:
    published = read_published(group)
    if isinstance(published, Dropped):
        findings.add(f"damaged sample: {published.reason}", key=group.key)
        return
    findings.num_texts += len(published.text_TW)
    _check_rows(published, settings, findings, key=group.key)
    _check_views(published, settings, findings, key=group.key)


def _check_rows(
    published: PublishedSample, settings: PublishedSettings, findings: Findings, *, key: str
) -> None:
    for side, rows_NW in (("image", published.image_AW), ("text", published.text_TW)):
        try:
            blocks = split_columns(rows_NW, settings.teachers)
        except ValueError as error:
            findings.add(f"embedding shape: {side}: {error}", key=key)
            continue
        for teacher, rows_ND in zip(settings.teachers, blocks, strict=True):
            for row, reason in wrong_rows(rows_ND, tolerance=_TOLERANCE).items():
                kind, _, details = reason.partition(": ")
                findings.add(f"embedding {kind}: {side} {row} of {teacher.name}: {details}", key=key)


def _check_views(
    published: PublishedSample, settings: PublishedSettings, findings: Findings, *, key: str
) -> None:
    """Reads the views, and replays them where the picture is there."""
    picture = None
    if published.image is not None:
        try:
            _, _, picture = as_published(published.image, name=key)
        except ValueError as error:
            findings.add(f"damaged picture: {str(error).removeprefix(f'{key}: ')}", key=key)
        if settings.check_sha256 and published.sha256 is not None:
            own = hashlib.sha256(published.image).hexdigest()
            if own != published.sha256:
                findings.add(f"picture hash: its sha256 is {own}, published is {published.sha256}", key=key)
    for number, value in enumerate(published.views):
        try:
            size = picture.size if picture is not None else extent([value], layout=settings.layout)
            view = read_view(value, layout=settings.layout, width=size[0], height=size[1])
            reason = replay(picture, view, spec=settings.layout.spec) if picture is not None else ""
        except ValueError as error:
            reason = f"parameters: {error}"
        if reason:
            kind, _, details = reason.partition(": ")
            findings.add(f"view {kind}: view {number}: {details}", key=key)
        elif picture is not None:
            findings.num_views += 1
