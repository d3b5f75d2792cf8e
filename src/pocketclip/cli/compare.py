"""`pocketclip compare`: models side by side, and on the map of accuracy against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from pocketclip.cli.bench import named_models
from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome, UsageError

if TYPE_CHECKING:
    from pocketclip.evaluate.compare import Comparison
    from pocketclip.evaluate.figure_points import Benched, Latency

_NOTE = "Published models: Table 8 of MobileCLIP2 (arXiv 2508.20691), one picture and one text on an iPhone 12 Pro Max."
_ESTIMATED = " Hollow: estimated from a bench elsewhere."


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Lay results of several models side by side, with paired bootstrap differences, wins and losses.

    Results are the files that `pocketclip evaluate --tasks` writes, or published ones of the same layout; a published
    model is called by its name. The first is the baseline. Differences are over sets, and on each set over its own
    queries where both files have them beside them.

    --plot draws accuracy against latency, with the models of Table 8 and your own among them. Where yours stand:

    --latency mine=MobileCLIP2-S0   it has the towers of a published model, and their latency
    --latency mine=1.6+3.4          what you measured on that phone, image and text in ms
    --latency bench.json            from `pocketclip bench`: by its towers, or estimated from published ones beside it

    Examples:
        pocketclip compare MobileCLIP2-S0 MobileCLIP-S0
        pocketclip compare before=a/results.jsonl after=b/results.jsonl MobileCLIP2-S0
        pocketclip compare mine=results.jsonl --latency mine=MobileCLIP2-S0 --plot map.png map.svg
        pocketclip compare mine=results.jsonl --latency bench.json --accuracy mean38 --plot map.svg
    """

    models: Annotated[
        Positional[tuple[str, ...]], arg(metavar="[NAME=]RESULTS ...", help_behavior_hint="(required)")
    ]
    """Result files, or names of published models; a file's name, or its folder's, is a model's where none is given."""
    baseline: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the first)")] = None
    """Against which model differences are told."""
    latency: Annotated[
        tuple[str, ...], arg(metavar="BENCH.json|NAME=... ...", help_behavior_hint="(default: none)")
    ] = ()
    """Latencies of your models."""
    accuracy: Annotated[str, arg(metavar="imagenet|mean38|shift|KEY")] = "imagenet"
    """What the map's height is: ImageNet-1k, the mean of 38 sets, that of the shifted six, or the key of any set."""
    plot: Annotated[
        tuple[Path, ...], arg(metavar="FILE.png|.svg ...", help_behavior_hint="(default: none)")
    ] = ()
    """Draw accuracy against latency."""
    seed: int = 0
    """Of the bootstrap draws."""
    resamples: int = 1000
    """Number of draws."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Compares."""
        if not self.models:
            raise UsageError("compare needs a result file or more, [NAME=]RESULTS")
        models = named_models(self.models)
        require("compare", ("train",))
        from pocketclip.evaluate.compare import compare

        found = compare(models, baseline=self.baseline, seed=self.seed, resamples=self.resamples)
        lines = [found.table()]
        if self.plot:
            self._draw(found)
            lines += ["", *(f"drawn: {path}" for path in self.plot)]
        return Outcome("\n".join(lines), found.values() | {"drawn": [str(path) for path in self.plot]})

    def _draw(self, found: Comparison) -> None:
        from pocketclip.evaluate.figure import draw_map
        from pocketclip.evaluate.figure_points import AXES, own_point, published_points

        own = [model for model in found.models if model.path is not None]
        places = _places([model.name for model in own], self.latency)
        points = published_points(self.accuracy)
        points += [
            own_point(model.name, tuple(model.rows.values()), places[model.name], accuracy=self.accuracy)
            for model in own
        ]
        is_estimated = any(point.estimated for point in points)
        draw_map(
            points,
            self.plot,
            accuracy=AXES.get(self.accuracy, f"{self.accuracy} (%)"),
            latency="latency of one picture and one text on an iPhone 12 Pro Max (ms)",
            note=_NOTE + (_ESTIMATED if is_estimated else ""),
        )


def _places(names: Sequence[str], given: Sequence[str]) -> dict[str, Latency]:
    """Where each of one's own models stands on the horizontal axis."""
    from pocketclip.evaluate.figure_points import place

    said = {text.partition("=")[0]: text.partition("=")[2] for text in given if "=" in text}
    unknown = set(said) - set(names)
    if unknown:
        raise UsageError(
            f"--latency names {', '.join(sorted(unknown))}, and the models are {', '.join(names)}"
        )
    files = [Path(text) for text in given if "=" not in text]
    bench = _benched(files)
    places = {}
    for name in names:
        if name not in said and not files:
            raise UsageError(
                f"where does {name} stand? --latency {name}=MobileCLIP2-S0, {name}=MS or BENCH.json"
            )
        places[name] = _told(name, said[name]) if name in said else place(name, bench)
    return places


def _told(name: str, text: str) -> Latency:
    """`1.6+3.4`, `5`, or the name of a published model."""
    from pocketclip.evaluate.figure_points import Latency, published_latency

    try:
        return Latency(latency_ms=sum(float(part) for part in text.split("+")))
    except ValueError:
        found = published_latency(text)
    if found is None:
        raise UsageError(
            f"--latency {name}={text}: that is no number of ms and no model that Table 8 has a latency of"
        )
    return found


def _benched(files: Sequence[Path]) -> Mapping[str, Benched]:
    """Both towers of every model of the benches that was measured one at a time, by its fastest backend."""
    from pocketclip.bench.report import BenchReport
    from pocketclip.evaluate.figure_points import Benched

    found = {}
    for file in files:
        report = BenchReport.read(file)
        for name, model in report.models.items():
            image, text = (report.latency_ms(name, tower) for tower in ("image", "text"))
            if image is not None and text is not None:
                found[name] = Benched(variant=model.variant, latency_ms=image[0] + text[0])
    return found
