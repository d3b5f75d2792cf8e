"""`pocketclip evaluate`: models on public sets and on one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome, UsageError, some

if TYPE_CHECKING:
    from pocketclip.evaluate.rows import Row
    from pocketclip.evaluate.sets import Missing
    from pocketclip.evaluate.suite import SuiteReport

_ROOT = Path("evalsets")
_FOREIGN = ("open_clip:", "hf-hub:", "transformers:", "python:")


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure models: DataComp's 38 sets and more by --tasks, retrieval on a packed folder by --data.

    With --tasks each set's result is kept as soon as it is there, in the layout in which results are published; the
    same command goes on after an interruption. Sets that are not there are told, with the line that fetches them.

    A task is a set's name (cifar10, vtab/pets), a suite (datacomp, imagenet-shifts, retrieval, sugarcrepe,
    long-captions, all), NAME=FOLDER or NAME=hf:ORG/NAME for any set. --list-tasks shows them.

    Examples:
        pocketclip evaluate demo/reinforced/checkpoint.safetensors --tasks emoji,cifar10
        pocketclip evaluate mine=m.safetensors open_clip:ViT-B-32/openai --tasks datacomp --data-root sets/ --out out/
        pocketclip evaluate m.safetensors --tasks cats=photos/cats,imagenet1k --out results.jsonl --strict
        pocketclip evaluate --list-tasks --data-root sets/
        pocketclip evaluate plain=runs/plain/checkpoint.safetensors kd=K.safetensors --data emoji/ --out r.json
    """

    models: Annotated[
        Positional[tuple[str, ...]], arg(metavar="[NAME=]CHECKPOINT ...", help_behavior_hint="(required)")
    ] = ()
    """Models to compare: checkpoints, folders written by `pocketclip export`, open_clip:MODEL/PRETRAINED,
    hf-hub:ORG/NAME, transformers:ORG/NAME; a run's folder is a model's name where none is given."""
    tasks: Annotated[str, arg(metavar="TASK,TASK ...", help_behavior_hint="(or --data)")] = ""
    """Sets to measure on."""
    data_root: Annotated[
        Path | None, arg(help_behavior_hint="(default: evalsets, and the demo's folder of its checkpoints)")
    ] = None
    """Folder with a folder for each set."""
    data: Annotated[Path | None, arg(help_behavior_hint="(or --tasks)")] = None
    """Folder written by `pocketclip pack`."""
    split: Annotated[
        tuple[str, ...],
        arg(metavar="SPLIT ...", help_behavior_hint="(default: the test splits, else validation)"),
    ] = ()
    """With --data: splits to evaluate on."""
    nway: int = 20
    """With --data: candidates of the n-way accuracy."""
    prompt: str = "{}"
    """With --data: what the models read for a caption, which takes the place of {}."""
    device: str = "cpu"
    """Where the models run: cpu, cuda, mps."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """With --tasks: what they compute in."""
    batch_size: int = 64
    """Pictures, and texts, a run of a network."""
    num_processes: int = 1
    """With --tasks: processes that share the pictures, each with the models of its own; on cuda they take the GPUs in
    turn."""
    threads: Annotated[int | None, arg(help_behavior_hint="(default: one a processor, at most 16)")] = None
    """With --tasks: of each process, that read and decode."""
    strict: bool = False
    """Exit with 1 when a set is missing."""
    list_tasks: bool = False
    """List the tasks and which of them are there; evaluate nothing."""
    out: Annotated[
        Path | None, arg(help_behavior_hint="(default: results/NAME.jsonl with --tasks, none with --data)")
    ] = None
    """Results: with --tasks a .jsonl, or a folder for several models; with --data the full report as JSON."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Evaluates."""
        if self.list_tasks:
            require("evaluate", ("train",))
            return _listing(self.data_root or _ROOT)
        models = _models(self.models)
        if bool(self.tasks) == (self.data is not None):
            raise UsageError(
                "evaluate needs --tasks emoji,cifar10,... or --data FOLDER written by `pocketclip pack`, one of the two"
            )
        require("evaluate", ("train",), device=self.device)
        return self._on_tasks(models) if self.data is None else self._on_splits(models, self.data)

    def _on_splits(self, models: Mapping[str, str], data: Path) -> Outcome:
        from pocketclip.data.publish import publish_file
        from pocketclip.evaluate import EvaluateConfig, evaluate

        config = EvaluateConfig(
            splits=self.split or _test_splits(data),
            batch_size=self.batch_size,
            nway=self.nway,
            prompt=self.prompt,
            device=self.device,
        )
        with (
            publish_file(self.out) if self.out else nullcontext() as file
        ):  # opened first: it may be impossible
            report = evaluate(models, data, config=config)
            if file:
                file.write(report.to_json().encode())
        return Outcome(report.table(), {"results": json.loads(report.to_json())["results"]})

    def _on_tasks(self, models: Mapping[str, str]) -> Outcome:
        from pocketclip.evaluate import SuiteConfig, SuiteReport, evaluate_tasks
        from pocketclip.evaluate.sets import locate

        roots = [self.data_root] if self.data_root else [_ROOT, *_demos(tuple(models.values()))]
        wanted, missing = locate([name for name in self.tasks.split(",") if name], roots=roots)
        out = _result_files(self.out, names=tuple(models))
        report = SuiteReport(rows=dict.fromkeys(models, ()), missing=())
        if wanted:
            report = evaluate_tasks(
                models,
                wanted,
                out=out,
                config=SuiteConfig(
                    batch_size=self.batch_size,
                    device=self.device,
                    precision=self.precision,
                    num_processes=self.num_processes,
                    threads=self.threads,
                ),
            )
        missing = (*missing, *report.missing)
        measured = any(report.rows.values())
        lines = [*_table(report.rows), *_kept(report, out=out)] if measured else []
        lines += _told(missing, strict=self.strict)
        return Outcome(
            "\n".join(lines).rstrip(),
            {
                "results": {
                    name: [json.loads(row.to_json()) for row in rows] for name, rows in report.rows.items()
                },
                "missing": [asdict(one) for one in missing],
            },
            code=1 if (missing and self.strict) or not measured else 0,
        )


