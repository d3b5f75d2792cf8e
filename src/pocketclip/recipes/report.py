"""One self-contained HTML page that shows what a run of the whole road found, and says no more than the numbers do."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from pocketclip.data.publish import publish_file
from pocketclip.evaluate.bootstrap import Interval
from pocketclip.recipes.report_content import (
    METRIC,
    Command,
    ReportContent,
    Sheet,
    chance,
    equal_steps,
    headline,
    points,
    short_name,
    sign,
)
from pocketclip.recipes.svg import Bar, Line, bar_chart, difference_chart, line_chart, running_mean, signed

__all__ = ["Command", "ReportContent", "Sheet", "render", "write_report"]

QUESTIONS: Mapping[str, str] = {
    "test-style": "Is a concept recognised in a drawing style in which training never showed it?",
    "test-composition": "Is an unseen combination of seen parts understood?",
    "test-unseen": "Is a concept found that training never showed at all?",
}
_MOST_DROPPED = 200
_PNG = b"\x89PNG\r\n\x1a\n"
_LINK = re.compile(r"https?://[^\s<>\"')]+[^\s<>\"').,;]")


def write_report(path: Path, *, content: ReportContent) -> None:
    """Publish the page: one HTML file that loads nothing, for light, dark, narrow screens and paper.

    Args:
        path: of the HTML file.
        content: what it shows.

    Raises:
        ValueError: a model that the report does not hold, or a contact sheet that is no PNG.
        OSError: a contact sheet is missing, or the page cannot be written.
    """
    with publish_file(path) as file:
        file.write(render(content).encode())


def render(content: ReportContent) -> str:
    """The page as HTML text; every text of `content` is escaped."""
    style = resources.files("pocketclip.recipes").joinpath("report.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    sections = [_results(content), _training(content), _retrievals(content), _search(content)]
    sections += [_time(content), _data(content), _reading(content)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(content.title)}</title>\n"
        f'<link rel="icon" href="data:,">\n<style>\n{style}</style>\n</head>\n<body>\n<div class="page">\n'
        f'<header>\n<h1>{escape(content.title)}</h1>\n<p class="summary">{escape(content.summary)}</p>\n</header>\n'
        f"<main>\n{_verdict(content)}\n{chr(10).join(filter(None, sections))}\n</main>\n{_footer(content)}\n"
        "</div>\n</body>\n</html>\n"
    )


def _verdict(content: ReportContent) -> str:
    report = content.report
    first = next(iter(report.splits))
    gains = {split: report.compare(content.reinforced, content.plain, split=split) for split in report.splits}
    bars = [
        Bar(
            label=short_name(split),
            tone={"gain": "hero", "loss": "plain", "unclear": "ink"}[sign(gain)],
            value=100 * gain.value,
            low=100 * gain.low,
            high=100 * gain.high,
        )
        for split, gain in gains.items()
    ]
    told = "; ".join(
        f"{bar.label} {signed(bar.value)} ({signed(bar.low)} to {signed(bar.high)})" for bar in bars
    )
    chart = difference_chart(
        bars, unit="points of mean recall@1", alt=f"Reinforced minus plain student, in points: {told}"
    )
    sentence = headline(report, plain=content.plain, reinforced=content.reinforced)
    level = f"{report.config.level:.0%}"
    return (
        f'<div class="verdict {sign(gains[first])}">\n<div>\n'
        f'<p class="figure">{points(gains[first].value)}<small>points, {escape(short_name(first))} test</small></p>\n'
        f'<p class="headline">{escape(" ".join(filter(None, [sentence, equal_steps(content)])))}</p>\n</div>\n'
        f"<figure>\n<figcaption><h2>Reinforced minus plain student</h2>Mean recall@1, paired on the same queries, with "
        f"{level} intervals over queries (they do not cover another seed).</figcaption>\n{chart}\n</figure>\n</div>"
    )


def _results(content: ReportContent) -> str:
    report, tones = content.report, _tones(content)
    scores = {(r.model, r.split): r.scores[METRIC] for r in report.results}
    limit = 100 * max(score.high for score in scores.values())
    panels = []
    for split in report.splits:
        bars = [
            Bar(
                label=model,
                tone=tones[model],
                value=100 * score.value,
                low=100 * score.low,
                high=100 * score.high,
            )
            for model in report.models
            for score in [scores[model, split]]
        ]
        told = "; ".join(f"{bar.label} {bar.value:.1f}%" for bar in bars)
        chart = bar_chart(bars, limit=limit, unit="%", alt=f"Mean recall@1, {short_name(split)}: {told}")
        question = f" {escape(QUESTIONS[split])}" if split in QUESTIONS else ""
        panels.append(
            f"<figure>\n<figcaption><h3>{escape(_title(split))}</h3>{question}</figcaption>\n{chart}\n</figure>"
        )
    side = f"Mean recall@1 of both directions, with {report.config.level:.0%} bootstrap intervals."
    body = f'<div class="panels">\n{chr(10).join(panels)}\n</div>\n{_table(content, tones)}'
    return _section("results", "Test sets", side, body)


def _table(content: ReportContent, tones: Mapping[str, str]) -> str:
    report = content.report
    heads = [
        "R@1, mean",
        "R@1, image to text",
        "R@1, text to image",
        "R@5, mean",
        f"{report.config.nway}-way accuracy",
    ]
    parameters = any(facts.image_parameters for facts in report.models.values())
    columns = ["Model", *(["Parameters"] if parameters else []), *heads]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    bodies = []
    for split, facts in report.splits.items():
        rows = [
            f'<tr><th scope="rowgroup" colspan="{len(columns)}"><b>{escape(_title(split))}</b>'
            f"{len(facts.image_keys):,} pictures, {len(facts.texts):,} captions, "
            f"chance R@1 {chance(facts):.2%}</th></tr>"
        ]
        for model in report.models:
            cells = [f"<td>{_parameters(content, model)}</td>"] if parameters else []
            cells += _score_cells(report.result(model, split).scores)
            kind = ' class="hero"' if model == content.reinforced else ""
            swatch = f'<span class="swatch tone-{tones[model]}"></span>'
            rows.append(f'<tr{kind}><th scope="row">{swatch}{escape(model)}</th>{"".join(cells)}</tr>')
        gain = report.compare(content.reinforced, content.plain, split=split)
        empty = "<td></td>" * (len(columns) - 2 - parameters)
        rows.append(
            '<tr class="difference"><th scope="row">reinforced minus plain</th>'
            + ("<td></td>" if parameters else "")
            + f'<td>{points(gain.value)}<span class="pm">{points(gain.low)} to {points(gain.high)}</span></td>'
            + f"{empty}</tr>"
        )
        bodies.append(f"<tbody>\n{chr(10).join(rows)}\n</tbody>")
    caption = f"Percent; the small figures are {report.config.level:.0%} intervals."
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of results">\n<table class="results">\n'
        f"<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n{chr(10).join(bodies)}\n</table>\n</div>"
    )


def _score_cells(scores: Mapping[str, Interval]) -> list[str]:
    cells = [
        f'<td>{100 * score.value:.1f}<span class="pm">{100 * score.low:.1f} to {100 * score.high:.1f}</span></td>'
        for score in (scores[METRIC], scores["image_to_text_recall@1"], scores["text_to_image_recall@1"])
    ]
    return cells + [f"<td>{100 * scores[name].value:.1f}</td>" for name in ("mean_recall@5", "nway_accuracy")]


def _training(content: ReportContent) -> str:
    if not content.curves:
        return ""
    tones = _tones(content)
    loss, recall = [], []
    for name, records in content.curves.items():
        by_step = _merged(records)
        losses = [(step, record["loss"]) for step, record in by_step.items() if "loss" in record]
        window = max(3, len(losses) // 20)
        smooth = running_mean([value for _, value in losses], window=window)
        smoothed = [(step, value) for (step, _), value in zip(losses, smooth, strict=True)]
        loss.append(Line(label=name, tone=tones[name], points=smoothed, raw=losses))
        key = next((key for record in by_step.values() for key in record if key.endswith("/" + METRIC)), None)
        found = [(step, 100 * record[key]) for step, record in by_step.items() if key in record]
        recall.append(Line(label=name, tone=tones[name], points=found, markers=True))
    order = {"hero": 2, "plain": 1}
    loss, recall = (sorted(lines, key=lambda line: order.get(line.tone, 0)) for lines in (loss, recall))
    ends = "; ".join(f"{line.label} {line.points[-1][1]:.1f}%" for line in recall if line.points)
    charts = (
        "<figure>\n<figcaption><h3>Training loss</h3>Running mean over each run's raw values (faint).</figcaption>\n"
        + line_chart(loss, alt="Training loss against steps", x_label="steps", y_label="loss, nats")
        + "\n</figure>\n<figure>\n<figcaption><h3>Validation</h3>Mean recall@1 on the validation pictures."
        "</figcaption>\n"
        + line_chart(
            recall,
            alt=f"Validation mean recall@1 against steps; at the end: {ends}",
            x_label="steps",
            y_label="mean recall@1, %",
            y_from_zero=True,
        )
        + "\n</figure>"
    )
    legend = "".join(
        f'<li><span class="key tone-{tones[name]}"></span>{escape(name)}</li>' for name in content.curves
    )
    side = "The two students minimise different losses: compare the shapes of their curves, not the heights."
    body = f'<ul class="legend">{legend}</ul>\n<div class="panels wide">\n{charts}\n</div>'
    return _section("training", "Training", side, body)


def _retrievals(content: ReportContent) -> str:
    if not content.sheets:
        return ""
    figures = []
    for sheet in content.sheets:
        data, width, height = _png(sheet.path)
        source = "data:image/png;base64," + base64.b64encode(data).decode()
        figures.append(
            f"<figure>\n<figcaption><h3>{escape(sheet.title)}</h3>{escape(sheet.caption)}</figcaption>\n"
            f'<img src="{source}" alt="{escape(sheet.alt or sheet.title)}" width="{width}" height="{height}">'
            "\n</figure>"
        )
    side = "Answers of the exported model, the good ones and the bad ones."
    return _section(
        "retrievals", "Retrievals", side, f'<div class="panels stack">\n{chr(10).join(figures)}\n</div>'
    )


def _search(content: ReportContent) -> str:
    blocks = [
        f'<div class="command"><p>{escape(command.purpose)}</p><pre><code>{escape(command.text)}</code></pre></div>'
        for command in content.commands
    ]
    return _section("search", "Try it", "", "\n".join(blocks)) if blocks else ""


def _time(content: ReportContent) -> str:
    if not content.timings:
        return ""
    total = sum(seconds for _, seconds in content.timings)
    longest = max(seconds for _, seconds in content.timings) or 1.0
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f'<td class="share" aria-hidden="true"><i style="width:{100 * seconds / longest:.1f}%"></i></td>'
        f"<td>{duration(seconds)}</td></tr>"
        for name, seconds in content.timings
    )
    body = (
        '<table>\n<thead><tr><th scope="col">Step</th><td aria-hidden="true"></td><th scope="col">Wall-clock</th></tr>'
        f'</thead>\n<tbody>\n{rows}\n</tbody>\n<tfoot><tr><th scope="row">Total</th><td aria-hidden="true"></td>'
        f"<td>{duration(total)}</td></tr></tfoot>\n</table>"
    )
    return _section("time", "Time", "", body)


def _data(content: ReportContent) -> str:
    index = content.index
    rows = "\n".join(
        f'<tr><th scope="row">{escape(split)}</th><td>{index.num_samples(split):,}</td></tr>'
        for split in index.splits
    )
    body = (
        '<table>\n<thead><tr><th scope="col">Split</th><th scope="col">Pictures</th></tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n<tfoot><tr>"
        f'<th scope="row">Total</th><td>{index.num_samples():,}</td></tr></tfoot>\n'
        "</table>"
    )
    lines = {name: f"{count:,} pictures" for name, count in index.licences.items()}
    lines |= content.facts
    if lines:
        terms = "".join(f"<dt>{escape(name)}</dt><dd>{_linked(text)}</dd>" for name, text in lines.items())
        body = f'<div class="panels facts-beside">\n{body}\n<dl class="facts">{terms}</dl>\n</div>'
    dropped = [(d.source, d.reason) for d in index.dropped]
    dropped += [(d.source, d.reason) for facts in content.report.splits.values() for d in facts.skipped]
    if dropped:
        shown = dropped[:_MOST_DROPPED]
        items = "".join(f"<li>{escape(source)}: {escape(reason)}</li>" for source, reason in shown)
        if len(dropped) > len(shown):
            items += f"<li>and {len(dropped) - len(shown):,} more, all of them in the folder's index</li>"
        body += f"\n<details><summary>{len(dropped):,} left out</summary><ul>{items}</ul></details>"
    else:
        body += "\n<p>Nothing was left out.</p>"
    return _section("data", "Data", f"Packed from {index.source}.", body)


def _reading(content: ReportContent) -> str:
    config = content.report.config
    notes = [
        "Each test set is a gallery of its own: a picture is matched with all its distinct captions, a caption with "
        "all its pictures. Any picture with that caption counts as right.",
        "Recall@k is the share of queries with a right answer among the first k. Ties count against the model.",
        f"{config.nway}-way accuracy is the chance of picking a picture's caption among {config.nway} of the "
        "test set's, computed over all sets of wrong captions rather than sampled.",
        f"Intervals hold {config.level:.0%} of {config.resamples:,} bootstrap draws over concepts "
        f"(seed {config.seed}). "
        "They do not cover what training again with another seed would change.",
    ]
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return _section("reading", "How to read this", "", f'<ul class="notes">{items}</ul>')


def _footer(content: ReportContent) -> str:
    lines = [f"<p>{_linked(text)}</p>" for text in content.index.attribution]
    if lines:
        lines.insert(0, "<p>The pictures on this page are the work of others:</p>")
    return f"<footer>\n{chr(10).join([*lines, '<p>Made with pocketclip.</p>'])}\n</footer>"


def _section(name: str, title: str, side: str, body: str) -> str:
    aside = f'<p class="side">{escape(side)}</p>' if side else ""
    return (
        f'<section aria-labelledby="{name}">\n<div><h2 id="{name}">{escape(title)}</h2>{aside}</div>\n'
        f'<div class="body">\n{body}\n</div>\n</section>'
    )


def _tones(content: ReportContent) -> dict[str, str]:
    """Model or run -> class suffix of its colour."""
    tones = {content.plain: "plain", content.reinforced: "hero"}
    tones |= {name: f"t{1 + number % 2}" for number, name in enumerate(content.teachers)}
    others = [name for name in (*content.report.models, *content.curves) if name not in tones]
    return tones | {name: f"o{1 + number % 2}" for number, name in enumerate(dict.fromkeys(others))}


def _merged(records: Sequence[Mapping[str, float]]) -> dict[int, dict[str, float]]:
    """Records of one step joined, in order of step; of a step that was taken twice the later record."""
    by_step: dict[int, dict[str, float]] = {}
    for record in records:
        if "step" in record:
            by_step.setdefault(int(record["step"]), {}).update(record)
    return dict(sorted(by_step.items()))


def _parameters(content: ReportContent, model: str) -> str:
    facts = content.report.models[model]
    if facts.image_parameters is None or facts.text_parameters is None:
        return "unknown"
    count = facts.image_parameters + facts.text_parameters
    return f"{count / 1e6:.1f}\N{NO-BREAK SPACE}M"


def duration(seconds: float) -> str:
    """Seconds as people say them: "4.2 s", "38 s", "2 min 04 s", "1 h 02 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _png(path: Path) -> tuple[bytes, int, int]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"contact sheet {path} is missing: run the search step again")
    data = Path(path).read_bytes()
    if not data.startswith(_PNG) or len(data) < 24:
        raise ValueError(f"contact sheet {path} is not a PNG picture: run the search step again")
    return data, int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _linked(text: str) -> str:
    """Escaped text with its web addresses as links."""
    parts, at = [], 0
    for match in _LINK.finditer(text):
        address = escape(match.group())
        parts += [escape(text[at : match.start()]), f'<a href="{address}">{address}</a>']
        at = match.end()
    return "".join(parts) + escape(text[at:])


def _title(split: str) -> str:
    return short_name(split).replace("-", " ").capitalize()
