"""What there is to work through, cut into units: one input file, or so many pictures of a folder, becomes one shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, takewhile
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.foreign.folder import CaptionedFile, in_order, read_candidates
from pocketclip.data.foreign.jsonl import read_jsonl
from pocketclip.data.foreign.parquet import read_parquet
from pocketclip.data.foreign.source import expand, find_pictures, is_pattern, list_files
from pocketclip.data.foreign.tars import read_tars
from pocketclip.data.index import INDEX_FILE, Dropped, ShardIndex, parse_index
from pocketclip.data.objects import Place, Store, Stored, open_store
from pocketclip.data.publish import sha256_file
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader

Kind = Literal["packed", "tar", "jsonl", "parquet", "pictures"]
RUN_FILE = ".done/run.json"
"""What a run is made with and from, while it is not at its end; see `ledger`."""
RAW_SPLIT = "train"
"""The split of inputs that are not packed."""

_SUFFIXES: Mapping[str, Kind] = {
    ".tar": "tar",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
}
_INFO_FILE = "info.json"
_SALT = "pocketclip"
_FEW = 32  # files that a store is asked for one by one
LAYOUTS = (
    "a packed folder; .tar, .parquet or .jsonl files as a folder, a pattern like shards/{000..127}.tar or an "
    "info.json; a folder of captioned pictures"
)
_NOTHING = (
    f"is not a packed folder and holds no shards, tables or captioned pictures. What is understood: {LAYOUTS}"
)

Item: TypeAlias = Sample | Candidate | Dropped


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """The input of one shard, as plain data: a worker elsewhere opens it for itself.

    Attributes:
        name: of its output, `SPLIT/NAME.tar`, after the input's.
        kind: how it is read.
        file: its name in the store of inputs; empty for pictures.
        num_bytes: size of the input; tells whether it was changed between two runs.
        sha256: of the input, where its index says.
        pictures: files of this unit, for pictures.
        dropped: what the source had to leave out before it came to units.
    """

    name: str
    kind: Kind
    file: str = ""
    num_bytes: int
    sha256: str | None = None
    pictures: tuple[CaptionedFile, ...] = ()
    dropped: tuple[Dropped, ...] = ()

    @property
    def split(self) -> str:
        """Where its samples belong."""
        return self.name.partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is to be done.

    Attributes:
        place: the store of the inputs.
        units: split by split, in order.
        num_samples: of all units together, where the input says.
        digest: of the inputs, and of what the output takes over from them.
        source: what the input is, as it was named.
        licences: licence -> number of pictures, where the input says; None: to be counted.
        attribution: sentences that must travel with the pictures.
    """

    place: Place
    units: Sequence[Unit] = field(repr=False)
    num_samples: int | None
    digest: str
    source: str
    licences: Mapping[str, int] | None = None
    attribution: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OpenUnit:
    """A unit being read.

    Attributes:
        items: what it offers, in order; nothing but the one at hand is in memory.
        sha256: gives the hash of the input, once the items are through.
    """

    items: Iterator[Item]
    sha256: Callable[[], str]


def plan_units(place: Place, *, splits: Sequence[str], shard_samples: int) -> Plan:
    """Finds the units of an input.

    Args:
        place: a packed folder, files, a pattern of files, an `info.json`, or a folder of captioned pictures.
        splits: of a packed folder; other inputs have the split "train" alone.
        shard_samples: pictures of a unit, for a folder of pictures.

    Raises:
        FileNotFoundError: there is no such input, or a file of it is missing.
        ValueError: the input is of no kind that is understood, or damaged.
    """
    name = place.url.rstrip("/").rpartition("/")[2]
    if not is_pattern(place.url) and _suffix(name) is None and name != _INFO_FILE:
        index = _packed_index(place)
        if index is not None:
            return _plan_packed(place, index, splits=splits)
    if tuple(splits) != (RAW_SPLIT,):
        raise ValueError(
            f"{place.url} is not a packed folder and has the split {RAW_SPLIT!r} alone, not {', '.join(splits)}: "
            f"pack it first, or leave the splits out"
        )
    if name == _INFO_FILE:
        return _plan_files(*_listed_files(place), source=place.url)
    if is_pattern(place.url):
        return _plan_files(*_sized(place, expand(place.url)), source=place.url)
    if _suffix(name) is not None:
        return _plan_files(*_sized(place, [place.url]), source=place.url)
    if place.is_folder and Path(place.url).is_file():  # a table of captions
        return _plan_pictures(place, shard_samples=shard_samples)
    listed = (found for found in open_store(place).list() if not _is_hidden(found.name))
    files = sorted(listed, key=lambda found: found.name)
    if any(_suffix(found.name) is not None for found in files) and not _has_table(files):
        return _plan_files(place, files, source=place.url)
    if not place.is_folder:
        raise ValueError(f"{place.url} holds no shards. What is understood: {LAYOUTS} (on this machine)")
    return _plan_pictures(place, shard_samples=shard_samples)


