"""Filters a scored pool: decides, writes what is kept, and says why."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from pocketclip.data.index import INDEX_FILE, Dropped, ShardIndex, read_index, write_index
from pocketclip.data.publish import publish_file
from pocketclip.data.sample import JsonValue, Sample
from pocketclip.data.shard import ShardReader
from pocketclip.filter.config import FilterConfig
from pocketclip.filter.decide import Decision, decide
from pocketclip.filter.language import SCRIPT_CODES
from pocketclip.filter.report import Example, Spread, choose_examples, report_json, spreads
from pocketclip.filter.scores import Pool
from pocketclip.filter.sheet import draw_sheet
from pocketclip.filter.write import Sources, joined_index, write_keys, write_parts, write_shards

REPORT_FILE, PAGE_FILE, SHEET_FILE = "report.json", "report.html", "sheet.png"
_BEGUN = ".filtering"


def filter_pool(scores: Sequence[Path], out: Path, *, config: FilterConfig) -> Decision:
    """Writes `out`: kept.txt, report.json, report.html, sheet.png, and what `config.output` asks for.

    The same scores and configuration give the same files. `index.json`, which makes `out` a packed folder, comes last;
    a folder that has one of the same filtering is made again, one of anything else is left alone.

    Args:
        scores: folders that `pocketclip score` wrote, one pool together, or one pool each in a mixture.
        out: the folder to make.
        config: what is kept.

    Raises:
        ValueError: nothing is kept; a column is not there; shards and scores do not belong together; `out` holds
            something else.
        FileNotFoundError: there are no such scores, or the shards behind them are gone.
        PublishError: `out` cannot be written.
    """
    out = Path(out)
    pool = Pool([Path(folder) for folder in scores], split=config.split)
    sources = None if config.output == "ids" else Sources(pool, split=config.split)
    described = _described(pool, config)
    _check_free(out, digest=str(described["digest"]))
    _check_languages(pool, config)
    decision = decide(pool, config)
    with publish_file(out / _BEGUN) as file:
        file.write(str(described["digest"]).encode())
    write_keys(pool, decision, out)
    spread = spreads(pool, decision)
    examples = _examples(pool, decision, spread, config=config)
    report = report_json(pool, decision, spread, config=described)
    sheet = draw_sheet(
        decision,
        spread[:4],
        examples,
        heading=", ".join(str(folder) for folder in pool.folders),
        by=_by(spread, config),
    )
    with publish_file(out / SHEET_FILE) as file:
        sheet.save(file, "PNG", optimize=True)
    with publish_file(out / REPORT_FILE) as file:
        file.write(json.dumps(report, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")
    with publish_file(out / PAGE_FILE) as file:
        file.write(_page(decision, spread, pool).encode())
    if sources is not None:
        _write(pool, decision, out, sources=sources, config=config, described=described)
    (out / _BEGUN).unlink(missing_ok=True)
    return decision


def _write(
    pool: Pool,
    decision: Decision,
    out: Path,
    *,
    sources: Sources,
    config: FilterConfig,
    described: dict[str, JsonValue],
) -> None:
    """The parts or shards, and the index, last."""
    if config.output == "virtual":
        entries = write_parts(pool, decision, out, sources=sources, split=config.split)
    else:
        with tqdm(total=decision.num_kept, desc="filter", unit="sample") as bar:
            entries = write_shards(
                pool, decision, out, sources=sources, split=config.split, progress=bar.update
            )
    reasons = tuple(
        Dropped(source=f"{step.num_dropped} samples", reason=step.name)
        for step in decision.steps
        if step.num_dropped
    )
    facts = {**_inherited(sources.indexes), **described}
    facts["num_dropped"] = int((decision.times_N == 0).sum())
    write_index(out, joined_index(sources, entries, split=config.split, config=facts, dropped=reasons))


def _inherited(indexes: Sequence[ShardIndex]) -> dict[str, JsonValue]:
    """What the indexes of the shards say alike of their samples: teachers, views and codec of reinforced ones."""
    first = indexes[0].config
    return {
        name: first[name]
        for name in ("teachers", "num_views", "codec", "errors")
        if name in first and all(index.config.get(name) == first[name] for index in indexes)
    }


def _described(pool: Pool, config: FilterConfig) -> dict[str, JsonValue]:
    content = json.loads(json.dumps(asdict(config)))
    content["scores"] = [index.config.get("digest") for index in pool.indexes]
    content["data"] = [index.config.get("data_digest") for index in pool.indexes]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {"verb": "filter", "digest": digest, "filter": content}


def _check_free(out: Path, *, digest: str) -> None:
    """Makes sure that the folder is empty, or this filtering's."""
    if (out / _BEGUN).is_file():
        begun = (out / _BEGUN).read_text(encoding="utf-8")
    elif (out / INDEX_FILE).is_file():
        begun = str(read_index(out).config.get("digest"))
    elif (out / REPORT_FILE).is_file():
        begun = str(json.loads((out / REPORT_FILE).read_bytes()).get("config", {}).get("digest"))
    else:
        stranger = next(iter(sorted(out.iterdir())), None) if out.is_dir() else None
        if stranger is not None:
            raise ValueError(
                f"{out} holds other files ({stranger.name}): choose an empty or new output folder"
            )
        begun = digest
    if begun != digest:
        raise ValueError(
            f"{out} was filtered by other rules or from other scores: choose another folder, or delete this one"
        )


