"""Temporary folders go with their context, and those of killed processes with the next one that asks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from pocketclip.data.scratch import scratch_folder


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def make_old(folder):
    os.utime(folder, (0, 0))


def test_it_goes_with_its_context(own_folder):
    def fail():
        with scratch_folder("test") as folder:
            (folder / "file").write_bytes(b"data")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(own_folder.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_nothing_else(own_folder):
    script = (
        "import os, tempfile; from pocketclip.data.scratch import scratch_folder\n"
        f"tempfile.tempdir = {str(own_folder)!r}\n"
        "with scratch_folder('test') as folder:\n"
        "    (folder / 'file').write_bytes(b'data'); print(folder, flush=True); os.kill(os.getpid(), 9)"
    )
    left = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True).stdout.strip()
    others = [own_folder / ".pocketclip-other-x", own_folder / "test"]
    for path in others:
        path.mkdir()
    with scratch_folder("test") as used:
        for path in (left, used, *others):
            make_old(path)
        with scratch_folder("test"):
            assert not os.path.exists(left)  # noqa: PTH110 - its path is text
            assert used.is_dir()
    assert sorted(own_folder.iterdir()) == sorted(others)


def test_a_fresh_one_is_left_alone(own_folder):
    fresh = own_folder / ".pocketclip-test-abc"
    fresh.mkdir()
    with scratch_folder("test"):
        assert fresh.is_dir()
