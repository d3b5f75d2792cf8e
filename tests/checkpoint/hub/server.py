"""A hub of models on 127.0.0.1: as much of the hub's HTTP protocol as huggingface_hub's client speaks, and its faults.

Facts of the protocol: small files are git blobs (ETag: their git hash), large ones lie in a store of their own and
are reached by a redirect to another host, which must not see the token. A commit is whole or not at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import pytest
import yaml

READER, WRITER = "hf_reader", "hf_writer"  # the tokens it knows
LARGE = 10_000  # bytes: larger files, and weights of any size, go to the store of large files
_WEIGHTS = (".safetensors", ".bin", ".pt")


@dataclass
class Repo:
    """A repository: whole states by commit, and the branches that name them."""

    private: bool = False
    gated: bool = False
    disabled: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], *, branch: str = "main", message: str = "") -> str:
        """Makes `files` the whole of a branch; returns the commit's hash."""
        parent = self.branches.get(branch, "")
        digest = hashlib.sha1(f"{parent}{len(self.commits)}".encode())
        for name, data in sorted(files.items()):
            digest.update(name.encode() + data)
        oid = digest.hexdigest()
        self.commits[oid], self.messages[oid] = dict(files), message
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch or a hash names."""
        return self.branches.get(revision, revision if revision in self.commits else None)

    @property
    def head(self) -> dict[str, bytes]:
        return self.commits[self.branches["main"]]


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of which "METHOD /path" matches.

    `status` answers with that code; `cut` closes the connection after so many bytes of the answer's body; `full` stands
    for a server that says 200 to a page of HTML; `stall` waits until the server is stopped.
    """

    match: str
    times: int = 1
    status: int = 0
    cut: int | None = None
    page: bool = False
    stall: bool = False


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    line: str
    host: str
    authorization: str | None
    range: str | None


class Hub:
    """The server: `with Hub() as hub`, then `hub.url`."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.store: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.connections: list[socket.socket] = []

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuses connections from now on."""
        if not self.stopped.is_set():
            self.stopped.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            for connection in self.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, repo_id: str, files: Mapping[str, bytes] | None = None, **flags: bool) -> Repo:
        """A repository with these files on main."""
        repo = self.repos[repo_id] = Repo(**flags)
        repo.commit({".gitattributes": b"*.safetensors filter=lfs\n", **(files or {})})
        return repo

    def lines(self, pattern: str = "") -> list[str]:
        """ "METHOD /path" of the requests that match."""
        return [seen.line for seen in self.seen if re.search(pattern, seen.line)]

    def downloaded(self) -> set[str]:
        """Names of the files whose bytes somebody asked for."""
        gets = self.lines(r"^GET .*(/resolve/|/store/)")
        return {unquote(urlsplit(line.split(" ")[1]).path).rsplit("/", 1)[1] for line in gets}

    def fault(self, line: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.match, line):
                    fault.times -= 1
                    return fault
        return None


