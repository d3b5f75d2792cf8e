"""Models come from a hub whole, pinned, from the cache without it; through huggingface_hub's own client.

The hub is a local server that speaks its protocol, over plain HTTP (HF_HUB_DISABLE_XET): it has no Xet storage.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest
import torch
from tests.checkpoint.conftest import randomised
from tests.checkpoint.hub.conftest import NAME, OPEN_CLIP_FILES, contents, weights_equal
from tests.checkpoint.hub.server import READER, WRITER, Fault, Hub

import pocketclip
from pocketclip.checkpoint import Loaded
from pocketclip.checkpoint.foreign import write_foreign
from pocketclip.checkpoint.hub import fetch, model_files
from pocketclip.data.publish import PublishError

OLD, NEW = os.urandom(30_000), os.urandom(30_000)


def halves(cache: Path) -> list[Path]:
    """Files of a cache that are not whole and not called so."""
    files = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".incomplete"]
    return [path for path in files if path.stat().st_size > 5000 and path.read_bytes() not in (OLD, NEW)]


def cached_under(cache: Path, name: str) -> list[Path]:
    return [path for path in cache.rglob(name) if path.exists()]


class TestFetch:
    def test_the_checkpoint_comes_whole_and_nothing_else(self, hub: Hub) -> None:
        others = {
            "README.md": b"# card",
            "open_clip_config.json": b"{}",
            "onnx/model.onnx": b"x" * 9,
            "a.gguf": b"y",
        }
        hub.add(NAME, {"pocketclip.safetensors": NEW, "open_clip_model.safetensors": OLD, **others})
        folder = fetch(f"hf-hub:{NAME}")
        assert contents(folder) == {"pocketclip.safetensors": NEW}
        assert hub.downloaded() == {"pocketclip.safetensors"}

    def test_what_is_there_is_not_fetched_again(self, hub: Hub) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        folder = fetch(f"hf-hub:{NAME}")
        hub.seen.clear()
        assert fetch(f"hf-hub:{NAME}") == folder
        assert hub.downloaded() == set()

    def test_main_moves_and_a_commit_does_not(self, hub: Hub) -> None:
        repo = hub.add(NAME, {"pocketclip.safetensors": OLD})
        old = repo.branches["main"]
        assert contents(fetch(f"hf-hub:{NAME}"))["pocketclip.safetensors"] == OLD
        repo.commit({"pocketclip.safetensors": NEW})
        assert contents(fetch(f"hf-hub:{NAME}"))["pocketclip.safetensors"] == NEW
        for pinned in (fetch(f"hf-hub:{NAME}@{old}"), fetch(f"hf-hub:{NAME}", revision=old)):
            assert contents(pinned)["pocketclip.safetensors"] == OLD
        hub.seen.clear()
        fetch(f"hf-hub:{NAME}@{old}")
        assert hub.seen == []  # a commit never changes: nobody is asked

    def test_a_branch_is_a_revision(self, hub: Hub) -> None:
        repo = hub.add(NAME, {"pocketclip.safetensors": OLD})
        repo.commit({"pocketclip.safetensors": NEW}, branch="pr/1")
        assert contents(fetch(f"hf-hub:{NAME}@pr/1"))["pocketclip.safetensors"] == NEW
        assert contents(fetch(f"hf-hub:{NAME}@main"))["pocketclip.safetensors"] == OLD

    def test_a_token_opens_a_private_repository_and_never_reaches_the_store(self, hub: Hub) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW}, private=True)
        assert contents(fetch(f"hf-hub:{NAME}", token=READER))["pocketclip.safetensors"] == NEW
        stored = [seen for seen in hub.seen if "/store/" in seen.line]
        assert [seen.authorization for seen in stored] == [None]
        assert all(
            seen.authorization == f"Bearer {READER}" for seen in hub.seen if "/store/" not in seen.line
        )

    def test_another_cache_can_be_named(self, hub: Hub, tmp_path: Path) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        assert fetch(f"hf-hub:{NAME}", cache_dir=tmp_path / "mine").is_relative_to(tmp_path / "mine")
        assert not (tmp_path / "cache").exists()


class TestOffline:
    @pytest.mark.parametrize("revision", [None, "main", "branch"])
    def test_without_the_hub_the_cache_is_used_and_it_is_said(self, hub: Hub, revision: str | None) -> None:
        repo = hub.add(NAME, {"pocketclip.safetensors": NEW})
        repo.branches["branch"] = repo.branches["main"]
        folder = fetch(f"hf-hub:{NAME}", revision=revision)
        hub.stop()
        said = rf"{hub.url} cannot be reached \(.*refused.*\): using the cached {NAME}.*, commit {folder.name[:12]}"
        with pytest.warns(UserWarning, match=said):
            assert fetch(f"hf-hub:{NAME}", revision=revision) == folder
        assert fetch(f"hf-hub:{NAME}", revision=revision, local_files_only=True) == folder
        assert fetch(f"hf-hub:{NAME}@{folder.name}") == folder

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault("/api/", status=500), "cannot be reached .answer 500, a fault of the test."),
            (Fault("/api/", status=429), "cannot be reached .answer 429"),
            (Fault("/api/", page=True), "does not answer as a hub does"),
            (Fault("/api/", stall=True), "cannot be reached .*timed out"),
            (Fault("/api/", cut=10), "cannot be reached .peer closed connection"),
        ],
    )
    def test_a_hub_in_trouble_is_like_none(
        self, hub: Hub, fault: Fault, reason: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pocketclip.checkpoint.hub._ANSWER_SECONDS", 0.2)
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        folder = fetch(f"hf-hub:{NAME}")
        hub.faults.append(fault)
        with pytest.warns(UserWarning, match=f"{reason}.*: using the cached {NAME}"):
            assert fetch(f"hf-hub:{NAME}") == folder
        fault.times = 1
        with pytest.raises(
            ConnectionError, match=f"{reason}.*, and org/other is not in the cache .*: fetch it once"
        ):
            fetch("hf-hub:org/other")

    def test_offline_by_the_environment(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        folder = fetch(f"hf-hub:{NAME}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        hub.seen.clear()
        with pytest.warns(UserWarning, match="HF_HUB_OFFLINE is set.*using the cached"):
            assert fetch(f"hf-hub:{NAME}") == folder
        with pytest.raises(
            ConnectionError, match=r"HF_HUB_OFFLINE is set\), and org/other is not in the cache"
        ):
            fetch("hf-hub:org/other")
        assert hub.seen == []

    def test_nothing_cached_and_nobody_to_be_asked(self, hub: Hub) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        with pytest.raises(
            FileNotFoundError, match=f"{NAME} is not in the cache .*: fetch it once with a connection"
        ):
            fetch(f"hf-hub:{NAME}", local_files_only=True)
        assert hub.seen == []

    def test_a_part_of_a_snapshot_is_no_snapshot(self, hub: Hub, tmp_path: Path) -> None:
        hub.add(NAME, {"open_clip_config.json": b"{}", "open_clip_model.safetensors": NEW})
        huggingface_hub.hf_hub_download(NAME, "open_clip_config.json")  # as open_clip does first
        with pytest.raises(FileNotFoundError, match="is not in the cache"):
            fetch(f"hf-hub:{NAME}", local_files_only=True)
        folder = fetch(f"hf-hub:{NAME}")
        (blob,) = (p for p in (tmp_path / "cache").rglob("blobs/*") if p.read_bytes() == NEW)
        assert fetch(f"hf-hub:{NAME}", local_files_only=True) == folder
        blob.unlink()
        with pytest.raises(FileNotFoundError, match="is not in the cache"):
            fetch(f"hf-hub:{NAME}", local_files_only=True)


class TestBrokenOff:
    def test_a_cut_download_goes_on_where_it_was(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what it writes at once
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        hub.faults += [Fault("GET /store", cut=12_000), Fault("GET /store", cut=5_000)]
        for _ in range(2):  # clients before 2.0 give up at once, and go on at the next call
            with suppress(ConnectionError):
                fetch(f"hf-hub:{NAME}")
        assert contents(fetch(f"hf-hub:{NAME}"))["pocketclip.safetensors"] == NEW
        ranges = [seen.range for seen in hub.seen if seen.line.startswith("GET /store")]
        assert ranges == [None, "bytes=12000-", "bytes=17000-"]

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault("GET /store", times=99, cut=0), "peer closed connection"),
            (Fault("GET /store", times=99, status=503), "answer 503"),
            (Fault("HEAD /.*/resolve", times=99, status=500), "answer 500"),
        ],
    )
    def test_one_that_breaks_off_leaves_what_was_in_use(
        self, hub: Hub, tmp_path: Path, fault: Fault, reason: str
    ) -> None:
        repo = hub.add(NAME, {"pocketclip.safetensors": OLD})
        folder = fetch(f"hf-hub:{NAME}")
        repo.commit({"pocketclip.safetensors": NEW})
        hub.faults.append(fault)
        with pytest.raises(
            ConnectionError, match=f"the download of {NAME} broke off .{reason}.*: run it again"
        ):
            fetch(f"hf-hub:{NAME}")
        assert halves(tmp_path) == []
        assert fetch(f"hf-hub:{NAME}", local_files_only=True) == folder
        assert contents(folder)["pocketclip.safetensors"] == OLD
        hub.faults.clear()
        assert contents(fetch(f"hf-hub:{NAME}"))["pocketclip.safetensors"] == NEW

    def test_a_first_one_leaves_nothing_to_be_taken_for_a_model(self, hub: Hub, tmp_path: Path) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        hub.faults.append(Fault("GET /store", times=99, cut=100))
        with pytest.raises(ConnectionError, match="broke off"):
            fetch(f"hf-hub:{NAME}")
        assert cached_under(tmp_path / "cache", "pocketclip.safetensors") == []
        with pytest.raises(FileNotFoundError, match="is not in the cache"):
            fetch(f"hf-hub:{NAME}", local_files_only=True)

    def test_a_full_disk_is_a_sentence(self, hub: Hub, tmp_path: Path) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            with pytest.raises(
                PublishError, match=f"{NAME} cannot be kept in the cache .*: free some space"
            ) as error:
                fetch(f"hf-hub:{NAME}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert error.value.errno == errno.EFBIG
        assert halves(tmp_path) == []
        assert contents(fetch(f"hf-hub:{NAME}"))["pocketclip.safetensors"] == NEW

    def test_a_cache_that_cannot_be_written_is_a_sentence(self, hub: Hub, tmp_path: Path) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(
            PublishError, match="cannot be kept in the cache .*: change its permissions, or set HF_HOME"
        ):
            fetch(f"hf-hub:{NAME}", cache_dir=tmp_path / "file")


class TestRefused:
    def test_no_such_repository(self, hub: Hub) -> None:
        for token in (None, READER):
            with pytest.raises(
                FileNotFoundError, match=rf"{hub.url} has no repository {NAME}, or it is private: .*log in"
            ):
                fetch(f"hf-hub:{NAME}", token=token)

    def test_no_such_revision(self, hub: Hub) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        for revision in ("v9", "0" * 40):
            with pytest.raises(
                FileNotFoundError, match=rf"{NAME} has no revision '{revision}': {hub.url}/{NAME}/tree"
            ):
                fetch(f"hf-hub:{NAME}@{revision}")

    @pytest.mark.parametrize("token", [None, READER])
    def test_gated(self, hub: Hub, token: str | None) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW}, gated=True)
        with pytest.raises(
            PermissionError, match=rf"{NAME} is gated: ask for access at {hub.url}/{NAME}, then log in"
        ):
            fetch(f"hf-hub:{NAME}", token=token)
        assert contents(fetch(f"hf-hub:{NAME}", token=WRITER))["pocketclip.safetensors"] == NEW

    def test_disabled(self, hub: Hub) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW}, disabled=True)
        with pytest.raises(PermissionError, match=f"{NAME} was disabled"):
            fetch(f"hf-hub:{NAME}")

    def test_a_token_that_is_none(self, hub: Hub) -> None:
        hub.add(NAME, {"pocketclip.safetensors": NEW})
        with pytest.raises(
            PermissionError, match=rf"refuses access to {NAME} \(Invalid credentials.*\): log in"
        ):
            fetch(f"hf-hub:{NAME}", token="hf_expired")

    def test_nothing_that_can_be_read(self, hub: Hub) -> None:
        hub.add(NAME, {"model.gguf": b"x"})
        with pytest.raises(
            ValueError, match=rf"{NAME} holds no model that pocketclip reads .*only .gitattributes, model"
        ):
            fetch(f"hf-hub:{NAME}")
        assert hub.downloaded() == set()

    @pytest.mark.parametrize(
        "reference",
        ["tiny", "hf-hub:", "hf-hub:tiny", "hf-hub:a/b/c", "hf-hub:a/b@", "hf-hub:a/b@../../c", "hf-hub:a/b@x y",
         "hf-hub:a--b/c", "hf-hub:a/b@-x", "hf_hub:a/b", "a/b"],
    )  # fmt: skip
    def test_what_is_no_reference(self, hub: Hub, reference: str) -> None:
        with pytest.raises(ValueError, match=re.escape(repr(reference))):
            fetch(reference)
        assert hub.seen == []

    def test_two_revisions(self, hub: Hub) -> None:
        with pytest.raises(ValueError, match="'a/b@x' and revision 'y' disagree|disagree: give one"):
            fetch("hf-hub:a/b@x", revision="y")


class TestModelFiles:
    @pytest.mark.parametrize(
        ("names", "chosen"),
        [
            ("pocketclip.safetensors checkpoint.safetensors a.pt", "pocketclip.safetensors"),
            ("checkpoint.safetensors model.safetensors", "checkpoint.safetensors"),
            (
                "open_clip_config.json open_clip_model.safetensors open_clip_pytorch_model.bin a.pt",
                "open_clip_config.json open_clip_model.safetensors",
            ),
            (
                "open_clip_config.json open_clip_pytorch_model.bin config.json",
                "open_clip_config.json open_clip_pytorch_model.bin",
            ),
            ("mobileclip_s0.pt README.md config.json", "config.json mobileclip_s0.pt"),
            ("model.safetensors mobileclip_s0.pt", "model.safetensors"),
            ("x/pocketclip.safetensors a.pt", "a.pt"),
        ],
    )
    def test_the_best_layout_alone(self, names: str, chosen: str) -> None:
        assert model_files(names.split(), where="here") == tuple(chosen.split())
        assert model_files(reversed(names.split()), where="here") == tuple(chosen.split())

    def test_of_several_none_is_guessed(self) -> None:
        with pytest.raises(ValueError, match=r"here holds several \.pt files \(a\.pt, b\.pt\)"):
            model_files(["b.pt", "a.pt"], where="here")
        many = [f"model-{i:05d}-of-00009.safetensors" for i in range(9)]
        with pytest.raises(ValueError, match=r"holds several \.safetensors files \(.* and 4 more\)"):
            model_files(many, where="here")

    @pytest.mark.parametrize("names", ["", "pytorch_model.bin", "open_clip_model.bin README.md", "x/a.pt"])
    def test_nothing(self, names: str) -> None:
        with pytest.raises(ValueError, match="here holds no model that pocketclip reads"):
            model_files(names.split(), where="here")


class TestForeignRepositories:
    """Repositories that pocketclip did not make."""

    @pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
    def test_open_clips(self, hub: Hub, small: Loaded, tmp_path: Path, weights: str) -> None:
        write_foreign(small, tmp_path / "out", layout="open_clip")
        write_foreign(small, tmp_path / weights, layout="open_clip")
        config = (tmp_path / "out" / "open_clip_config.json").read_bytes()
        hub.add(NAME, {"open_clip_config.json": config, weights: (tmp_path / weights).read_bytes()})
        back = pocketclip.load(f"hf-hub:{NAME}")
        assert weights_equal(back, small)
        assert back.config.preprocess == small.config.preprocess

    def test_a_safe_file_is_preferred_to_one_of_pickles(self, hub: Hub) -> None:
        hub.add(
            NAME, dict(zip(OPEN_CLIP_FILES, (b"{}", NEW), strict=True)) | {"open_clip_pytorch_model.bin": OLD}
        )
        assert set(contents(fetch(f"hf-hub:{NAME}"))) == set(OPEN_CLIP_FILES)
        assert hub.downloaded() == set(OPEN_CLIP_FILES)

    def test_a_page_in_place_of_weights_is_told(self, hub: Hub) -> None:
        hub.add(NAME, {"mobileclip_s0.pt": b"<!doctype html>Sign in"})
        with pytest.raises(ValueError, match=r"mobileclip_s0\.pt"):
            pocketclip.load(f"hf-hub:{NAME}")

    @pytest.mark.slow
    def test_apples(self, hub: Hub, tmp_path: Path) -> None:
        released = randomised("mobileclip_s0")
        torch.nn.init.zeros_(released.model.image.head.bias)  # of which their layout knows nothing
        write_foreign(released, tmp_path / "mobileclip_s0.pt", layout="apple-v1")
        files = {"mobileclip_s0.pt": (tmp_path / "mobileclip_s0.pt").read_bytes(), "config.json": b"{}"}
        hub.add("apple/MobileCLIP-S0", files)
        back = pocketclip.load("hf-hub:apple/MobileCLIP-S0")
        assert back.config.model == released.config.model
        for name, value in back.model.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(value, released.model.state_dict()[name]), name
