"""The list of done shards: the last line of a name counts, a cut line never was, another digest is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.data.done import DoneList, manifest_line, start_done_list


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / ".join" / "done.jsonl"


def test_what_was_done_is_known_to_the_next_process(path):
    done = DoneList(path, digest="x")
    assert len(done) == 0
    assert done.get("a") is None
    done.add("a", {"num": 1})
    done.add("b", {"num": 2, "text": "ü\n"})
    done.add("a", {"num": 3})
    for known in (done, DoneList(path, digest="x")):
        assert len(known) == 2
        assert "a" in known
        assert known.get("a") == {"shard": "a", "num": 3}
        assert known.get("b") == {"shard": "b", "num": 2, "text": "ü\n"}


def test_a_forgotten_shard_is_not_done_in_this_process(path):
    done = DoneList(path, digest="x")
    done.add("a", {})
    done.forget("a")
    done.forget("never")
    assert done.get("a") is None
    assert "a" in DoneList(path, digest="x")


@given(st.integers(1, 60))
def test_a_line_that_a_kill_cut_short_was_never_written(tmp_path_factory, lost):
    path = tmp_path_factory.mktemp("done") / "x" / "done.jsonl"
    done = DoneList(path, digest="x")
    for number in range(3):
        done.add(f"shard {number}", {"number": number})
    whole = path.read_bytes()
    last = len(manifest_line("shard 2", {"number": 2}))
    os.truncate(path, len(whole) - lost)
    again = DoneList(path, digest="x")
    assert len(again) == 2 - (lost > last)
    for number in range(len(again), 3):
        again.add(f"shard {number}", {"number": number})
    assert path.read_bytes() == whole


def test_another_digest_and_other_files_are_refused_and_left_alone(path):
    DoneList(path, digest="x").add("a", {})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="out was begun with another configuration or from other data"):
        DoneList(path, digest="y")
    assert path.read_bytes() == before
    for content in (b"", b"7\n", b"{}\n", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or of another release"):
            DoneList(path, digest="x")


def test_a_list_can_be_begun_with_the_lines_of_a_manifest(path):
    lines = [manifest_line("a", {"num": 1}), manifest_line("b", {"num": 2})]
    start_done_list(path, digest="x", lines=lines)
    done = DoneList(path, digest="x")
    assert done.get("b") == {"shard": "b", "num": 2}
    done.add("c", {"num": 3})
    assert len(DoneList(path, digest="x")) == 3
