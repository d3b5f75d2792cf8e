"""DataComp's baselines by name (arXiv 2304.14108, section 3.4; github.com/mlfoundations/datacomp, baselines).

They expect scores under the names `b32` and `l14`, OpenAI's CLIP ViT-B/32 and ViT-L/14:

    pocketclip score POOL SCORES --teacher b32=open_clip:ViT-B-32/openai l14=open_clip:ViT-L-14/openai

What differs here: languages are told by py3langid, where DataComp takes fastText and, for LAION-2B, CLD3; words are
what white space parts, where its image-based filter counts fastText's tokens; a top fraction keeps exactly so many
rows, where DataComp keeps all that reach the value of the row after them. Its text-based filter asks WordNet for the
first synset of each word and looks that up among ImageNet-21k's: here a list of words decides (`score --words FILE`),
those whose first synset is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pocketclip.filter.config import Top
from pocketclip.filter.rules import Rule, parse_rule


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A named filtering.

    Attributes:
        rules: on the columns.
        tops: cuts of the whole pool.
        has_clusters: whether a file of clusters has to be given: image-based filtering.
        about: one line.
    """

    rules: tuple[Rule, ...] = ()
    tops: tuple[Top, ...] = ()
    has_clusters: bool = False
    about: str


_ENGLISH = parse_rule("language=en")
_CAPTION = (_ENGLISH, parse_rule("words>=2"), parse_rule("chars>=6"))
_L14 = Top(column="score/l14", fraction=0.3)

BASELINES: Mapping[str, Baseline] = {
    "no_filter": Baseline(about="everything"),
    "basic_filtering": Baseline(
        rules=(
            _ENGLISH,
            parse_rule("words>=3"),
            parse_rule("chars>=6"),
            parse_rule("min_side>=200"),
            parse_rule("aspect<=3"),
        ),
        about="English captions of 3 words and 6 characters or more, sides of 200 pixels and more, ratio up to 3",
    ),
    "clip_score_b32_30": Baseline(
        tops=(Top(column="score/b32", fraction=0.3),), about="the 30% with the highest ViT-B/32 score"
    ),
    "clip_score_l14_30": Baseline(tops=(_L14,), about="the 30% with the highest ViT-L/14 score"),
    "laion2b": Baseline(
        rules=(_ENGLISH, parse_rule("score/b32>=0.28")),
        about="English captions with a ViT-B/32 score of 0.28 or more, as LAION-2B was made",
    ),
    "text_based": Baseline(
        rules=(_ENGLISH, parse_rule("listed>=1")),
        about="English captions with a word of the list that scores were made with",
    ),
    "image_based": Baseline(
        rules=_CAPTION,
        has_clusters=True,
        about="English captions of 2 words and 6 characters or more, pictures nearest to wanted clusters",
    ),
    "image_based_clip_score_l14_30": Baseline(
        rules=_CAPTION,
        tops=(_L14,),
        has_clusters=True,
        about="image_based, and among the 30% of the whole pool with the highest ViT-L/14 score: DataComp-1B",
    ),
}