@contextmanager
def open_unit(unit: Unit, store: Store) -> Generator[OpenUnit, None, None]:
    """Opens a unit for reading.

    Args:
        unit: which.
        store: of the inputs.

    Raises:
        ValueError: the input is damaged, or not what its index says.
        OSError: it cannot be read.
    """
    if unit.kind == "pictures":
        digest = hashlib.sha256()
        candidates = read_candidates(unit.pictures, split_of=lambda _: unit.split)
        yield OpenUnit(items=chain(unit.dropped, _hashed(candidates, digest)), sha256=digest.hexdigest)
        return
    with store.fetch(unit.file) as path:
        digest = sha256_file(path)
        if unit.sha256 is not None and digest != unit.sha256:
            raise ValueError(
                f"{store.place.url}/{unit.file} is not what {INDEX_FILE} says (its hash differs): it was changed or "
                f"damaged; pack or copy it again"
            )
        with _items(unit, path) as items:
            yield OpenUnit(items=chain(unit.dropped, items), sha256=lambda: digest)


@contextmanager
def _items(unit: Unit, path: Path) -> Generator[Iterator[Item], None, None]:
    def split_of(_: str) -> str:
        return unit.split

    match unit.kind:
        case "packed":
            with ShardReader(path) as reader:
                yield _packed_items(reader)
        case "tar":
            yield read_tars([path], split_of=split_of)
        case "jsonl":
            yield read_jsonl([path], root=path.parent, split_of=split_of)
        case "parquet":
            yield read_parquet([path], root=path.parent, split_of=split_of)
        case "pictures":
            raise AssertionError("pictures are no file")


def _packed_items(reader: ShardReader) -> Iterator[Item]:
    for row, key in enumerate(reader.keys):
        try:
            yield reader[row]
        except ValueError as error:
            yield Dropped(source=key, reason=str(error))


def _hashed(
    candidates: Iterable[Candidate | Dropped], digest: hashlib._Hash
) -> Iterator[Candidate | Dropped]:
    for candidate in candidates:
        content = candidate.image if isinstance(candidate, Candidate) else candidate.reason.encode()
        digest.update(f"{candidate.source}\0{len(content)}\0".encode(errors="surrogatepass") + content)
        yield candidate


