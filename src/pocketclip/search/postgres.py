"""A collection of vectors on a PostgreSQL server with pgvector, for more than one machine holds.

Shapes: N vectors, D embedding, K nearest.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from pgvector import Vector

    from pocketclip.search.collection import Ids, Vectors

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_ROWS_AT_ONCE = 4_096
_MOST_INDEXED = 2_000  # numbers of a vector that pgvector's graphs take


class PostgresCollection:
    """Vectors in a table of a PostgreSQL server: columns `id bigint` and `embedding vector(D)`.

    Attributes:
        embed_dim: D.
    """

    def __init__(
        self,
        address: str,
        *,
        embed_dim: int,
        name: str = "pocketclip",
        method: Literal["exact", "hnsw"] = "hnsw",
        reach: int = 100,
    ) -> None:
        """Connect, and make the table where it is not there.

        Args:
            address: libpq connection string or URL, "postgresql://user@host/database".
            embed_dim: D.
            name: of the table; lower-case letters, digits, underscores.
            method: "exact" compares with every vector; "hnsw" walks a graph (Malkov and Yashunin, arXiv 1603.09320),
                which misses some.
            reach: candidates of a walk, at least k is taken; more finds more and takes longer.

        Raises:
            ImportError: psycopg or pgvector is not installed.
            ConnectionError: no server answers there.
            ValueError: a name that is none, a server without pgvector, or a table of another width.
        """
        if _NAME.fullmatch(name) is None:
            raise ValueError(
                f"{name!r} is no name of a table: use lower-case letters, digits and underscores"
            )
        if method == "hnsw" and embed_dim > _MOST_INDEXED:
            raise ValueError(
                f"pgvector's graphs take {_MOST_INDEXED} numbers and not {embed_dim}: use method exact"
            )
        self._psycopg = _psycopg()
        self.embed_dim = embed_dim
        self._name, self._method, self._reach = name, method, reach
        try:
            self._connection: Any = self._psycopg.connect(address, autocommit=True)
        except self._psycopg.Error as error:
            raise ConnectionError(
                f"PostgreSQL cannot be reached ({_line(error)}): check the address"
            ) from error
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection; the vectors stay."""
        self._connection.close()

    def __len__(self) -> int:
        """Number of vectors."""
        return int(self._all(f"SELECT count(*) FROM {self._name}")[0][0])

    def ids(self) -> Ids:
        """Their numbers, int64 [N], ascending."""
        rows = self._all(f"SELECT id FROM {self._name} ORDER BY id")
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))

    def add(self, ids: Sequence[int], vectors_ND: Vectors) -> None:
        """Add unit vectors float32 [N, D] in one transaction; a number that is there gets the new vector.

        Raises:
            ValueError: another width, or the server refuses.
        """
        if vectors_ND.shape != (len(ids), self.embed_dim):
            raise ValueError(
                f"vectors of shape {vectors_ND.shape} for {len(ids)} numbers of width {self.embed_dim}"
            )
        with self._told(), self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TEMP TABLE coming (id bigint, embedding vector({self.embed_dim})) ON COMMIT DROP"
            )
            with cursor.copy("COPY coming FROM STDIN WITH (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "vector"])
                for number, vector in zip(ids, vectors_ND, strict=True):
                    copy.write_row((int(number), vector))
            cursor.execute(
                f"INSERT INTO {self._name} SELECT * FROM coming "
                f"ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding"
            )

    def remove(self, ids: Sequence[int]) -> int:
        """Remove numbers; tells how many were there."""
        with self._told():
            done = self._connection.execute(f"DELETE FROM {self._name} WHERE id = ANY(%s)", [_list(ids)])
        return done.rowcount

    def search(self, query_D: Vectors, k: int, *, among: Ids | None = None) -> tuple[Ids, Vectors]:
        """The k nearest to a unit vector, nearest first, ties by number; see `VectorReader.search`.

        Raises:
            ValueError: k below 1, or a query of another width.
        """
        if k < 1:
            raise ValueError(f"k is {k}: ask for at least 1 picture")
        if query_D.shape != (self.embed_dim,):
            raise ValueError(
                f"the query has the shape {query_D.shape}, and these vectors {self.embed_dim} numbers"
            )
        query = query_D.astype(np.float32, copy=False)
        where = "" if among is None else "WHERE id = ANY(%(among)s) "
        with self._told(), self._connection.transaction():
            if self._method == "hnsw":
                reach = min(1000, max(self._reach, k))
                self._connection.execute(f"SET LOCAL hnsw.ef_search = {reach}")
                # with a filter, or for many, the walk goes on until enough are found
                self._connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            rows = self._connection.execute(
                f"SELECT id, embedding <#> %(query)s AS distance FROM {self._name} {where}"
                f"ORDER BY embedding <#> %(query)s LIMIT %(k)s",
                {"query": query, "k": k, "among": None if among is None else _list(among)},
            ).fetchall()
        rows.sort(key=lambda row: (row[1], row[0]))
        ids = np.array([row[0] for row in rows], dtype=np.int64)
        return ids, -np.array([row[1] for row in rows], dtype=np.float32)

    def rows(self, ids: Sequence[int]) -> Vectors:
        """Vectors float32 [N, D] with these numbers, in this order.

        Raises:
            ValueError: one is not there.
        """
        found: dict[int, Vector] = {}
        for begin in range(0, len(ids), _ROWS_AT_ONCE):
            some = _list(ids[begin : begin + _ROWS_AT_ONCE])
            found |= dict(self._all(f"SELECT id, embedding FROM {self._name} WHERE id = ANY(%s)", [some]))
        missing = [number for number in ids if int(number) not in found]
        if missing:
            raise ValueError(f"the table {self._name} has no item {missing[0]}")
        vectors = [found[int(number)].to_numpy() for number in ids]
        return np.stack(vectors) if vectors else np.empty((0, self.embed_dim), np.float32)

    def sample(self, num: int, *, seed: int) -> Vectors:
        """At most `num` vectors drawn without repetition, float32 [N, D]."""
        ids = self.ids()
        drawn = np.random.default_rng(seed).choice(len(ids), size=min(num, len(ids)), replace=False)
        return self.rows(ids[np.sort(drawn)].tolist())

    def _prepare(self) -> None:
        from pgvector.psycopg import register_vector

        try:
            self._connection.execute("SET client_min_messages = warning")  # of what is there already
            self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except self._psycopg.Error as error:
            raise ValueError(
                f"the server has no pgvector ({_line(error)}): install it, and have its owner CREATE EXTENSION vector"
            ) from error
        register_vector(self._connection)
        with self._told():
            self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._name} "
                f"(id bigint PRIMARY KEY, embedding vector({self.embed_dim}) NOT NULL)"
            )
            ((width,),) = self._all(
                "SELECT atttypmod FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'embedding'",
                [self._name],
            )
            if width != self.embed_dim:
                raise ValueError(
                    f"the table {self._name} holds vectors of {width} numbers and not {self.embed_dim}: "
                    f"they are another model's, choose another name"
                )
            if self._method == "hnsw":
                self._connection.execute(
                    f"CREATE INDEX IF NOT EXISTS {self._name}_hnsw ON {self._name} "
                    f"USING hnsw (embedding vector_ip_ops)"
                )

    def _all(self, question: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._told():
            return self._connection.execute(question, values).fetchall()

    @contextmanager
    def _told(self) -> Generator[None, None, None]:
        """What the server refuses, as one sentence."""
        try:
            yield
        except self._psycopg.OperationalError as error:
            raise ConnectionError(f"PostgreSQL does not answer any more ({_line(error)})") from error
        except self._psycopg.Error as error:
            raise ValueError(f"PostgreSQL refuses ({_line(error)})") from error


def _list(ids: Sequence[int] | Ids) -> list[int]:
    return [int(number) for number in ids]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _psycopg() -> Any:  # noqa: ANN401 it may not be installed
    try:
        import pgvector.psycopg  # noqa: F401 its absence is told here
        import psycopg
    except ImportError as error:
        raise ImportError(
            "PostgreSQL needs psycopg and pgvector: pip install 'pocketclip[postgres]'"
        ) from error
    return psycopg
