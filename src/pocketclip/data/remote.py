"""Object stores (S3, Google Cloud Storage, Azure) through obstore: conditional puts, resumed reads, retries.

A request that fails by a time-out, a broken connection or an error of the server is made again, later and later. When
the answer to a put was lost, the next try finds the name taken and compares: equal bytes are success.
"""

from __future__ import annotations

import os
import random
import secrets
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

from pocketclip.data.objects import OTHER_BYTES, PARTIAL, Place, Stored
from pocketclip.data.scratch import scratch_folder

try:
    import obstore
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        GenericError,
        JoinError,
        PermissionDeniedError,
        UnauthenticatedError,
        UnknownConfigurationKeyError,
    )
    from obstore.store import from_url
except ImportError as missing:
    raise ImportError(
        "s3://, gs:// and az:// need obstore, not installed here: pip install 'pocketclip[stores]'"
    ) from missing

T = TypeVar("T")

_SCHEMES = ("s3", "gs", "az")
_CLIENT_OPTIONS = frozenset({"allow_http", "connect_timeout", "proxy_url", "timeout"})
_DELAYS_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # before the second try, the third, ...
_PART = 16 << 20  # bytes of a request
_ONE_PUT = 2 * _PART  # more than that is uploaded in parts


class StoreError(OSError):
    """An object store that does not do what it was asked, after all tries; the sentence names the object."""