def _models(texts: Sequence[str]) -> dict[str, str]:
    models: dict[str, str] = {}
    for text in texts:
        name, model = _named(text)
        if name in models:
            raise UsageError(f"two models are called {name}: name them, NAME={model}")
        models[name] = model
    if not models:
        raise UsageError("evaluate needs a checkpoint or more, [NAME=]CHECKPOINT")
    return models


def _named(text: str) -> tuple[str, str]:
    """NAME=MODEL, or MODEL, named after the run's folder, the exported folder, or as its library calls it."""
    name, separator, model = text.partition("=")
    if separator:
        if not name or not model:
            raise UsageError(f"{text!r} is not of the form NAME=CHECKPOINT")
        return name, model
    if text.startswith(_FOREIGN):
        return text.partition(":")[2].replace("/", "-"), text
    path = Path(text)
    if path.is_dir():
        return path.resolve().name, text
    return (path.parent.name or path.stem), text


def _demos(models: Sequence[str]) -> list[Path]:
    """The folders of demos whose checkpoints are evaluated: their emoji lie beside."""
    folders = dict.fromkeys(Path(model).parent.parent for model in models if not model.startswith(_FOREIGN))
    return [folder for folder in folders if (folder / "emoji" / "index.json").is_file()]


def _test_splits(data: Path) -> tuple[str, ...]:
    """The test splits of a packed folder, or its validation split where it has none."""
    from pocketclip.data.index import read_index

    splits = read_index(data).splits
    tests = tuple(name for name in splits if name.startswith("test"))
    if tests or "validation" in splits:
        return tests or ("validation",)
    raise ValueError(
        f"{data} has neither test splits nor validation: name one of {', '.join(splits)} with --split"
    )


