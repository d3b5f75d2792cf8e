"""People's own pictures and captions to shards, in whichever of the common layouts they come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pocketclip.data.foreign.annotated import picture_folder, read_annotated, recognised, record_paths
from pocketclip.data.foreign.annotation_spec import AnnotationSpec
from pocketclip.data.foreign.candidate import unit_hash
from pocketclip.data.foreign.source import list_files, read_source
from pocketclip.data.index import ShardIndex
from pocketclip.pack.write import PackJob, finished, write_folder

_LAYOUT = 1  # raise it when the same source and configuration would give other bytes
_TEXT_SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv")


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How to pack a source.

    Attributes:
        validation: fraction of the samples, by a hash of their keys, that become the split "validation".
        shard_samples: most samples a shard.
        salt: other salts draw another validation split and order.
        annotated: the source is the records of a caption data set (MSCOCO, DOCCI, DCI, GBC, Recap-COCO), and this says
            which; None recognises what can be recognised by its name.
    """

    validation: float = 0.05
    shard_samples: int = 1000
    salt: str = "pocketclip"
    annotated: AnnotationSpec | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation must be at least 0 and below 1, not {self.validation}")
        if self.shard_samples < 1:
            raise ValueError(f"shard_samples must be at least 1, not {self.shard_samples}")


def pack(source: Path, out: Path, *, config: PackConfig) -> ShardIndex:
    """Packs pictures with captions into shards, with the splits "train" and "validation".

    Every picture is decoded once; what cannot be used is dropped, counted and listed in the index with
    its reason. The same files and configuration give the same bytes; a folder that already holds them is
    left as it is. A folder of pictures is packed in hashed order, tars and tables in their own.

    Args:
        source: a folder, a table, a tar, a parquet file, or tars as a pattern "shards/{000..127}.tar".
            Layouts that are understood: `LAYOUTS`. With `config.annotated`, the records of a caption data set.
        out: the folder to make.
        config: split and size.

    Returns:
        The index of the folder.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: the source holds nothing that can be packed, or `out` holds something else.
        ImportError: the source is parquet and pyarrow is not installed.
        PublishError: `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    annotated = config.annotated or recognised(source)
    if annotated is not None:
        return _pack_annotated(source, out, config=config, spec=annotated)
    files, root = list_files(source)
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out} lies inside {source}: choose an output folder elsewhere")
    job = _job(source, out, config=config, fingerprint=_fingerprint(files, root=root))
    done = finished(job)
    if done is not None:
        return done
    items, total = read_source(source, files, root=root, split_of=_splitter(config), salt=config.salt)
    return write_folder(job, items, total=total)


def _pack_annotated(source: Path, out: Path, *, config: PackConfig, spec: AnnotationSpec) -> ShardIndex:
    """Packs the pictures that a caption data set's records name, or hold."""
    records, pictures = record_paths(source, spec), picture_folder(source, spec)
    prints = [hashlib.sha256(path.read_bytes()).hexdigest() for path in records]
    if pictures is not None:
        prints.append(_fingerprint(list_files(pictures)[0], root=pictures))
    fingerprint = hashlib.sha256("\n".join(prints).encode()).hexdigest()
    job = _job(source, out, config=config, fingerprint=fingerprint, spec=spec)
    done = finished(job)
    if done is not None:
        return done
    items, total = read_annotated(source, spec, split_of=_splitter(config), salt=config.salt)
    return write_folder(job, items, total=total)


def _job(
    source: Path, out: Path, *, config: PackConfig, fingerprint: str, spec: AnnotationSpec | None = None
) -> PackJob:
    settings = {name: value for name, value in asdict(config).items() if name != "annotated"}
    if spec is not None:
        settings["annotated"] = {
            **asdict(spec),
            "pictures": None,  # where they lie changes nothing; what they are, the fingerprint says
            "licences": list(spec.licences),
        }
    return PackJob(
        out=out,
        source=str(source),
        config={**settings, "layout": _LAYOUT, "fingerprint": fingerprint},
        shard_samples=dict.fromkeys(("train", "validation"), config.shard_samples),
    )


def _splitter(config: PackConfig) -> Callable[[str], str]:
    def split_of(key: str) -> str:
        return "validation" if unit_hash(config.salt, "validation", key) < config.validation else "train"

    return split_of


def _fingerprint(files: Sequence[Path], *, root: Path) -> str:
    """SHA-256 over names, sizes and the content of text files: tells whether a source has changed."""
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(root).as_posix()
        try:
            content = (
                hashlib.sha256(path.read_bytes()).hexdigest()
                if path.suffix.casefold() in _TEXT_SUFFIXES
                else ""
            )
            line = f"{name}\0{path.stat().st_size}\0{content}\n"
        except OSError:
            line = f"{name}\0unreadable\n"
        digest.update(line.encode(errors="surrogatepass"))
    return digest.hexdigest()
