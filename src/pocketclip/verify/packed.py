"""Looks into one of our own shards, reinforced or not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketclip.data.augment import unpack
from pocketclip.data.picture import decode
from pocketclip.data.publish import sha256_file
from pocketclip.data.reinforced import embeddings_of
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardEntry, ShardReader
from pocketclip.verify.defect import Findings, ShardCheck, duplicates, picked
from pocketclip.verify.rows import length_tolerance, replay, wrong_rows

_TOGETHER = 128  # samples whose rows are decoded at once
_NAMED = 3  # rows of a sample that one defect names


def check_packed(path: Path, *, name: str, entry: ShardEntry | None, sample: int | None) -> ShardCheck:
    """Looks into a shard.

    Args:
        path: the shard.
        name: what to call it.
        entry: what the index says of it; None without an index.
        sample: how many samples to look into, spread evenly; None for all.
    """
    findings = Findings(name)
    if not path.is_file():
        findings.add("missing: the index lists it, and it is not there")
        return ShardCheck(shard=name, defects=tuple(findings.defects))
    _check_file(path, entry, findings)
    try:
        reader = ShardReader(path)
    except (ValueError, OSError) as error:
        findings.add(f"damaged shard: {error}")
        return ShardCheck(shard=name, defects=tuple(findings.defects))
    with reader:
        if entry is not None and len(reader) != entry.num_samples:
            findings.add(f"count: it has {len(reader)} samples and the index says {entry.num_samples}")
        for key in duplicates(reader.keys):
            findings.add("duplicate key: more than one sample of the shard has it", key=key)
        block, is_reinforced = _block(reader, findings)
        rows_N = picked(len(reader), sample=sample)
        for start in range(0, len(rows_N), _TOGETHER):
            _check_samples(reader, block, rows_N[start : start + _TOGETHER], findings)
        return ShardCheck(
            shard=name,
            layout="reinforced" if is_reinforced else "packed",
            digest=block.header.config_digest if block is not None else "",
            num_samples=len(reader),
            num_checked=len(rows_N),
            num_views=findings.num_views,
            num_texts=findings.num_texts,
            key_hashes=hash_keys(reader.keys),
            defects=tuple(findings.defects),
        )


def hash_keys(keys: Sequence[str]) -> np.ndarray:
    """64 bits of a hash of each key: uint64 [N]."""
    hashes = [int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") for key in keys]
    return np.array(hashes, np.uint64)


def _check_file(path: Path, entry: ShardEntry | None, findings: Findings) -> None:
    if entry is None:
        return
    num_bytes = path.stat().st_size
    if num_bytes != entry.num_bytes:
        findings.add(f"file size: it has {num_bytes:,} bytes and the index says {entry.num_bytes:,}")
    elif sha256_file(path) != entry.sha256:
        findings.add("file hash: its sha256 is not the one in the index")


def _block(reader: ShardReader, findings: Findings) -> tuple[Reinforcement | None, bool]:
    """The reinforcement where it can be read, and whether there is one."""
    found = reader.block(BLOCK_NAME)
    if found is None:
        return None, False
    try:
        block = Reinforcement(found, name=findings.shard)
    except ValueError as error:
        findings.add(f"damaged reinforcement: {str(error).removeprefix(f'{findings.shard}: ')}")
        return None, True
    if len(block) != len(reader):
        findings.add(f"count: it has {len(reader)} samples and embeddings of {len(block)}")
        return None, True
    return block, True


@dataclass(frozen=True, kw_only=True)
class _Looked:
    """A sample that could be read."""

    row: int
    sample: Sample


def _check_samples(
    reader: ShardReader, block: Reinforcement | None, rows_N: np.ndarray, findings: Findings
) -> None:
    looked: list[_Looked] = []
    for row in rows_N.tolist():
        try:
            sample = reader[row]
        except ValueError as error:
            findings.add(f"damaged sample: {error}", key=reader.keys[row])
            continue
        looked.append(_Looked(row=row, sample=sample))
        findings.num_texts += len(sample.texts())
        _check_picture(sample, row, block, findings)
    if block is None:
        return
    counts_N = block.text_counts()
    for one in looked:
        num = len(one.sample.texts())
        if counts_N[one.row] != num:
            reason = f"text count: it has {num} captions and embeddings of {counts_N[one.row]}"
            findings.add(reason, key=one.sample.key)
    _check_rows(reader, block, rows_N, findings)


def _check_picture(sample: Sample, row: int, block: Reinforcement | None, findings: Findings) -> None:
    """Decodes a picture and replays its views."""
    try:
        image = decode(sample.image, name=sample.key)
    except ValueError as error:
        findings.add(f"damaged picture: {str(error).removeprefix(f'{sample.key}: ')}", key=sample.key)
        return
    if block is None:
        return
    for number, params_P in enumerate(block.params(row)):
        try:
            reason = replay(image, unpack(params_P), spec=block.header.augment)
        except ValueError as error:
            reason = f"parameters: {error}"
        if reason:
            kind, _, details = reason.partition(": ")
            findings.add(f"view {kind}: view {number}: {details}", key=sample.key)
        else:
            findings.num_views += 1


def _check_rows(reader: ShardReader, block: Reinforcement, rows_N: np.ndarray, findings: Findings) -> None:
    """Embeddings of some samples: finite, of length 1."""
    header = block.header
    counts_N = block.text_counts()[rows_N]
    owner_T = np.repeat(rows_N, counts_N)
    owner_V = np.repeat(rows_N, block.num_views)
    for teacher, rows in zip(header.teachers, embeddings_of(block, rows_N), strict=True):
        image_VD = rows.image_NAD.reshape(-1, teacher.embed_dim)
        for side, rows_RD, owner_R in (("image", image_VD, owner_V), ("text", rows.text_TD, owner_T)):
            tolerance = length_tolerance(header.codec, header.errors.get(f"{side}/{teacher.name}"))
            wrong: dict[int, list[str]] = {}
            for number, reason in wrong_rows(rows_RD, tolerance=tolerance).items():
                wrong.setdefault(int(owner_R[number]), []).append(reason)
            for row, reasons in wrong.items():
                kind, _, details = reasons[0].partition(": ")
                more = f", and {len(reasons) - 1} more of its rows" if len(reasons) > 1 else ""
                findings.add(
                    f"embedding {kind}: {side} of {teacher.name}: {details}{more}", key=reader.keys[row]
                )
