"""metrics.jsonl: what was appended is read; going on from a step forgets what came after it; a cut line is no harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.fit import Journal, read_journal


def written(path, steps):
    journal = Journal(path, step=0)
    for step in steps:
        journal.append({"step": step, "loss": 1.0 / (step + 1)})
    return journal


def test_what_was_appended_is_read(tmp_path):
    written(tmp_path / "metrics.jsonl", [1, 2, 2])
    records = read_journal(tmp_path / "metrics.jsonl")
    assert records == [{"step": step, "loss": 1.0 / (step + 1)} for step in (1, 2, 2)]


@given(st.integers(0, 12))
def test_going_on_forgets_what_came_after(tmp_path_factory, step):
    path = tmp_path_factory.mktemp("journal") / "metrics.jsonl"
    written(path, range(1, 11))
    Journal(path, step=step).append({"step": step + 1, "loss": 7.0})
    expected = [*range(1, min(step, 10) + 1), step + 1]
    assert [record["step"] for record in read_journal(path)] == expected


def test_a_line_cut_at_any_byte_is_left_out_and_the_next_is_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, [1, 2])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole) + 1):
        path.write_bytes(whole[:length])
        expected = [1, 2] if length >= len(whole) - 1 else [1]
        assert [record["step"] for record in read_journal(path)] == expected
        Journal(path, step=5).append({"step": 6})
        assert [record["step"] for record in read_journal(path)] == [*expected, 6]


@pytest.mark.parametrize("line", ["{", "3", "[1]", '{"loss": 1}', "\udcff"])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line.encode(errors="surrogateescape") + b'\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2 is not a record of a step: delete the file"):
        read_journal(path)


def test_a_full_disk_is_a_sentence_and_keeps_what_was_there(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, [1])
    (tmp_path / ".metrics.jsonl.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot write .*metrics\.jsonl: No space left .*run again to go on"):
        Journal(path, step=1)
    assert [record["step"] for record in read_journal(path)] == [1]
    path.unlink()
    path.symlink_to("/dev/full")
    journal = Journal.__new__(Journal)
    journal.path = path
    with pytest.raises(OSError, match=r"cannot write .*metrics\.jsonl: No space left"):
        journal.append({"step": 2})
