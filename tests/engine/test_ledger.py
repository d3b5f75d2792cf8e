"""The books of a folder: markers read back as they were written, and nothing else is believed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pocketclip.data.index import Dropped
from pocketclip.data.objects import Place, open_store
from pocketclip.engine import Facts, Unit, Verb
from pocketclip.engine.ledger import Ledger, Run
from pocketclip.engine.marker import Marker, mark


def check(more):
    if set(more) != {"num_words"}:
        raise ValueError("not what the verb writes")


VERB = Verb(name="count", done="counted", settings="way of counting", check=check)

MARKER = Marker(
    shard="train/000000.tar",
    input="000000.tar",
    input_bytes=100,
    facts=Facts(
        num_samples=2,
        num_bytes=4,
        sha256="abc",
        input_sha256="def",
        dropped=(Dropped(source="a.tar: ü.jpg", reason="no caption"), Dropped(source="\udcff", reason="cut")),
        licences={"CC0": 2},
        seconds={"load": 0.25},
        more={"num_words": 5},
    ),
    config_digest="config",
    engine="ray",
    device="cpu",
    seconds=1.5,
    earlier_failures=("its worker died",),
)
UNIT = Unit(name="train/000000.tar", kind="tar", file="000000.tar", num_bytes=100)
RUN = Run(verb="count", config_digest="config", data_digest="data", num_threads=3)


@pytest.fixture
def store(tmp_path):
    return open_store(Place(url=str(tmp_path / "out")))


@pytest.fixture
def ledger(store):
    return Ledger(store, verb=VERB)


def test_a_marker_reads_as_it_was_written(store, ledger):
    mark(store, MARKER)
    (name,) = (found.name for found in store.list())
    assert name == ".done/train/000000.tar.json"
    assert Marker.from_json(json.loads(store.read(name))) == MARKER
    store.put(UNIT.name, b"four")
    assert list(ledger.done([UNIT])) == [(UNIT, MARKER)]


def test_the_first_of_two_markers_stays(store, ledger):
    mark(store, MARKER)
    mark(store, replace(MARKER, seconds=9.0))
    store.put(UNIT.name, b"four")
    assert list(ledger.done([UNIT])) == [(UNIT, MARKER)]


def change(content, **fields):
    return json.dumps({**content, **fields}).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: json.dumps(content).encode()[:-3],
        lambda content: b"[]",
        lambda content: change(content, version=2),
        lambda content: change(content, num_bytes=5),
        lambda content: change(content, input_bytes=99),
        lambda content: change(content, more=1),
        lambda content: change(content, num_samples="2"),
        lambda content: change(content, num_samples=True),
        lambda content: change(content, seconds="1"),
        lambda content: change(content, licences={"CC0": "2"}),
        lambda content: change(content, cost=[1]),
        lambda content: change(content, earlier_failures="none"),
        lambda content: change(content, dropped=[{"source": "a"}]),
        lambda content: change(content, dropped=[{"source": "a", "reason": "b", "more": "c"}]),
        lambda content: json.dumps({name: content[name] for name in content if name != "sha256"}).encode(),
    ],
)
def test_a_marker_that_is_damaged_or_does_not_fit_is_removed(store, ledger, damage):
    store.put(UNIT.name, b"four")
    store.put(".done/train/000000.tar.json", damage(MARKER.to_json()))
    store.put(".done/run.json", b"{}")
    assert list(ledger.done([UNIT])) == [(UNIT, None)]
    assert store.size(".done/train/000000.tar.json") is None


def test_a_shard_that_is_gone_is_not_done(store, ledger):
    mark(store, MARKER)
    store.put(".done/run.json", b"{}")
    assert list(ledger.done([UNIT])) == [(UNIT, None)]


def test_a_unit_without_samples_needs_no_shard(store, ledger):
    empty = replace(MARKER, facts=replace(MARKER.facts, num_samples=0, num_bytes=0, sha256=""))
    mark(store, empty)
    assert list(ledger.done([UNIT])) == [(UNIT, empty)]


def test_a_folder_belongs_to_the_run_that_claimed_it(store, ledger):
    assert ledger.num_threads() is None
    assert ledger.claim(RUN) is None
    assert ledger.num_threads() == 3
    assert ledger.claim(RUN) is None
    for other, what in (
        (replace(RUN, config_digest="x"), "with another way of counting"),
        (replace(RUN, data_digest="x"), "from other data"),
    ):
        with pytest.raises(ValueError, match=f"was counted {what}: choose another folder"):
            ledger.claim(other)


def test_a_folder_belongs_to_the_verb_that_claimed_it(store, ledger):
    ledger.claim(replace(RUN, verb="filter"))
    with pytest.raises(ValueError, match="was begun by `pocketclip filter`: choose another folder"):
        ledger.claim(RUN)


def test_damaged_books_are_told(store, ledger):
    store.put(".done/run.json", b"{")
    with pytest.raises(ValueError, match=r"\.done/run\.json is damaged .*: delete the folder"):
        ledger.claim(RUN)
    for content in ({"version": 7}, {"version": 1}, []):
        store.put(".done/run.json", json.dumps(content).encode())
        with pytest.raises(ValueError, match="begun by another release"):
            ledger.num_threads()


def test_what_is_half_made_is_swept_when_a_run_begins(store, ledger):
    store.put(".partial/tmp123", b"half")
    ledger.claim(RUN)
    assert [found.name for found in store.list()] == [".done/run.json"]
