"""Joins that download: failures are tried again while that may help, and every outcome is in the ledger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.join.pictures_server import PictureServer
from tests.published_sets import Sample, draw_picture, make_sample, write_images, write_published

from pocketclip.join import DownloadConfig, JoinConfig, JoinReport, PictureSources, join
from pocketclip.join.ledger import Download, Ledger

CONFIG = DownloadConfig(connections=4, timeout_s=2.0, backoff_s=0.01, max_bytes=100_000)


def path_of(sample: Sample) -> str:
    return f"/{sample.uid}.jpg"


@pytest.fixture
def samples(server: PictureServer, tmp_path: Path) -> list[Sample]:
    """Twelve published samples in two shards, their pictures on the server."""
    made = [make_sample(number, url=f"{server.url}/{{uid}}.jpg") for number in range(12)]
    write_published(tmp_path / "dr" / "0.tar", made[:6])
    write_published(tmp_path / "dr" / "1.tar", made[6:])
    server.pictures.update({path_of(sample): sample.image for sample in made})
    return made


def joined(
    folder: Path, *, config: DownloadConfig | None = CONFIG, out: str = "out", **sources
) -> JoinReport:
    pictures = PictureSources(download=config, num_threads=2, **sources)
    return join(str(folder / "dr"), folder / out, pictures=pictures)


def ledger(folder: Path) -> dict[str, Download]:
    with Ledger(folder / "out" / "downloads.sqlite") as found:
        return {download.uid: download for download in found}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_pictures_are_downloaded_once_each_and_no_more_at_a_time_than_asked(tmp_path, server, samples):
    server.delay_s = 0.05
    report = joined(tmp_path)
    assert (report.index.num_samples(), report.num_missing) == (12, 0)
    assert server.seen == {path_of(sample): 1 for sample in samples}
    assert 2 <= server.most_at_once <= CONFIG.connections
    assert server.agents == {CONFIG.user_agent}
    assert not (tmp_path / "out" / ".join").exists()
    for sample in samples:
        noted = ledger(tmp_path)[sample.uid]
        assert (noted.status, noted.attempts, noted.url) == ("ok", 1, sample.url)
        assert (noted.num_bytes, noted.sha256) == (len(sample.image), sample.sha256)


def test_images_at_hand_are_not_downloaded(tmp_path, server, samples):
    images = write_images(tmp_path / "images.tar", samples[:10])
    report = joined(tmp_path, images=(str(images),))
    assert report.num_missing == 0
    assert set(server.seen) == {path_of(sample) for sample in samples[10:]}
    join(str(tmp_path / "dr"), tmp_path / "all", pictures=PictureSources(download=CONFIG))
    assert contents(tmp_path / "out") == contents(tmp_path / "all")


def test_failures_that_may_pass_are_tried_again_and_others_are_not(tmp_path, server, samples):
    troubles = ["503", "cut", "reset", "429", "empty", "404", "410", "robots", "big", "text", "500"]
    for sample, trouble in zip(samples, troubles, strict=False):
        server.troubles[path_of(sample)] = [trouble] * (2 if trouble != "500" else 9)
    report = joined(tmp_path)
    seen = {trouble: server.seen[path_of(sample)] for sample, trouble in zip(samples, troubles, strict=False)}
    assert seen == {
        **dict.fromkeys(["503", "cut", "reset", "429", "empty", "500"], 3),
        **dict.fromkeys(["404", "410", "robots", "big", "text"], 1),
    }
    assert report.num_missing == 6
    assert report.kinds == {
        "download failed: HTTP 404": 1,
        "download failed: HTTP 410": 1,
        "download failed: HTTP 500": 1,
        "download failed: another picture is there now (its sha256 differs)": 1,
        "download failed: more than 100,000 bytes": 1,
        "download failed: the site forbids it (X-Robots-Tag noai)": 1,
    }
    noted = ledger(tmp_path)
    assert {noted[sample.uid].status for sample in samples[:5]} == {"ok"}
    assert noted[samples[0].uid].attempts == 3
    assert (noted[samples[5].uid].status, noted[samples[5].uid].reason) == ("failed", "HTTP 404")
    assert (noted[samples[10].uid].status, noted[samples[10].uid].attempts) == ("again", 3)
    lines = [json.loads(line) for line in (tmp_path / "out" / "missing.jsonl").read_text().splitlines()]
    assert {line["url"] for line in lines} == {sample.url for sample in samples[5:11]}


def test_retry_asks_again_for_what_failed_and_takes_the_rest_from_its_own_shards(tmp_path, server, samples):
    server.troubles[path_of(samples[1])] = ["404"]
    server.troubles[path_of(samples[2])] = ["500"] * 3
    assert joined(tmp_path).num_missing == 2
    server.seen.clear()
    assert joined(tmp_path).num_missing == 2
    assert not server.seen  # finished is finished
    report = joined(tmp_path, retry=True)
    assert report.num_missing == 0
    assert server.seen == {path_of(samples[1]): 1, path_of(samples[2]): 1}
    assert ledger(tmp_path)[samples[2].uid].attempts == 4
    joined(tmp_path, out="at_once")
    assert contents(tmp_path / "out") == contents(tmp_path / "at_once")


def test_a_picture_without_a_hash_is_taken_as_it_comes(tmp_path, server, samples):
    other = draw_picture(77)
    for sample in samples:
        sample.sha256 = ""
    write_published(tmp_path / "dr" / "0.tar", samples[:6])
    server.pictures[path_of(samples[0])] = other
    server.troubles[path_of(samples[1])] = ["text"]
    report = joined(tmp_path)
    assert report.kinds == {"damaged picture": 1}


def test_a_hash_that_differs_can_be_ignored(tmp_path, server, samples):
    server.pictures[path_of(samples[0])] = draw_picture(77)
    pictures = PictureSources(download=CONFIG)
    report = join(
        str(tmp_path / "dr"), tmp_path / "out", config=JoinConfig(sha256="ignore"), pictures=pictures
    )
    assert report.num_missing == 0


def test_without_downloads_what_was_got_before_is_used_and_what_failed_says_why(
    tmp_path, server, samples, monkeypatch
):
    from pocketclip.join import run

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    server.troubles[path_of(samples[1])] = ["404"]
    with monkeypatch.context() as patch:
        patch.setattr(run, "join_shard", interrupt)
        with pytest.raises(KeyboardInterrupt):
            joined(tmp_path)
    report = joined(tmp_path, config=None)
    assert report.kinds == {"no picture": 6, "download failed: HTTP 404": 1}
    assert report.index.num_samples() == 5


def test_samples_without_an_address_say_so(tmp_path, server):
    write_published(
        tmp_path / "dr" / "0.tar", [make_sample(0, url=""), make_sample(1, url="ftp://127.0.0.1/a")]
    )
    write_published(tmp_path / "dr" / "1.tar", [make_sample(2)], with_image=True)
    report = joined(tmp_path)
    assert report.kinds == {
        "download failed: the address cannot be used (it is not http or https)": 1,
        "no picture": 1,
    }


def test_a_ledger_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "downloads.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(ValueError, match=r"downloads\.sqlite is not a ledger of downloads"):
        Ledger(tmp_path / "downloads.sqlite")
    import sqlite3

    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    database.close()
    with pytest.raises(ValueError, match=r"other\.sqlite is not a ledger"):
        Ledger(tmp_path / "other.sqlite")


def test_the_ledger_answers_many_questions_at_once(tmp_path):
    uids = [f"{number:032x}" for number in range(1203)]
    with Ledger(tmp_path / "l.sqlite") as books:
        books.put(Download(uid=uid, url="u", attempts=1) for uid in uids)
        assert set(books.get([*uids, "unknown"])) == set(uids)
        books.put([Download(uid=uids[0], url="u", attempts=2, reason="HTTP 500", may_pass=True)])
        assert books.counts() == {"again": 1, "ok": 1202}


# Killed


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bytes_and_downloads_little_twice(tmp_path, server, samples):
    for sample in samples[::4]:
        server.troubles[path_of(sample)] = ["500"]
    script = Path(__file__).with_name("interrupted.py")
    moments = [
        ("flush", 1),
        ("picture", 2),
        ("picture", 5),
        ("flush", 1),
        ("flush", 2),
        ("flush", 3),
        ("flush", 4),
    ]
    done = subprocess.run(
        [sys.executable, script, tmp_path / "dr", tmp_path / "out", json.dumps(moments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [-signal.SIGKILL] * len(moments) + [0], done.stderr
    assert max(server.seen.values()) <= 3
    assert sum(server.seen.values()) < 12 + 3 + 2 * CONFIG.connections * 2
    server.troubles.clear()
    joined(tmp_path, out="undisturbed")
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_an_interruption_stops_the_downloads_at_once_and_notes_what_was_got(
    tmp_path, server, samples, monkeypatch
):
    for sample in samples[1:6]:
        server.troubles[path_of(sample)] = ["500"] * 9
    slow = replace(CONFIG, backoff_s=30.0)
    from pocketclip.join import fetch

    def interrupt(*arguments, **options):
        done = real(*arguments, **options)
        if any(not future.result().reason for future in done[0]):
            raise KeyboardInterrupt
        return done

    real = fetch.wait
    monkeypatch.setattr(fetch, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        joined(tmp_path, config=slow)
    assert not (tmp_path / "out" / "index.json").exists()
    monkeypatch.setattr(fetch, "wait", real)
    server.troubles.clear()
    server.seen.clear()
    assert joined(tmp_path).num_missing == 0
    assert server.seen[path_of(samples[0])] == 0  # it was got before the interruption
