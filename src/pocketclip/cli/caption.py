"""`pocketclip caption`: captions of pictures, printed, kept, drawn and scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome, UsageError, some

if TYPE_CHECKING:
    from pocketclip.caption import CaptionConfig, Captioned, CaptionScores, ClipScorer
    from pocketclip.data.index import Dropped

_OWN = "own"


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Write captions of pictures, with one captioner or several.

    PICTURES are files, folders of them, tars and packed folders. Damaged ones are left out and listed. What is written
    depends on the picture, its name and the settings, not on what else is captioned.

    Examples:
        pocketclip caption photos/ --model tuned/
        pocketclip caption photos/ --model tuned/ --num-captions 5 --top-p 0.9 --out captions.jsonl --sheet sheet.png
        pocketclip caption emoji/ --split test-unseen --model a=A.safetensors b=B.safetensors --score own
        pocketclip caption x.jpg --model open_clip:coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k --beams 6
    """

    pictures: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="PICTURES ...", help_behavior_hint="(required)")
    ] = ()
    """What to caption."""
    model: Annotated[tuple[str, ...], arg(metavar="[NAME=]SOURCE ...")]
    """Captioners: checkpoints, hf-hub:ORG/NAME, open_clip:MODEL/TAG, transformers:ORG/NAME, python:MODULE:FUNCTION;
    several are an ensemble."""
    split: Annotated[tuple[str, ...], arg(metavar="SPLIT ...", help_behavior_hint="(default: all)")] = ()
    """Splits of a packed folder."""
    limit: Annotated[int | None, arg(help_behavior_hint="(default: all)")] = None
    """Caption so many pictures."""
    num_captions: int = 1
    """Captions of each picture by each captioner."""
    temperature: Annotated[
        float | None, arg(help_behavior_hint="(default: 0 for one caption or beams, else 1)")
    ] = None
    """Words are drawn at it; 0 takes the likeliest."""
    top_k: Annotated[int | None, arg(help_behavior_hint="(default: all)")] = None
    """Draw among the so many likeliest words."""
    top_p: float = 0.9
    """Draw among the likeliest words that together have this probability."""
    max_length: int = 30
    """Tokens of a caption at most."""
    min_length: int = 0
    """Tokens of a caption at least."""
    beams: int = 1
    """Search with so many beams."""
    beam_groups: int = 1
    """Groups of the beams that avoid each other's words (diverse beam search)."""
    diversity_penalty: float = 0.0
    """How much they avoid them."""
    length_penalty: float = 1.0
    """Power of the length that a search's sums are divided by."""
    repetition_penalty: float = 1.0
    """Makes words that were written less likely."""
    no_repeat_ngram: int = 0
    """So many tokens in a row are never written twice."""
    first_sentence: bool = False
    """Cut captions at their first full stop."""
    seed: int = 0
    """Of what is drawn."""
    batch_size: int = 16
    """Pictures at a time."""
    device: str = "cpu"
    """Where the captioners run: cpu, cuda, mps."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What they compute in."""
    out: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Keep the captions as JSON lines."""
    sheet: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Draw the first pictures with their captions into this PNG."""
    sheet_pictures: int = 30
    """Pictures on the sheet."""
    score: Annotated[str | None, arg(help_behavior_hint="(default: none)")] = None
    """Score against people's captions: `own` for those that PICTURES have, a packed folder, or JSON lines with key and
    captions."""
    clip: Annotated[str | None, arg(help_behavior_hint="(default: none)")] = None
    """Measure CLIPScore with this model: what `pocketclip reinforce --teacher` takes."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Captions."""
        require("caption", ("train",), device=self.device)
        if not self.pictures:
            raise UsageError("caption needs pictures: files, folders, tars or packed folders")
        from pocketclip.caption import caption, caption_sheet, scorers
        from pocketclip.data.publish import publish_file

        if self.score:
            scorers()  # before hours of captioning
        config = self._config()
        references = None if self.score in (None, _OWN) else read_references(Path(self.score))
        found = _Found(shown=self.sheet_pictures if self.sheet else 0, scorer=self._scorer())
        with publish_file(self.out) if self.out else nullcontext() as file:
            written = caption(self.pictures, config=config, limit=self.limit, skipped=found.skipped.append)
            for batch in _batches(written, config.batch_size):
                found.take(batch)
                if file:
                    file.write("".join(_line(one) for one in batch).encode())
        if self.sheet:
            caption_sheet(found.sheet, self.sheet, references=references)
        scores = self._scores(found, references) if self.score or self.clip else None
        return self._outcome(found, scores)

    def _config(self) -> CaptionConfig:
        from pocketclip.caption import CaptionConfig

        same = {field.name for field in fields(CaptionConfig)} & {field.name for field in fields(self)}
        models: dict[str, str] = {}
        for text in self.model:
            name, source = parse_captioner(text)
            if name in models:
                raise UsageError(f"two captioners are called {name}: name them, NAME={source}")
            models[name] = source
        return CaptionConfig(models=models, splits=self.split, **{name: getattr(self, name) for name in same})

    def _scorer(self) -> ClipScorer | None:
        if self.clip is None:
            return None
        from pocketclip.caption import ClipScorer
        from pocketclip.teachers import TeacherSpec, build_teacher

        spec = TeacherSpec(name="clip", source=self.clip)
        return ClipScorer(build_teacher(spec, device=self.device, precision=self.precision))

    def _scores(self, found: _Found, references: Mapping[str, Sequence[str]] | None) -> CaptionScores:
        from pocketclip.caption import score_captions

        known = references
        if self.score == _OWN:
            known = {key: texts for key, texts in found.own.items() if texts}
            if not known:
                raise ValueError("--score own: the pictures came without captions; give a file of references")
        return score_captions(
            found.texts,
            known,
            asked=self.num_captions * len(self.model),
            clip_scores=found.clip_scores or None,
        )

    def _outcome(self, found: _Found, scores: CaptionScores | None) -> Outcome:
        lines = [f"{name}  {text}" for name, text in found.printed]
        lines += some([(one.source, one.reason) for one in found.skipped], what="skipped")
        lines += ["", scores.text()] if scores else []
        values = {
            "captions": found.texts,
            "skipped": [asdict(one) for one in found.skipped],
            "scores": scores.values() if scores else None,
        }
        return Outcome("\n".join(lines), values)


