"""What a reinforcement tells of a shard comes back from the books as it was, and nothing else is believed."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from pocketclip.data.codec_error import CodecError
from pocketclip.engine import Facts
from pocketclip.reinforce.worker import VERB, ErrorTally

ERROR = CodecError(cosine_mean=1.0, cosine_min=0.5, target_kl=0.0, target_tv=0.25)
MORE = {"num_texts": 6, "errors": {"image/t": asdict(ERROR)}, "teachers": {"t": "digest"}, "captioners": {}}


def facts(num_samples, **more):
    return Facts(
        num_samples=num_samples,
        num_bytes=4,
        sha256="abc",
        input_sha256="def",
        dropped=(),
        licences={},
        seconds={},
        more={**MORE, **more},
    )


@pytest.mark.parametrize(
    "more",
    [
        {name: value for name, value in MORE.items() if name != "errors"},
        {**MORE, "more": 1},
        {**MORE, "num_texts": "6"},
        {**MORE, "errors": {"image/t": {"cosine_mean": 1.0}}},
        {**MORE, "teachers": ["t"]},
    ],
)
def test_facts_of_another_kind_are_not_believed(more):
    VERB.check(MORE)
    with pytest.raises(ValueError, match=r"."):
        VERB.check(more)


def test_errors_are_pooled_by_rows_whatever_the_order_of_their_tables():
    tally, reverse = ErrorTally(num_views=3), ErrorTally(num_views=3)
    worse = CodecError(cosine_mean=0.5, cosine_min=0.25, target_kl=0.5, target_tv=0.5)
    tables = {"image/t": asdict(ERROR), "text/t": asdict(ERROR)}
    bad = {"image/t": asdict(worse), "text/t": asdict(worse)}
    for one, order in ((tally, list), (reverse, reversed)):
        one.add(facts(2, errors={name: tables[name] for name in order(list(tables))}))
        one.add(facts(6, errors={name: bad[name] for name in order(list(bad))}, num_texts=2))
    errors = tally.facts()["errors"]
    assert list(errors.items()) == list(reverse.facts()["errors"].items())
    assert errors["image/t"]["cosine_mean"] == pytest.approx(
        (2 * 1.0 + 6 * 0.5) / 8
    )  # views of 2 and 6 pictures
    assert errors["text/t"]["cosine_mean"] == pytest.approx((6 * 1.0 + 2 * 0.5) / 8)
    assert errors["image/t"]["cosine_min"] == 0.25
