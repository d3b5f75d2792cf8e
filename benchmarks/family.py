"""What each variant costs: parameters, MACs and latency, trained and folded, side by side with open_clip's twins.

    .venv/bin/python benchmarks/family.py --out family.json --plot docs/images/family.svg
    .venv/bin/python benchmarks/family.py --variants MobileCLIP2-S0 --sizes --threads 2
    .venv/bin/python benchmarks/family.py --variants --sizes 1024 --rounds 3 --out family.json
    .venv/bin/python benchmarks/family.py --variants --sizes 256 1024 --stages

Prints Markdown: a line for each different image and text tower, with the variants that have it, and MCi3 against the
scaled MCi2 at several picture sizes (MobileCLIP2, arXiv 2508.20691, Figure 3b). Contenders take turns, one picture or
one text each, and another begins each round, so that whatever else the machine does hits all alike. Latencies are
medians over rounds, and so are the ratios of latencies. With --out a long measurement can be made in pieces: what OUT
has is not measured again, but printed and drawn too.

The twins' image towers are timm's, which open_clip uses, folded by timm's `reparameterize_model`. open_clip has neither
the hybrid text tower of MobileCLIP-S0, which runs alone, nor the scaled MCi2, which is timm's MCi2 with our widths and
depths. All weights are random; that the towers compute the same is shown by the tests. Needs the extra `teachers`.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import timm
import torch
import tyro
from open_clip.transformer import TextTransformer
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from pocketclip.models import VARIANTS, Clip, FastViTConfig, TextConfig, fold, variant
from pocketclip.models.count import describe_towers
from pocketclip.recipes.svg import Line, line_chart

TIMM = {
    "mobileclip2_s0": "fastvit_mci0",
    "mobileclip_s1": "fastvit_mci1",
    "mobileclip2_s2": "fastvit_mci2",
    "mobileclip2_s3": "fastvit_mci3",
    "mobileclip2_s4": "fastvit_mci4",
    "mobileclip2_b": "vit_base_mci_224",
    "mobileclip2_l_14": "vit_large_patch14_clip_224",
    "mci2_scaled": "fastvit_mci2",
}
PUBLISHED = tuple(name for name in VARIANTS if not name.startswith("pocketclip"))
FIVE_STAGES, FOUR_STAGES = "mobileclip2_s3", "mci2_scaled"
TONES = {"ours": "#086973", "theirs": "#c2551a", "ours4": "#5fb8b4", "theirs4": "#f2a878"}
STYLE = """
text { font: 12.5px sans-serif; fill: #14212b; } .tick, .note { fill: #52606d; } .title { font-weight: 600; }
.paper { fill: #fff; } .grid { stroke: #e6ebef; } .axis { stroke: #d3dbe1; } .line { fill: none; stroke-width: 2; }
""" + "".join(
    f".line.tone-{tone} {{ stroke: {colour}; }} .dot.tone-{tone}, .legend.tone-{tone} {{ fill: {colour}; }}\n"
    for tone, colour in TONES.items()
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    variants: tuple[str, ...] = PUBLISHED
    """Whose towers to measure; none for the comparison of sizes alone."""
    sizes: tuple[int, ...] = (256, 512, 768, 1024)
    """Sides in pixels of the pictures at which MCi3 meets the scaled MCi2; none to leave that out."""
    rounds: int = 5
    """Turns of each contender."""
    threads: int = 1
    """Of torch."""
    channels_last: bool = False
    """Lay pictures and image towers out with channels last, on both sides."""
    stages: bool = False
    """At these sizes, only say how much of its time each of the two spends in which stage."""
    out: Path | None = None
    """Keep the measurements here as JSON, beside those made before."""
    plot: Path | None = None
    """Draw the measurements here as SVG."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One contender.

    Attributes:
        parameters: of the tower.
        macs: multiply-accumulates for one picture or text.
        latency_ms: of every round.
    """

    parameters: int
    macs: int
    latency_ms: list[float]

    @property
    def median_ms(self) -> float:
        """Over all rounds."""
        return statistics.median(self.latency_ms)


@dataclass(frozen=True, kw_only=True)
class Race:
    """Contenders that took turns.

    Attributes:
        name: `image tower of mobileclip2_s0`, `text tower of mobileclip2_s0`, `512 px` and so on.
        variants: all that have this tower; none where sizes are compared.
        settings: rounds, threads and what else matters.
        contenders: by name.
    """

    name: str
    variants: list[str]
    settings: dict[str, Any]
    contenders: dict[str, Measured]


def main(arguments: Arguments) -> None:
    """Measures, prints, keeps, draws."""
    torch.set_num_threads(arguments.threads)
    if arguments.stages:
        print(stage_table(arguments.sizes, rounds=arguments.rounds))
        return
    settings = {
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "channels_last": arguments.channels_last,
        "torch": torch.__version__,
    }
    races = _read(arguments.out)
    for name, variants, modules, given in _starts(arguments, done=races):
        latencies = _race(modules, given, rounds=arguments.rounds, label=name)
        contenders = {key: _measured(module, given, latencies[key]) for key, module in modules.items()}
        races[name] = Race(name=name, variants=variants, settings=settings, contenders=contenders)
        if arguments.out:
            arguments.out.write_text(json.dumps([asdict(race) for race in races.values()], indent=1) + "\n")
    families = sorted((race for race in races.values() if race.variants), key=_place)
    sizes = sorted((race for race in races.values() if not race.variants), key=_place)
    print("\n\n".join(table(some) for table, some in ((family_table, families), (size_table, sizes)) if some))
    if arguments.plot:
        arguments.plot.write_text(drawing(families, sizes))


def _read(path: Path | None) -> dict[str, Race]:
    if path is None or not path.is_file():
        return {}
    races = {}
    for race in json.loads(path.read_text()):
        contenders = {name: Measured(**values) for name, values in race.pop("contenders").items()}
        races[race["name"]] = Race(**race, contenders=contenders)
    return races


def _place(race: Race) -> tuple[str, int]:
    """Image towers before text towers, each in the order of the variants; sizes from small to large."""
    first, *_ = race.name.split()
    return (first, PUBLISHED.index(race.variants[0])) if race.variants else ("", int(first))


def _starts(
    arguments: Arguments, *, done: Container[str]
) -> Iterator[tuple[str, list[str], dict[str, nn.Module], Tensor]]:
    """Each race's name, the variants it stands for, its contenders and what they are given."""
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    for kind in ("image", "text"):
        for sharing in _sharing(kind, arguments.variants):
            first = variant(sharing[0])
            name = f"{kind} tower of {first.name}"
            if name in done:
                continue
            forms = _forms(first.name, kind)
            if kind == "image":
                forms = {form: module.to(memory_format=layout) for form, module in forms.items()}
                given = torch.rand(1, 3, first.image_px, first.image_px).to(memory_format=layout)
            else:
                given = torch.arange(first.model.text.context_length).unsqueeze(0)
            yield name, sharing, forms, given
    for px in arguments.sizes:
        if f"{px} px" not in done:
            modules = {
                f"{name}, {form}": module.to(memory_format=layout)
                for name in (FIVE_STAGES, FOUR_STAGES)
                for form, module in _forms(name, "image").items()
                if form.endswith("folded")
            }
            yield f"{px} px", [], modules, torch.rand(1, 3, px, px).to(memory_format=layout)


def _sharing(kind: str, names: Sequence[str]) -> list[list[str]]:
    """The different towers of these variants, each as all variants that have it."""
    sharing: dict[object, list[str]] = {}
    for name in PUBLISHED:
        model = VARIANTS[name].model
        sharing.setdefault((getattr(model, kind), model.embed_dim), []).append(name)
    asked = {variant(name).name for name in names}
    return [some for some in sharing.values() if asked & set(some)]


def _forms(name: str, kind: str) -> dict[str, nn.Module]:
    """A variant's tower and its twin, and each folded where that makes a difference."""
    ours = getattr(Clip(variant(name).model).eval(), kind)
    pairs = {"ours": (ours, fold(ours))}
    twin = _twin(name, kind)
    if twin is not None:
        pairs["open_clip"] = (twin, reparameterize_model(twin))
    forms = {}
    for whose, (train, folded) in pairs.items():
        forms[whose] = train
        if len(list(folded.parameters())) != len(list(train.parameters())):
            forms[f"{whose} folded"] = folded
    return forms


def _twin(name: str, kind: str) -> nn.Module | None:
    """timm's image tower or open_clip's text tower of the same architecture, if there is one."""
    model = variant(name).model
    if kind == "image":
        timm_name = next(TIMM[known] for known in TIMM if VARIANTS[known].model.image == model.image)
        is_fastvit = isinstance(model.image, FastViTConfig)
        shape = {"layers": model.image.depths, "embed_dims": model.image.widths} if is_fastvit else {}
        return timm.create_model(timm_name, num_classes=model.embed_dim, **shape).eval()
    if not isinstance(model.text, TextConfig):
        return None
    tower = TextTransformer(
        context_length=model.text.context_length,
        vocab_size=model.text.vocab_size,
        width=model.text.width,
        heads=model.text.heads,
        layers=model.text.layers,
        output_dim=model.embed_dim,
        no_causal_mask=not model.text.causal,
    )
    return tower.eval()


def _race(
    modules: Mapping[str, nn.Module], given: Tensor, *, rounds: int, label: str
) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round."""
    names = list(modules)
    latency_ms: dict[str, list[float]] = {name: [] for name in names}
    with torch.inference_mode():
        for name in names:
            modules[name](given)
        for number in tqdm(range(rounds), desc=label):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                start = time.perf_counter()
                modules[name](given)
                latency_ms[name].append(1000 * (time.perf_counter() - start))
    return latency_ms


def _measured(module: nn.Module, given: Tensor, latency_ms: list[float]) -> Measured:
    """Counted after the race, on the meta device; moves the module there.

    With gradients, because open_clip's attention is without them one operation that the counter does not know.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        module.to("meta")(given.to("meta"))
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Measured(parameters=parameters, macs=counter.get_total_flops() // 2, latency_ms=latency_ms)


def family_table(races: Sequence[Race]) -> str:
    """Markdown, a line for each tower; a folded tower that is no other than the trained one stands there again."""
    heads = ("parameters, M", "folded", "MACs, G", "folded", "ours, ms", "folded", "open_clip, ms", "folded")
    lines = [f"| tower | {' | '.join(heads)} | open_clip / ours | folded |", "|---|" + "---:|" * 10]
    for race in races:
        ours, theirs = race.contenders["ours"], race.contenders.get("open_clip")
        folded = race.contenders.get("ours folded", ours)
        their_folded = race.contenders.get("open_clip folded", theirs)
        cells = [f"{one.parameters / 1e6:.2f}" for one in (ours, folded)]
        cells += [f"{one.macs / 1e9:.3f}" for one in (ours, folded)]
        cells += [f"{one.median_ms:.1f}" if one else "-" for one in (ours, folded, theirs, their_folded)]
        cells += [ratio(theirs, ours), ratio(their_folded, folded)] if theirs and their_folded else ["-", "-"]
        lines.append(f"| {race.name.split()[0]}: {', '.join(race.variants)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def size_table(races: Sequence[Race]) -> str:
    """Markdown, a line for each picture size."""
    heads = ("MCi3, ms", "scaled MCi2, ms", "ratio")
    theirs = " | ".join(f"{head} (timm)" for head in heads)
    lines = [f"| pictures | {' | '.join(heads)} | {theirs} | ratio of MACs |", "|---|" + "---:|" * 7]
    for race in races:
        cells = []
        for whose in ("ours", "open_clip"):
            five, four = (race.contenders[f"{name}, {whose} folded"] for name in (FIVE_STAGES, FOUR_STAGES))
            cells += [f"{five.median_ms:.0f}", f"{four.median_ms:.0f}", ratio(four, five)]
        lines.append(f"| {race.name} | {' | '.join(cells)} | {four.macs / five.macs:.2f} |")
    return "\n".join(lines)


def stage_table(sizes: Sequence[int], *, rounds: int) -> str:
    """Markdown: a line for each stage, its down-sampling included, of both towers, folded, at each picture size."""
    lines = [
        "| tower | pictures | stage | parameters, M | MACs, G | ms | G MACs/s |",
        "|---|---|---|" + "---:|" * 4,
    ]
    for name in (FIVE_STAGES, FOUR_STAGES):
        tower = _forms(name, "image")["ours folded"]
        stages = {"stem": tower.stem, **{f"stage {i}": stage for i, stage in enumerate(tower.stages, 1)}}
        for px in sizes:
            costs = describe_towers(variant(name).model, image_px=px).image.stages
            given = torch.rand(1, 3, px, px)
            for stage, module in stages.items():
                kept = [cost.folded for cost in costs if _stage(cost.name) == stage]
                macs = sum(cost.macs for cost in kept) / 1e9
                latency_ms = _race({stage: module}, given, rounds=rounds, label=f"{name}, {px} px, {stage}")
                median_ms = statistics.median(latency_ms[stage])
                parameters = sum(cost.parameters for cost in kept) / 1e6
                lines.append(
                    f"| {name} | {px} px | {stage} | {parameters:.1f} | {macs:.2f} | {median_ms:.0f} | "
                    f"{1000 * macs / median_ms:.0f} |"
                )
                with torch.inference_mode():
                    given = module(given)
    return "\n".join(lines)


def _stage(name: str) -> str:
    """`downsample 3` and `stage 3, attention` are `stage 3`."""
    return name.split(",")[0].replace("downsample", "stage")


def ratio(slow: Measured, fast: Measured) -> str:
    """How many times longer the first takes than the second, the median over rounds."""
    pairs = zip(slow.latency_ms, fast.latency_ms, strict=True)
    return f"{statistics.median(one / other for one, other in pairs):.2f}"


def drawing(families: Sequence[Race], sizes: Sequence[Race]) -> str:
    """SVG: folded image towers' latency against MACs, and that of MCi3 and the scaled MCi2 against picture size."""
    images = [race for race in families if race.name.startswith("image") and FOUR_STAGES not in race.variants]
    family = []
    for tone, label, whose, is_fastvit in (
        ("theirs4", "ViT, timm", "open_clip", False),
        ("ours4", "ViT", "ours", False),
        ("theirs", "MCi0-4, timm", "open_clip", True),
        ("ours", "MCi0-4", "ours", True),
    ):
        kin = [
            r for r in images if isinstance(VARIANTS[r.variants[0]].model.image, FastViTConfig) == is_fastvit
        ]
        found = [race.contenders.get(f"{whose} folded", race.contenders[whose]) for race in kin]
        points = sorted((one.macs / 1e9, one.median_ms / 1000) for one in found)
        family.append(Line(label=label, tone=tone, points=points, markers=True))
    rivals = []
    for tone, label, key in (
        ("theirs4", "scaled MCi2, timm", f"{FOUR_STAGES}, open_clip folded"),
        ("ours4", "scaled MCi2", f"{FOUR_STAGES}, ours folded"),
        ("theirs", "MCi3, timm", f"{FIVE_STAGES}, open_clip folded"),
        ("ours", "MCi3", f"{FIVE_STAGES}, ours folded"),
    ):
        points = [(int(race.name.split()[0]), race.contenders[key].median_ms / 1000) for race in sizes]
        rivals.append(Line(label=label, tone=tone, points=sorted(points), markers=True))
    panels = []
    if images:
        panels.append(
            _panel(family, x=10, title="Image towers, folded", x_label="MACs, billion", y_label="s")
        )
    if sizes:
        title = "MCi3 and the scaled MCi2, folded"
        panels.append(_panel(rivals, x=440, title=title, x_label="pixels a side", y_label="s"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 850 340"><style>{STYLE}</style>'
    return head + '<rect class="paper" width="850" height="340"/>' + "".join(panels) + "</svg>\n"


def _panel(lines: Sequence[Line], *, x: int, title: str, x_label: str, y_label: str) -> str:
    chart = line_chart(lines, alt=title, x_label=x_label, y_label=y_label, y_from_zero=True)
    parts = [f'<text class="title" x="{x}" y="20">{escape(title)}</text>']
    place = x
    for line in lines:
        parts.append(f'<text class="legend tone-{line.tone}" x="{place}" y="40">{escape(line.label)}</text>')
        place += 22 + 7 * len(line.label)
    placed = chart.replace("<svg ", f'<svg x="{x}" y="54" width="390" height="270" ', 1)
    return "".join([*parts, placed])


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
