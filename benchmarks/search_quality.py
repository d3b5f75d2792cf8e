"""How well an index knows that nothing matches, excludes, mixes text and picture, and what prompts do to it.

    .venv/bin/python benchmarks/search_quality.py photos.index nothing
    .venv/bin/python benchmarks/search_quality.py photos.index excluding
    .venv/bin/python benchmarks/search_quality.py photos.index prompts
    .venv/bin/python benchmarks/search_quality.py photos.index mixing
    .venv/bin/python benchmarks/search_quality.py photos.index tags

Prints Markdown. The index must hold captions (a packed folder): a picture is right when its caption says so.

`nothing`: short captions are asked twice, of the index and of the index without all pictures whose captions share a
word with the query (removed); and texts that show nothing, none of which the thresholds have seen (nonsense). Shares
of these that have a hit. A hit is right in precision when its caption shares a word with the query. `excluding`:
"A -B", where captions say A, and some of them B; a picture is right when its caption has A and not B. `mixing`: a
picture of "man X" and the text "woman" should find "woman X". People, flags and skin tones are left out of single
queries, because their captions differ in one word that the eye can hardly see.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tyro.conf import Positional

from pocketclip.search import Query, SearchIndex
from pocketclip.search.direction import Term, balanced, combine, mean, unit, without
from pocketclip.search.prompts import TEMPLATES, prompts
from pocketclip.search.threshold import Calibration, calibrate
from pocketclip.search.vocabulary import embedded, word_list

NONSENSE = (
    *(
        "fiscal year end",
        "asdkjh",
        "tespi vorl",
        "the court's opinion",
        "nevertheless",
        "brumple stank",
        "xxxx",
    ),
    *(
        "interest payments due",
        "an unpaid invoice",
        "klorf",
        "philosophy of language",
        "as discussed yesterday",
    ),
    *("hypothesis testing", "grammar", "zopt lirn", "per se", "mumble grof", "tortious interference"),
    *(
        "please advise",
        "subsidiary rights",
        "an eigenvalue",
        "epistemology",
        "hereinafter",
        "gwurble",
        "of which",
    ),
    *("the second quarter", "terms and conditions", "a null hypothesis", "blorptang", "ceteris paribus"),
)
PAIRS = (
    *(("woman", "dark skin tone"), ("person", "light skin tone"), ("man", "beard"), ("family", "boy")),
    *(
        ("man", "facing right"),
        ("hand", "dark skin tone"),
        ("kiss", "dark skin tone"),
        ("man", "light skin tone"),
    ),
    *(
        ("person", "facing right"),
        ("face", "cat"),
        ("clock", "thirty"),
        ("teacher", "woman"),
        ("running", "woman"),
    ),
    *(
        ("health worker", "man"),
        ("couple", "woman"),
        ("firefighter", "medium skin tone"),
        ("astronaut", "woman"),
    ),
    *(
        ("surfing", "dark skin tone"),
        ("swimming", "man"),
        ("heart", "red"),
        ("square", "black"),
        ("moon", "face"),
    ),
    *(("circle", "red"), ("cat", "smiling"), ("arrow", "left"), ("book", "green"), ("woman", "running")),
)
_COMMON = frozenset(("with", "of", "and", "the", "a", "in", "on", "button", "sign", "face", "right", "left"))
_PEOPLE = re.compile(r"skin|woman|man\b|men|person|flag|hair|couple|family|button|facing|people")


@dataclass(frozen=True)
class Gallery:
    """An index in memory: vectors [N, D], captions [N]."""

    index: SearchIndex
    rows_ND: np.ndarray
    captions: np.ndarray

    def words(self, text: str) -> frozenset[str]:
        """Words that say something."""
        return frozenset(re.findall(r"[a-z]+", text.lower())) - _COMMON

    def has(self, phrase: str) -> np.ndarray:
        """Which captions have a phrase, bool [N]."""
        found = re.compile(rf"\b{re.escape(phrase)}\b")
        return np.array([found.search(caption) is not None for caption in self.captions])

    def asked(self, num: int) -> list[str]:
        """Short captions of things, at most so many."""
        short = [c for c in sorted(set(self.captions)) if len(c.split()) <= 3 and not _PEOPLE.search(c)]
        draw = np.random.default_rng(0).permutation(len(short))[:num]
        return [short[i] for i in draw]


def read(path: Path) -> Gallery:
    """Reads an index whole."""
    index = SearchIndex(path)
    ids, rows = zip(*index.reader.vectors.blocks(), strict=True)
    numbers = np.concatenate(ids).tolist()
    captions = [picture.caption or "" for picture in index.reader.items(numbers)]
    if not any(captions):
        raise ValueError(f"{path} holds no captions: index a packed folder")
    return Gallery(index, np.concatenate(rows), np.array(captions))


def nothing(gallery: Gallery) -> list[str]:
    """Recall and false alarms of thresholds."""
    index, words = gallery.index, [gallery.words(caption) for caption in gallery.captions]
    sample_SD = index.reader.vectors.sample(4096, seed=0)
    background_BD = embedded(index.model, word_list("background"), templates=index.templates)
    asked = gallery.asked(300)
    query_QD = np.stack([index.embed(Query(text=text)) for text in asked])
    empty_QD = np.stack([index.embed(Query(text=text)) for text in NONSENSE])
    score_QN = query_QD @ gallery.rows_ND.T
    right_Q = np.array(
        [gallery.captions[row.argmax()] == text for row, text in zip(score_QN, asked, strict=True)]
    )
    kept_QN = np.array([[not (has & gallery.words(text)) for has in words] for text in asked])
    best_Q, removed_Q = score_QN.max(axis=1), np.where(kept_QN, score_QN, -1).max(axis=1)
    nonsense_Q = (empty_QD @ gallery.rows_ND.T).max(axis=1)
    lines = [
        f"{len(index):,} items; {len(asked)} captions asked, the best picture is right for {right_Q.mean():.0%}; "
        f"{len(NONSENSE)} texts that show nothing",
        "",
        "| offset | quantile | found | found, best right | hits: precision | hits: recall | removed | nonsense |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for share in (0.0, 0.25, 0.5, 1.0):
        for quantile in (0.5, 0.6, 0.75, 0.9):
            made = calibrate(
                sample_SD, background_BD, num_items=len(index), offset_share=share, quantile=quantile
            )
            assert made is not None

            least_Q, least_E = _least(made, query_QD), _least(made, empty_QD)
            precision, recall = _hits(gallery, asked, score_QN >= least_Q[:, None])
            lines.append(
                f"| {share} | {quantile} | {np.mean(best_Q >= least_Q):.2f} | "
                f"{np.mean((best_Q >= least_Q)[right_Q]):.2f} | {precision:.2f} | {recall:.2f} | "
                f"{np.mean(removed_Q >= least_Q):.2f} | {np.mean(nonsense_Q >= least_E):.2f} |"
            )
    return lines


def _least(made: Calibration, rows_QD: np.ndarray) -> np.ndarray:
    return np.array([made.threshold([Term(vector_D=row_D, kind="text")]) for row_D in rows_QD])


def _hits(gallery: Gallery, asked: Sequence[str], accepted_QN: np.ndarray) -> tuple[float, float]:
    """Of all accepted pictures, those whose caption shares a word with the query; of the right ones, those accepted."""
    related = found = relevant = 0
    for text, accepted_N in zip(asked, accepted_QN, strict=True):
        words = gallery.words(text)
        related += sum(bool(words & gallery.words(caption)) for caption in gallery.captions[accepted_N])
        right_N = gallery.captions == text
        found, relevant = found + int((right_N & accepted_N).sum()), relevant + int(right_N.sum())
    return related / max(1, int(accepted_QN.sum())), found / max(1, relevant)


def excluding(gallery: Gallery) -> list[str]:
    """Ways of taking B out of A."""
    pairs = []
    for wanted, unwanted in PAIRS:
        has, lacks = gallery.has(wanted), ~gallery.has(unwanted)
        if (has & lacks).sum() >= 4 and (has & ~lacks).sum() >= 2:
            pairs.append((wanted, unwanted, has & lacks, has & ~lacks))
    embed = gallery.index.embed

    def subtract(amount: float) -> Callable[[str, str], np.ndarray]:
        return lambda wanted, unwanted: combine(
            without(
                [Term(vector_D=embed(Query(text=wanted)), kind="text")],
                embed(Query(text=unwanted))[None],
                amount=amount,
            )
        )

    def project(wanted: str, unwanted: str) -> np.ndarray:
        one, other = embed(Query(text=wanted)), embed(Query(text=unwanted))
        return unit(one - (one @ other) * other)

    def in_context(wanted: str, unwanted: str) -> np.ndarray:
        one, both = embed(Query(text=wanted)), embed(Query(text=f"{wanted} {unwanted}"))
        return unit(one - 0.5 * unit(both - one))

    ways = {"not at all": subtract(0.0)} | {
        f"subtract {a}": subtract(a) for a in (0.1, 0.2, 0.3, 0.4, 0.6, 1.0)
    }
    ways |= {"project out": project, 'subtract half of "A B" minus "A"': in_context}
    lines = [
        f"{len(pairs)} queries",
        "",
        "| way | mean AP | right in the first 20 | unwanted in the first 20 |",
    ]
    lines.append("|---|---|---|---|")
    for name, way in ways.items():
        rows = []
        for wanted, unwanted, right_N, bad_N in pairs:
            order = np.argsort(-(gallery.rows_ND @ way(wanted, unwanted)), kind="stable")
            ranked = right_N[order]
            precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
            first = order[: min(20, int(right_N.sum()))]
            rows.append((precision[ranked].mean(), right_N[first].mean(), bad_N[first].mean()))
        lines.append("| " + " | ".join([name, *(f"{value:.3f}" for value in np.mean(rows, axis=0))]) + " |")
    return lines


def prompting(gallery: Gallery) -> list[str]:
    """Bare texts, templates, and those templates that the model understands."""
    index = gallery.index
    asked = sorted({caption for caption in gallery.captions if len(caption.split()) <= 3})
    asked = [asked[i] for i in np.random.default_rng(0).permutation(len(asked))[:400]]
    lines = [
        f"{len(asked)} captions; understood: {index.templates or 'none'}",
        "",
        "| prompts | hit@1 | hit@10 |",
    ]
    lines.append("|---|---|---|")
    for name, templates in (("bare", ()), ("all templates", TEMPLATES), ("understood ones", index.templates)):
        ranks = []
        for text in asked:
            query_D = mean(index.embed_texts(prompts(text, templates)))
            order = np.argsort(-(gallery.rows_ND @ query_D), kind="stable")[:10]
            ranks.append(gallery.captions[order] == text)
        lines.append(
            f"| {name} | {np.mean([r[0] for r in ranks]):.3f} | {np.mean([r.any() for r in ranks]):.3f} |"
        )
    return lines


def mixing(gallery: Gallery) -> list[str]:
    """A picture of "man X" and the text "woman": is "woman X" found?"""
    captions = {caption: row for row, caption in reversed(list(enumerate(gallery.captions.tolist())))}
    pairs = [
        (caption, f"wo{caption}")
        for caption in captions
        if caption.startswith("man ") and f"wo{caption}" in captions
    ]
    pairs = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))[:200]]
    sample_SD = gallery.index.reader.vectors.sample(4096, seed=0)
    text = Term(vector_D=gallery.index.embed(Query(text="woman")), kind="text")
    lines = [
        f"{len(pairs)} pictures",
        "",
        "| weight of the text | plain sum: hit@5 | balanced: hit@5 |",
        "|---|---|---|",
    ]
    for weight in (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0):
        found = []
        for source, target in pairs:
            picture = Term(vector_D=gallery.rows_ND[captions[source]], kind="picture")
            plain = unit(weight * text.vector_D + (1 - weight) * picture.vector_D)
            even = combine(balanced(text, picture, text_weight=weight, sample_SD=sample_SD))
            row = []
            for query_D in (plain, even):
                order = np.argsort(-(gallery.rows_ND @ query_D), kind="stable")
                row.append(target in gallery.captions[order[order != captions[source]][:5]])
            found.append(row)
        lines.append(f"| {weight} | " + " | ".join(f"{value:.3f}" for value in np.mean(found, axis=0)) + " |")
    return lines


def tagging(gallery: Gallery) -> list[str]:
    """Everyday words as tags: how often the caption has the word, at several quantiles and numbers of tags."""
    index = gallery.index
    labels = [label for label in word_list("labels") if gallery.has(label).sum() >= 2]
    label_LD = embedded(index.model, labels, templates=index.templates)
    sample_SD = index.reader.vectors.sample(4096, seed=0)
    background_BD = embedded(index.model, word_list("background"), templates=index.templates)
    right_NL = np.stack([gallery.has(label) for label in labels], axis=1)
    score_NL = gallery.rows_ND @ label_LD.T
    lines = [f"{len(labels)} labels; of all pairs {right_NL.mean():.3f} are right", ""]
    lines += [
        "| quantile | tags of a picture at most | tags given | right | of the right ones, given |",
        "|---|---|---|---|---|",
    ]
    for quantile in (0.5, 0.75, 0.9, 0.98):
        made = calibrate(sample_SD, background_BD, num_items=len(index), quantile=quantile)
        assert made is not None
        above_NL = score_NL - _least(made, label_LD)
        rank_NL = np.argsort(np.argsort(-above_NL, axis=1), axis=1)
        for most in (1, 5):
            given_NL = (above_NL >= 0) & (rank_NL < most)
            both = int((given_NL & right_NL).sum())
            lines.append(
                f"| {quantile} | {most} | {given_NL.sum()} | {both / max(1, given_NL.sum()):.2f} | "
                f"{both / right_NL.sum():.3f} |"
            )
    return lines


MEASURES = {
    "nothing": nothing,
    "excluding": excluding,
    "prompts": prompting,
    "mixing": mixing,
    "tags": tagging,
}


def main(index: Positional[Path], measure: Positional[str]) -> None:
    """Measures a search's quality.

    Args:
        index: folder written by `pocketclip index`, of a packed folder with captions.
        measure: nothing, excluding, prompts, mixing or tags.
    """
    if measure not in MEASURES:
        sys.exit(f"{measure!r} is none of {', '.join(MEASURES)}")
    print("\n".join(MEASURES[measure](read(index))))


if __name__ == "__main__":
    tyro.cli(main)