def _result_files(out: Path | None, *, names: Sequence[str]) -> dict[str, Path]:
    """Where each model's results go."""
    if out is not None and out.suffix == ".jsonl":
        if len(names) > 1:
            raise UsageError(f"--out {out} is one file and there are {len(names)} models: give a folder")
        return {names[0]: out}
    return {name: (out or Path("results")) / f"{name}.jsonl" for name in names}


def _table(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Main metrics in percent, a set a line and a model a column, and what sums them up."""
    from pocketclip.evaluate.rows import average, robustness_gap, shift_average

    cells: dict[tuple[str, str], list[str]] = {}
    for number, results in enumerate(rows.values()):
        for row in results:
            metric = str(row.details.get("main_metric") or "no main metric")
            line = cells.setdefault((row.key, metric), [""] * len(rows))
            line[number] = _cell(row)
    averages = [average(results) for results in rows.values()]
    lines = [("set", "main metric", *rows)]
    lines += [(*head, *values) for head, values in cells.items()]
    if any(averages):
        label = next(found.label for found in averages if found)
        shown = [
            f"{100 * a.value:.1f}" + ("" if a.label == label else f" ({a.label})") if a else ""
            for a in averages
        ]
        lines.append((label, "", *shown))
    for label, summary in (("ImageNet shifts", shift_average), ("robustness gap", robustness_gap)):
        found = [summary(results) for results in rows.values()]
        if any(value is not None for value in found):
            lines.append((label, "", *("" if value is None else f"{100 * value:.1f}" for value in found)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ] + ["percent; ± half of the 95% bootstrap interval", ""]


def _cell(row: Row) -> str:
    interval = row.details.get("interval")
    if row.main is None:
        return "-"
    if not isinstance(interval, dict):
        return f"{100 * row.main:.1f}"
    low, high = interval["low"], interval["high"]
    assert isinstance(low, float)
    assert isinstance(high, float)
    return f"{100 * row.main:.1f} ±{50 * (high - low):.1f}"


def _kept(report: SuiteReport, *, out: Mapping[str, Path]) -> list[str]:
    lines = []
    for name, rows in report.rows.items():
        for row in rows:
            dropped = row.details.get("dropped")
            texts = [str(text).partition(": ")[::2] for text in dropped] if isinstance(dropped, list) else []
            lines += some(texts, what=f"pictures of {row.key} left out ({name})")
    if report.kept:
        lines.append(f"{len(report.kept)} of these were there already: {', '.join(report.kept)}")
    return [*lines, f"kept: {', '.join(str(out[name]) for name in report.rows)}"]


def _told(missing: Sequence[Missing], *, strict: bool) -> list[str]:
    if not missing:
        return []
    lines = ["", f"missing: {len(missing)} set{'s' if len(missing) > 1 else ''}, in no average"]
    for one in missing:
        lines.append(f"  {one.key} ({one.name}): {one.reason}")
        if one.command:
            lines.append(f"      {one.command}")
    return lines if strict else [*lines, "(--strict makes this an error)"]


def _listing(root: Path) -> Outcome:
    """Every task of the table, and whether it is in the root."""
    from pocketclip.evaluate.sets import locate
    from pocketclip.evaluate.tasks import SUITES, TASKS

    there = {one.task.key: one.place for one in locate(list(TASKS), roots=[root])[0]}
    width = max(map(len, TASKS))
    lines = [
        f"{task.key:<{width}}  {task.main_metric or '-':<21}  {task.size or '':>7}  "
        f"{there[task.key].layout if task.key in there else 'missing'}"
        for task in TASKS.values()
    ]
    head = f"{'task':<{width}}  {'main metric':<21}  {'pictures':>7}  in {root}"
    suites = f"suites: {', '.join(f'{name} ({len(keys)})' for name, keys in SUITES.items())}"
    values = [
        {"key": task.key, "main_metric": task.main_metric, "size": task.size, "there": task.key in there}
        for task in TASKS.values()
    ]
    return Outcome("\n".join([head, *lines, "", suites]), {"tasks": values})