class ObjectStore:
    """A path in a bucket or container. See `objects.Store`.

    Args:
        place: its address; credentials and region come from the environment (`AWS_ACCESS_KEY_ID`,
            `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` and so on), or from the place's options.

    Raises:
        ValueError: another kind of store, or an unknown option.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        scheme = place.url.partition("://")[0]
        if scheme not in _SCHEMES:
            raise ValueError(
                f"{place.url}: stores are folders, {', '.join(f'{name}://' for name in _SCHEMES)}; "
                f"{scheme}:// is none of them"
            )
        client = {name: value for name, value in place.options.items() if name in _CLIENT_OPTIONS}
        config = {name: value for name, value in place.options.items() if name not in _CLIENT_OPTIONS}
        endpoint = config.get("endpoint", os.environ.get("AWS_ENDPOINT_URL", ""))
        if endpoint.startswith("http://"):
            client.setdefault("allow_http", "true")
        if scheme == "s3":
            config.setdefault("copy_if_not_exists", "multipart")
        try:
            self._store = from_url(  # ty: ignore[no-matching-overload]  # the options are the user's
                place.url,
                client_options={"timeout": "120s", **client},
                retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=120)},
                **config,
            )
        except (BaseError, UnknownConfigurationKeyError, ValueError) as error:
            raise ValueError(f"{place.url} cannot be opened: {_first_line(error)}") from error

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """See `Store`."""
        folder, last = prefix.rstrip("/") or None, None
        while chunk := self._tried(prefix, partial(self._listed, folder, after=last)):
            for found in chunk:
                yield Stored(name=found["path"], num_bytes=found["size"])
            last = chunk[-1]["path"]

    def size(self, name: str) -> int | None:
        """See `Store`."""
        try:
            return self._tried(name, lambda: obstore.head(self._store, name))["size"]
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """See `Store`."""
        return self._tried(name, lambda: bytes(obstore.get(self._store, name).bytes()))

    @contextmanager
    def fetch(self, name: str) -> Generator[Path, None, None]:
        """See `Store`. A connection that breaks costs the part at hand."""
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(f"{self._called(name)} is not there")
        with scratch_folder("fetch") as folder:
            path = folder / name.rpartition("/")[2]
            with path.open("wb") as file:
                for chunk in self._parts(name, size=size):
                    file.write(chunk)
            yield path

    @contextmanager
    def scratch(self) -> Generator[IO[bytes], None, None]:
        """See `Store`. The file has no name: not even a kill leaves it behind."""
        with tempfile.TemporaryFile() as file:
            yield file

    def put(self, name: str, data: bytes | IO[bytes]) -> None:
        """See `Store`."""
        size = _size(data)

        def upload() -> object:
            return obstore.put(
                self._store, name, _from_start(data), use_multipart=size > _ONE_PUT, chunk_size=_PART
            )

        self._tried(name, upload)

    def put_once(self, name: str, data: bytes | IO[bytes]) -> bool:
        """See `Store`. A large file is uploaded in parts under another name, then copied by the store."""
        try:
            if _size(data) <= _ONE_PUT:
                self._tried(name, lambda: obstore.put(self._store, name, _from_start(data), mode="create"))
            else:
                self._put_large_once(name, data)
        except AlreadyExistsError:
            if not self._holds(name, data):
                raise FileExistsError(f"{self._called(name)} {OTHER_BYTES}") from None
            return False
        return True

    def delete(self, name: str) -> None:
        """See `Store`."""
        with suppress(FileNotFoundError):
            self._tried(name, lambda: obstore.delete(self._store, name))

    def delete_folder(self, prefix: str) -> None:
        """See `Store`."""
        names = (found.name for found in self.list(prefix))
        while some := list(islice(names, 1000)):
            self._tried(prefix, partial(obstore.delete, self._store, some))

    def local(self, name: str) -> None:
        """None: nothing of it is on this machine."""

    def _listed(self, folder: str | None, *, after: str | None) -> Sequence[obstore.ObjectMeta]:
        return next(iter(obstore.list(self._store, folder, offset=after, chunk_size=1000)), [])

    def _put_large_once(self, name: str, data: bytes | IO[bytes]) -> None:
        if self.size(name) is not None:
            raise AlreadyExistsError
        upload = f"{PARTIAL}/{name.rpartition('/')[2]}-{secrets.token_hex(8)}"
        try:
            self.put(upload, data)
            self._tried(name, lambda: obstore.copy(self._store, upload, name, overwrite=False))
        finally:
            self.delete(upload)

    def _holds(self, name: str, data: bytes | IO[bytes]) -> bool:
        """Whether an object has these bytes."""
        size = _size(data)
        if self.size(name) != size:
            return False
        if isinstance(data, bytes):
            return self.read(name) == data
        data.seek(0)
        return all(data.read(len(chunk)) == chunk for chunk in self._parts(name, size=size))

    def _parts(self, name: str, *, size: int) -> Iterator[bytes]:
        for start in range(0, size, _PART):
            end = min(start + _PART, size)
            yield self._tried(name, partial(_whole_range, self._store, name, start=start, end=end))

    def _tried(self, name: str, request: Callable[[], T]) -> T:
        """Makes a request, again and again while the failure may pass."""
        for delay_s in (*_DELAYS_S, None):
            try:
                return request()
            except (GenericError, JoinError, TimeoutError, ConnectionError) as error:
                if delay_s is None:
                    raise StoreError(
                        f"{self._called(name)} cannot be reached ({_first_line(error)}): "
                        "check the network and the store's address"
                    ) from error
                time.sleep(delay_s * random.uniform(0.5, 1.5))
            except (PermissionDeniedError, UnauthenticatedError) as error:
                raise StoreError(
                    f"{self._called(name)}: the store refuses ({_first_line(error)}): check the credentials in the "
                    "environment"
                ) from error
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{self._called(name)} is not there") from error
        raise AssertionError("the last try returns or raises")

    def _called(self, name: str) -> str:
        return f"{self.place.url.rstrip('/')}/{name}"


def _whole_range(store: obstore.store.ObjectStore, name: str, *, start: int, end: int) -> bytes:
    part = bytes(obstore.get_range(store, name, start=start, end=end))
    if len(part) != end - start:
        raise ConnectionError(f"{len(part):,} of {end - start:,} bytes came")
    return part


def _size(data: bytes | IO[bytes]) -> int:
    return len(data) if isinstance(data, bytes) else data.seek(0, os.SEEK_END)


def _from_start(data: bytes | IO[bytes]) -> bytes | IO[bytes]:
    if not isinstance(data, bytes):
        data.seek(0)
    return data


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
