"""Under the final name there is the old content or the new one whole, whatever happens in between."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pocketclip.data.publish import PublishError, publish_file, publish_folder, sha256_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, data, *, then=None):
    with publish_file(path) as file:
        file.write(data)
        if then is not None:
            raise then


def fill(path, name, *, marker=None, then=None):
    with publish_folder(path, marker=marker) as folder:
        assert names(folder) == []
        (folder / name).write_text(name)
        if then is not None:
            raise then


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "deep" / "a.bin"
    with publish_file(path) as file:
        file.write(b"abc")
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    assert names(path.parent) == ["a.bin"]
    assert sha256_file(path) == hashlib.sha256(b"abc").hexdigest()


def test_an_exception_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="mine"):
        write(path, b"new", then=RuntimeError("mine"))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_full_disk_is_a_sentence(tmp_path):
    path = tmp_path / "a.bin"
    (tmp_path / ".a.bin.partial").symlink_to("/dev/full")  # a real ENOSPC from the kernel
    with pytest.raises(PublishError, match=r"disk full while writing .*a\.bin.*free some space") as error:
        write(path, b"x" * 100_000)
    assert error.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def test_a_full_disk_at_the_last_moment_is_the_same_sentence(tmp_path, monkeypatch):
    def full(_number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PublishError, match="disk full"):
        write(tmp_path / "a.bin", b"x")
    with pytest.raises(PublishError, match="disk full"):
        fill(tmp_path / "folder", "a")
    assert names(tmp_path) == []


def test_an_unwritable_place_is_a_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PublishError, match=r"cannot write .*file/a\.bin.*choose another output"):
        write(tmp_path / "file" / "a.bin", b"x")
    with pytest.raises(PublishError, match="cannot write"):
        fill(tmp_path / "file", "a")
    with pytest.raises(PublishError, match="a folder has that name"):
        write(tmp_path, b"x")


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a read-only file system")
def test_a_read_only_file_system_is_a_sentence():
    with pytest.raises(PublishError, match=r"cannot write /proc/none/a\.bin"):
        write(Path("/proc/none/a.bin"), b"x")


def test_errors_of_other_files_pass_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), publish_file(tmp_path / "a.bin"):
        (tmp_path / "elsewhere").read_bytes()


KILLED = """
import sys, time
from pathlib import Path
from pocketclip.data.publish import publish_file
with publish_file(Path(sys.argv[1])) as file:
    file.write(b"half"); file.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_after_a_kill_the_old_file_is_there_and_the_next_run_succeeds(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "folder"
    for content in ("one", "two"):
        with publish_folder(path) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / content).write_text(content)
        assert names(path / "sub") == [content]
    assert names(tmp_path) == ["folder"]


def test_an_exception_keeps_the_old_folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(RuntimeError, match="mine"):
        fill(path, "new", then=RuntimeError("mine"))
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("moved_away", [True, False])
def test_leftovers_of_a_killed_run_are_cleared(tmp_path, moved_away):
    path = tmp_path / "folder"
    (tmp_path / ".folder.partial").mkdir()
    (tmp_path / ".folder.partial" / "half").write_text("half")
    (tmp_path / ".folder.old").mkdir()
    (tmp_path / ".folder.old" / "old").write_text("old")
    if not moved_away:
        path.mkdir()
    with pytest.raises(RuntimeError, match="mine"):
        fill(path, "new", then=RuntimeError("mine"))
    assert names(tmp_path) == ["folder"]
    assert names(path) == (["old"] if moved_away else [])


def test_somebodys_files_are_not_replaced(tmp_path):
    path = tmp_path / "home"
    path.mkdir()
    (path / "letter").write_text("dear")
    with pytest.raises(FileExistsError, match=r"other files in it \(no manifest\.json\)"):
        fill(path, "a", marker="manifest.json")
    assert names(path) == ["letter"]
    (path / "manifest.json").write_text("{}")
    fill(path, "manifest.json", marker="manifest.json")
    assert names(path) == ["manifest.json"]