class _Found:
    """What is kept of the pictures while they pass."""

    def __init__(self, *, shown: int, scorer: ClipScorer | None) -> None:
        self.texts: dict[str, tuple[str, ...]] = {}
        self.own: dict[str, tuple[str, ...]] = {}
        self.printed: list[tuple[str, str]] = []
        self.sheet: list[Captioned] = []
        self.skipped: list[Dropped] = []
        self.clip_scores: list[float] = []
        self._shown = shown
        self._scorer = scorer

    def take(self, batch: Sequence[Captioned]) -> None:
        for one in batch:
            self.texts[one.key], self.own[one.key] = one.texts(), one.references
            several = len(one.captions) > 1
            self.printed += [
                (one.name, f"[{name}] {text}" if several else text)
                for name, texts in one.captions.items()
                for text in texts or ("(nothing)",)
            ]
            if len(self.sheet) < self._shown:
                self.sheet.append(one.thumbnail())
        if self._scorer:
            pairs = [(one.image, text) for one in batch for text in one.texts()]
            self.clip_scores += self._scorer([image for image, _ in pairs], [text for _, text in pairs])


def parse_captioner(text: str) -> tuple[str, str]:
    """NAME=SOURCE, or a source, named after its folder or its last part."""
    from pocketclip.data.foreign.fields import make_key

    name, separator, source = text.partition("=")
    if separator:
        return name, source
    path = Path(text)
    name = path.parent.name if path.suffix == ".safetensors" and path.parent.name else path.name
    return make_key(name) or "captioner", text


def read_references(path: Path) -> dict[str, tuple[str, ...]]:
    """People's captions by key: of a packed folder, or of JSON lines with a key and captions.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it holds no captions.
    """
    from pocketclip.caption import Picture, read_pictures
    from pocketclip.data.foreign.fields import parse_record, take_captions

    if path.is_dir():
        return {
            one.key: one.captions for one in read_pictures(path) if isinstance(one, Picture) and one.captions
        }
    if not path.is_file():
        raise FileNotFoundError(f"references {path}: no such file or folder")
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            captions, rest = take_captions(parse_record(line))
        except ValueError as error:
            raise ValueError(f"references {path}, line {number}: {error}") from None
        if not isinstance(rest.get("key"), str) or not captions:
            raise ValueError(f"references {path}, line {number}: it needs a key and captions")
        found[str(rest["key"])] = captions
    if not found:
        raise ValueError(f"references {path} hold nothing: give JSON lines with key and captions")
    return found


def _batches(written: Iterator[Captioned], size: int) -> Iterator[list[Captioned]]:
    while batch := list(islice(written, size)):
        yield batch


def _line(one: Captioned) -> str:
    record = {"name": one.name, "key": one.key, "captions": list(one.texts()), "by": dict(one.captions)}
    return json.dumps(record, ensure_ascii=False) + "\n"