def talk_to(hub: Hub, *, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process's client ask this hub, by plain HTTP, with a cache of its own and nobody logged in."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "cache"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }
    for name, value in settings.items():  # read from the environment when the client is imported
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # between the client's attempts


def is_large(name: str, size: int) -> bool:
    return name.endswith(_WEIGHTS) or size > LARGE


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Refused(Exception):  # noqa: N818
    """An answer other than success."""

    def __init__(self, status: int, code: str | None = None, message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    _cut: int | None = None

    def setup(self) -> None:
        super().setup()
        self.hub.connections.append(self.connection)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def _serve(self) -> None:
        url = urlsplit(self.path)
        line = f"{self.command} {self.path}"
        authorization, asked_range = self.headers.get("Authorization"), self.headers.get("Range")
        self.hub.seen.append(Seen(line, self.headers["Host"], authorization, asked_range))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._read_chunks()
        fault = self.hub.fault(line)
        self._cut = fault.cut if fault else None
        if fault and fault.stall:
            self.hub.stopped.wait(60)
            self.close_connection = True
            return
        try:
            if fault and fault.status:
                raise _Refused(fault.status, None, "a fault of the test")
            if fault and fault.page:
                self._answer(b"<!doctype html><title>Log in to the hotel's network</title>", kind="text/html")
                return
            self._route(url.path, query=parse_qs(url.query), body=body)
        except _Refused as refused:
            headers = {"X-Error-Message": refused.message} if refused.message else {}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            self._json({"error": refused.message}, status=refused.status, headers=headers)

    def _read_chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _route(self, path: str, *, query: dict[str, list[str]], body: bytes) -> None:
        name = r"(?P<repo>[^/]+/[^/]+)"
        routes: list[tuple[str, Callable[..., None]]] = [
            (rf"(?:GET|HEAD) /{name}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", self._resolve),
            (r"(?:GET|HEAD) /store/(?P<oid>\w+)/(?P<file>.+)", self._stored),
            (rf"GET /api/models/{name}/tree/(?P<revision>[^/]+)", self._tree),
            (rf"GET /api/models/{name}/revision/(?P<revision>[^/]+)", self._info),
            (rf"GET /api/models/{name}", self._info),
            (r"POST /api/repos/create", self._create),
            (r"POST /api/validate-yaml", self._validate),
            (rf"POST /api/models/{name}/preupload/(?P<revision>[^/]+)", self._preupload),
            (rf"POST /api/models/{name}/branch/(?P<revision>[^/]+)", self._branch),
            (rf"POST /{name}\.git/info/lfs/objects/batch", self._batch),
            (r"PUT /upload/(?P<oid>\w+)", self._upload),
            (r"POST /verify", self._verify),
            (rf"POST /api/models/{name}/commit/(?P<revision>[^/]+)", self._commit),
        ]
        for pattern, answer in routes:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                values: dict[str, Any] = {key: unquote(value) for key, value in match.groupdict().items()}
                if self.command in ("POST", "PUT"):
                    values["body"] = body
                answer(**values)
                return
        raise _Refused(404, None, f"this hub does not speak {self.command} {path}")

    # Who may do what

    def _token(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        if token not in (None, READER, WRITER):
            raise _Refused(401, None, "Invalid credentials in Authorization header")
        return token

    def _repo(self, repo: str, *, write: bool = False) -> Repo:
        token = self._token()
        found = self.hub.repos.get(repo)
        if found is None or (found.private and token is None):
            raise _Refused(404 if token else 401, "RepoNotFound", "Repository not found")
        if found.disabled:
            raise _Refused(403, None, "Access to this resource is disabled.")
        if write and token != WRITER:
            raise _Refused(403, None, "You don't have the rights to write to this repository")
        return found

    def _at(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self._repo(repo)
        oid = found.resolve(revision)
        if oid is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid, found.commits[oid]

    # Reading

    def _info(self, repo: str, revision: str = "main") -> None:
        oid, files = self._at(repo, revision)
        found = self.hub.repos[repo]
        siblings = [{"rfilename": name} for name in sorted(files)]
        values = {"_id": oid[:24], "id": repo, "modelId": repo, "sha": oid, "siblings": siblings}
        self._json(values | {"private": found.private, "gated": "auto" if found.gated else False, "tags": []})

    def _tree(self, repo: str, revision: str) -> None:
        _, files = self._at(repo, revision)
        entries = []
        for name, data in sorted(files.items()):
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_oid(data)}
            if is_large(name, len(data)):
                entry["lfs"] = {
                    "oid": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 134,
                }
            entries.append(entry)
        self._json(entries)

    def _resolve(self, repo: str, revision: str, file: str) -> None:
        oid, files = self._at(repo, revision)
        headers = {"X-Repo-Commit": oid}
        if self.hub.repos[repo].gated and self._token() != WRITER:
            message = f"Access to model {repo} is restricted and you are not in the authorized list."
            raise _Refused(403 if self._token() else 401, "GatedRepo", message)
        if file not in files:
            self._json({}, status=404, headers=headers | {"X-Error-Code": "EntryNotFound"})
            return
        data = files[file]
        if not is_large(file, len(data)):
            self._answer(data, headers=headers | {"ETag": f'"{git_oid(data)}"'}, kind="text/plain")
            return
        sha = hashlib.sha256(data).hexdigest()
        self.hub.store[sha] = data
        place = f"http://localhost:{self.hub.port}/store/{sha}/{file}"  # another host, as far as a client can tell
        linked = {"X-Linked-ETag": f'"{sha}"', "X-Linked-Size": str(len(data)), "Location": place}
        self._answer(b"", status=302, headers=headers | linked)

    def _stored(self, oid: str, file: str) -> None:
        self._answer(self.hub.store[oid], headers={"ETag": f'"{oid}"'}, kind="application/octet-stream")

    # Writing

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        if self._token() is None:
            raise _Refused(401, None, "Invalid username or password.")
        if repo in self.hub.repos:
            self._json({"url": f"{self.hub.url}/{repo}", "error": "You already created it"}, status=409)
            return
        if self._token() != WRITER:
            raise _Refused(403, None, "You don't have the rights to create a model under this namespace")
        self.hub.add(repo, private=asked.get("visibility") == "private" or asked.get("private") is True)
        self._json({"url": f"{self.hub.url}/{repo}"})

    def _validate(self, body: bytes) -> None:
        parts = json.loads(body)["content"].split("---\n")
        try:
            values = yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0] else None
        except yaml.YAMLError as error:
            self._json({"errors": [{"message": str(error)}], "warnings": []}, status=400)
            return
        warnings = [] if isinstance(values, dict) else [{"message": "empty or missing yaml metadata"}]
        self._json({"errors": [], "warnings": warnings})

    def _preupload(self, repo: str, revision: str, body: bytes) -> None:
        self._repo(repo, write=True)
        _, there = self._at(repo, revision)
        files = []
        for asked in json.loads(body)["files"]:
            path, large = asked["path"], is_large(asked["path"], asked["size"])
            answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if path in there:
                answer["oid"] = hashlib.sha256(there[path]).hexdigest() if large else git_oid(there[path])
            files.append(answer)
        self._json({"files": files})

    def _branch(self, repo: str, revision: str, body: bytes) -> None:
        found = self._repo(repo, write=True)
        if revision in found.branches:
            raise _Refused(409, None, f"Reference {revision} already exists")
        found.branches[revision] = found.branches["main"]
        self._json({})

    def _batch(self, repo: str, body: bytes) -> None:
        self._repo(repo, write=True)
        objects = []
        for asked in json.loads(body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.store:
                upload = {"href": f"{self.hub.url}/upload/{asked['oid']}"}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/verify"}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def _upload(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refused(400, None, "the bytes are not those of this hash")
        self.hub.store[oid] = body
        self._json({})

    def _verify(self, body: bytes) -> None:
        asked = json.loads(body)
        if len(self.hub.store.get(asked["oid"], b"")) != asked["size"]:
            raise _Refused(404, None, "not uploaded")
        self._json({})

    def _commit(self, repo: str, revision: str, body: bytes) -> None:
        found = self._repo(repo, write=True)
        entries = [json.loads(line) for line in body.splitlines()]
        header = next(entry["value"] for entry in entries if entry["key"] == "header")
        if revision not in found.branches:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if header.get("parentCommit", found.branches[revision]) != found.branches[revision]:
            raise _Refused(412, None, "A commit has happened since. Please refresh and try again.")
        files = dict(found.commits[found.branches[revision]])
        for entry in entries:
            value = entry["value"]
            match entry["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.store[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        oid = found.commit(files, branch=revision, message=header["summary"])
        url = f"{self.hub.url}/{repo}/commit/{oid}"
        self._json({"success": True, "commitUrl": url, "commitOid": oid})

    # Bytes

    def _json(self, values: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._answer(json.dumps(values).encode(), status=status, headers=headers, kind="application/json")

    def _answer(
        self,
        body: bytes,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        kind: str = "text/plain",
    ) -> None:
        extra = dict(headers or {})
        if (asked := self.headers.get("Range")) and status == 200:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[start:]
        self.send_response(status)
        for name, value in extra.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if self._cut is None else body[: self._cut])
        if self._cut is not None:
            self.wfile.flush()
            self.close_connection = True