def _check_languages(pool: Pool, config: FilterConfig) -> None:
    """ValueError when a rule names a language that the scores cannot tell."""
    asked = [code for rule in config.rules if rule.column == "language" for code in map(str, rule.values)]
    untold = [code for code in asked if code not in SCRIPT_CODES]
    for folder, index in zip(pool.folders, pool.indexes, strict=True):
        if untold and index.config.get("languages_by") == "script":
            raise ValueError(
                f"{folder} was scored without py3langid, by scripts alone, and does not tell {untold[0]!r} from other "
                "languages of its script: pip install 'pocketclip[filter]', and score again into another folder"
            )


def _by(spread: Sequence[Spread], config: FilterConfig) -> str | None:
    """The score by which examples are parted into tenths."""
    names = [one.name for one in spread]
    wanted = [top.column for top in config.tops if top.column in names]
    return next(iter([*wanted, *names]), None)


def _examples(
    pool: Pool, decision: Decision, spread: Sequence[Spread], *, config: FilterConfig
) -> list[tuple[Example, Sample | None]]:
    name = _by(spread, config)
    by = next((one for one in spread if one.name == name), None)
    if by is None or not (by.kept_H.sum() + by.dropped_H.sum()):
        return []
    chosen = choose_examples(pool, decision, by, num=config.examples, seed=config.seed)
    try:
        sources = Sources(pool, split=config.split)
    except (ValueError, FileNotFoundError):
        return []  # scores without their pictures: there is nothing to look at
    samples: dict[tuple[int, int], Sample] = {}
    for first in dict.fromkeys(example.file.first for example in chosen):
        mine = [example for example in chosen if example.file.first == first]
        with ShardReader(sources.of(mine[0].file).path) as reader:
            for example in mine:
                samples[first, example.row] = reader[example.row]
    return [(example, samples[example.file.first, example.row]) for example in chosen]


def _page(decision: Decision, spread: Sequence[Spread], pool: Pool) -> str:
    """The report as a page; the sheet beside it is its picture."""
    left = len(decision.times_N)
    rows = []
    for step in decision.steps:
        left -= step.num_dropped
        alone = "" if step.num_failing is None else f"{step.num_failing:,}"
        facts = ", ".join(
            f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value:,}"
            for name, value in step.facts.items()
        )
        cells = [html.escape(step.name), f"{step.num_dropped:,}", alone, f"{left:,}", html.escape(facts)]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    tenths = "".join(
        f"<tr><td>{html.escape(one.name)}</td>"
        + "".join(f"<td>{edge:.3f}</td>" for edge in one.edges().tolist())
        + f"<td>{one.num_unscored:,}</td></tr>"
        for one in spread
    )
    folders = html.escape(", ".join(str(folder) for folder in pool.folders))
    tenth_heads = "".join(f"<th>{10 * number}%</th>" for number in range(1, 10))
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>What was kept of {folders}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1c2026;
background:#f6f7f9}}table{{border-collapse:collapse;background:#fff;margin:1rem 0}}
td,th{{border:1px solid #dee1e6;padding:.3rem .7rem;text-align:left}}td{{font-variant-numeric:tabular-nums}}
img{{max-width:100%;border:1px solid #dee1e6}}</style>
<h1>{decision.num_kept:,} of {len(decision.times_N):,} samples are kept</h1><p>{folders}</p>
<table><tr><th>step</th><th>dropped</th><th>of the whole pool it would drop</th><th>left</th><th></th></tr>
{"".join(rows)}</table>
<table><tr><th>score below which are</th>{tenth_heads}<th>unscored</th></tr>{tenths}</table>
<img src="{SHEET_FILE}" alt="Histograms of the scores; pictures kept and dropped in each tenth">
</html>
"""