def _packed_index(place: Place) -> ShardIndex | None:
    """The index of a packed folder, or None where the place is something else."""
    store = open_store(place)
    if place.is_folder and not Path(place.url).exists():
        raise FileNotFoundError(f"{place.url}: no such file or folder")
    verb = "pack" if store.size(".packing") is not None else _begun_by(store)
    if verb:
        raise ValueError(f"{place.url} is not whole: `pocketclip {verb}` was interrupted; run it again first")
    try:
        return parse_index(store.read(INDEX_FILE), name=f"{place.url}/{INDEX_FILE}")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _begun_by(store: Store) -> str | None:
    """The verb whose run of a folder is not at its end; None where there is none."""
    try:
        content = json.loads(store.read(RUN_FILE))
        return str(content["verb"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{store.place.url} is not whole, and {RUN_FILE} in it is damaged ({error}): delete the folder"
        ) from error


def _plan_packed(place: Place, index: ShardIndex, *, splits: Sequence[str]) -> Plan:
    units: list[Unit] = []
    store = open_store(place)
    for split in splits:
        if split not in index.splits:
            raise ValueError(f"{place.url} has no split {split!r}; it has {', '.join(index.splits)}")
        sizes = {found.name: found.num_bytes for found in store.list(split)}
        for entry in index.splits[split]:
            size = sizes.get(entry.file)
            if size is None:
                raise ValueError(
                    f"{place.url}/{entry.file} is missing, though the index lists it: pack or copy the folder again"
                )
            if size != entry.num_bytes:
                raise ValueError(
                    f"{place.url}/{entry.file} has {size:,} bytes and the index says {entry.num_bytes:,}: "
                    f"it was cut or changed; pack or copy the folder again"
                )
            units.append(
                Unit(
                    name=PurePosixPath(entry.file).with_suffix(".tar").as_posix(),  # a part becomes a shard
                    kind="packed",
                    file=entry.file,
                    num_bytes=size,
                    sha256=entry.sha256,
                )
            )
    taken_over = [index.source, dict(index.licences), index.attribution]
    return Plan(
        place=place,
        units=tuple(units),
        num_samples=sum(index.num_samples(split) for split in splits),
        digest=_digest(chain([json.dumps(taken_over)], (f"{unit.name} {unit.sha256}" for unit in units))),
        source=index.source,
        licences=index.licences,
        attribution=index.attribution,
    )


def _plan_files(place: Place, files: Sequence[Stored], *, source: str) -> Plan:
    """One unit a file; all are of one kind."""
    wanted = [found for found in files if _suffix(found.name) is not None]
    kinds = sorted({_SUFFIXES[_suffix(found.name) or ""] for found in wanted})
    if not wanted:
        raise ValueError(f"{source} {_NOTHING}")
    if len(kinds) > 1:
        raise ValueError(
            f"{source} holds {' and '.join(kinds)} files side by side: give one kind at a time, each in a "
            f"folder of its own"
        )
    units: dict[str, Unit] = {}
    for found in wanted:
        suffix = _suffix(found.name) or ""
        name = f"{RAW_SPLIT}/{found.name[: -len(suffix)]}.tar"
        if name in units:
            raise ValueError(
                f"{source}: {found.name} and {units[name].file} would both become {name}: rename one"
            )
        units[name] = Unit(name=name, kind=_SUFFIXES[suffix], file=found.name, num_bytes=found.num_bytes)
    return Plan(
        place=place,
        units=tuple(units.values()),
        num_samples=None,
        digest=_digest(f"{found.name} {found.num_bytes}" for found in wanted),
        source=source,
    )


def _plan_pictures(place: Place, *, shard_samples: int) -> Plan:
    """Units of so many pictures, in hashed order; what has no partner is dropped with the first."""
    source = Path(place.url)
    files, root = list_files(source)
    found = find_pictures(source, files, root=root)
    if found is None:
        raise ValueError(f"{source} {_NOTHING}")
    pictures, dropped = found
    pictures = in_order(pictures, salt=_SALT)
    if not pictures:
        reason = f": {dropped[0].source}: {dropped[0].reason}" if dropped else ""
        raise ValueError(f"{source} holds no picture with a caption{reason}")
    units = []
    for number, start in enumerate(range(0, len(pictures), shard_samples)):
        some = tuple(pictures[start : start + shard_samples])
        units.append(
            Unit(
                name=f"{RAW_SPLIT}/{number:06d}.tar",
                kind="pictures",
                num_bytes=sum(_size(picture.path) for picture in some),
                pictures=some,
                dropped=() if number else tuple(dropped),
            )
        )
    return Plan(
        place=place,
        units=tuple(units),
        num_samples=len(pictures),
        digest=_digest(
            f"{picture.name} {_size(picture.path)} {picture.captions} {_text(picture.sidecar)}"
            for picture in pictures
        ),
        source=place.url,
    )


def _listed_files(place: Place) -> tuple[Place, list[Stored]]:
    """The files that the published tool's `info.json` lists: whole addresses, or relative to its folder."""
    folder, _, name = place.url.rpartition("/")
    store = open_store(Place(url=folder or ".", options=place.options))
    try:
        lengths = json.loads(store.read(name))["lengths"]
        listed = list(lengths)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{place.url} is not a list of shards (no object `lengths` in it): give a folder or a pattern"
        ) from error
    addresses = [
        path if "://" in path or path.startswith("/") else f"{folder}/{path}" if folder else path
        for path in listed
    ]
    if not addresses:
        raise ValueError(f"{place.url} lists no shards")
    return _sized(place, addresses)


def _sized(place: Place, addresses: Sequence[str]) -> tuple[Place, list[Stored]]:
    """Files by their whole addresses, as files of the folder that all of them share."""
    folders = [PurePosixPath(address).parent.parts for address in addresses]
    levels = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    shared = [parts[0] for parts in levels]
    root = str(PurePosixPath(*shared)) if shared else "."
    if "://" in addresses[0]:
        root = root.replace(":/", "://", 1)
    if any(("://" in address) != ("://" in addresses[0]) for address in addresses) or root.endswith("://"):
        raise ValueError(f"{place.url}: its shards are in several stores: give one at a time")
    base = Place(url=root, options=place.options)
    store = open_store(base)
    # One listing is quicker than many questions over a network.
    ask = base.is_folder or len(addresses) < _FEW
    sizes = {} if ask else {found.name: found.num_bytes for found in store.list()}
    files: list[Stored] = []
    for address in addresses:
        name = str(PurePosixPath(address).relative_to(PurePosixPath(*shared)))
        size = store.size(name) if ask else sizes.get(name)
        if size is None:
            raise FileNotFoundError(f"{address} is not there, though {place.url} names it")
        files.append(Stored(name=name, num_bytes=size))
    return base, files


def _suffix(name: str) -> str | None:
    """The suffix, in lower case, that says how a file is read; None of other files."""
    folded = name.casefold()
    longest_first = sorted(_SUFFIXES, key=len, reverse=True)
    return next((suffix for suffix in longest_first if folded.endswith(suffix)), None)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _has_table(files: Iterable[Stored]) -> bool:
    """Whether there is a table of captions, which makes other files its pictures."""
    return any(
        PurePosixPath(found.name).name.casefold() in ("metadata.jsonl", "captions.jsonl") for found in files
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _text(path: Path | None) -> str:
    return sha256_file(path) if path is not None and path.is_file() else ""


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode(errors="surrogatepass") + b"\n")
    return digest.hexdigest()
