"""Models of a hub: fetched into the hub's own cache, and published as one commit; its errors put as sentences.

All traffic and the cache are huggingface_hub's, with its environment variables: HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE,
HF_TOKEN. The public hub is https://huggingface.co.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import tempfile
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of whichever HTTP library the client uses: httpx in 1.x, httpx2 in 2.x
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from pocketclip.checkpoint.card import MARK, model_card
from pocketclip.checkpoint.foreign import write_foreign
from pocketclip.checkpoint.loaded import Loaded
from pocketclip.checkpoint.open_clip_config import CONFIG_FILE, WEIGHTS_FILE, to_open_clip
from pocketclip.checkpoint.store import save
from pocketclip.data.publish import PublishError

PREFIX = "hf-hub:"
CHECKPOINT_FILE = "pocketclip.safetensors"
CARD_FILE = "README.md"
_OWN_NAMES = (CHECKPOINT_FILE, "checkpoint.safetensors")  # the second is what `pocketclip train` writes
_OPEN_CLIP_WEIGHTS = (WEIGHTS_FILE, "open_clip_pytorch_model.bin")
_ANSWER_SECONDS = 10
_CONNECT_ONCE = "fetch it once with a connection, or point HF_HOME to a cache that has it"
_LOG_IN = "log in with `hf auth login`, or give a token"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A repository at a revision."""

    repo_id: str
    revision: str
    endpoint: str
    cache: Path

    @property
    def name(self) -> str:
        """As a user would write it."""
        return (
            self.repo_id if self.revision == constants.DEFAULT_REVISION else f"{self.repo_id}@{self.revision}"
        )

    @property
    def page(self) -> str:
        """The address for people."""
        return f"{self.endpoint}/{self.repo_id}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return re.fullmatch(r"[0-9a-f]{40}", self.revision) is not None


def fetch(
    reference: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """The files of a model on the hub, in the local cache; of several layouts in a repository only the best.

    Files that are there already are not fetched again. A download that breaks off leaves what was in use before.
    Where the hub cannot be reached, the cached files are used, with a warning that says so.

    Args:
        reference: "hf-hub:ORG/NAME" or "hf-hub:ORG/NAME@REVISION", a branch, tag or commit.
        revision: the same, apart; None for the reference's, or main.
        cache_dir: cache of huggingface_hub; None for the usual one.
        token: for private and gated repositories; None for the one of `hf auth login` or HF_TOKEN.
        local_files_only: ask nobody, take what is cached.

    Returns:
        The folder of the snapshot; `model_files` says which of its files are the model.

    Raises:
        ValueError: no reference of this form, or the repository holds no model that can be read.
        FileNotFoundError: no such repository or revision; nothing cached and nobody to be asked.
        PermissionError: private or gated, or the token was refused.
        ConnectionError: the hub cannot be reached and nothing is cached; the download broke off.
        PublishError: disk full, or the cache cannot be written.
    """
    place = _place(reference, revision=revision, cache_dir=cache_dir)
    if local_files_only or place.is_pinned:
        folder = _cached(place)
        if folder is not None:
            return folder
    if local_files_only:
        raise FileNotFoundError(f"{place.name} is not in the cache {place.cache}: {_CONNECT_ONCE}")
    try:
        commit, names = _ask(place, token=token)
    except ConnectionError as error:
        folder = _cached(place)
        if folder is None:
            raise ConnectionError(
                f"{error}, and {place.name} is not in the cache {place.cache}: {_CONNECT_ONCE}"
            ) from error
        warnings.warn(f"{error}: using the cached {place.name}, commit {folder.name[:12]}", stacklevel=2)
        return folder
    wanted = model_files(names, where=place.name)
    # By its commit first: the name (main) goes on to mean the old files until the new ones are all there.
    folder = _cached(replace(place, revision=commit))
    if folder is None or not all((folder / name).is_file() for name in wanted):
        folder = _download(place, commit, wanted, token=token)
    if _cached(place) != folder:
        _download(place, place.revision, wanted, token=token)
    return folder


def model_files(names: Iterable[str], *, where: str) -> tuple[str, ...]:
    """The files that hold the model of a repository or folder: of several layouts the best, weights last.

    In order: pocketclip's checkpoint; open_clip's layout (safetensors before .bin); one other .safetensors file; one
    .pt file, as Apple's releases have.

    Args:
        names: of all files, relative to the folder.
        where: the repository or folder, for the sentence.

    Raises:
        ValueError: nothing that can be read, or several files of one kind.
    """
    there = {name for name in names if "/" not in name}
    for name in _OWN_NAMES:
        if name in there:
            return (name,)
    for name in _OPEN_CLIP_WEIGHTS:
        if name in there and CONFIG_FILE in there:
            return (CONFIG_FILE, name)
    for suffix in (".safetensors", ".pt"):
        found = sorted(name for name in there if name.endswith(suffix))
        if len(found) > 1:
            raise ValueError(
                f"{where} holds several {suffix} files ({_some(found)}) and none named {CHECKPOINT_FILE}: get the "
                "right one (`hf download`) and load the file"
            )
        if found:
            return (*sorted(there & {CONFIG_FILE, "config.json"}), found[0])
    raise ValueError(
        f"{where} holds no model that pocketclip reads (a pocketclip checkpoint, open_clip's layout, a .safetensors or "
        f".pt file), only {_some(sorted(there)) or 'nothing'}"
    )


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What `save_to_hub` did.

    Attributes:
        repo_id: "ORG/NAME".
        commit: its hash, 40 hexadecimal digits; "hf-hub:ORG/NAME@COMMIT" means these very files for ever.
        url: of the commit's page.
        files: what the model consists of there, names in the repository.
        without_open_clip: why open_clip's layout is not among them; None where it is.
    """

    repo_id: str
    commit: str
    url: str
    files: tuple[str, ...]
    without_open_clip: str | None


def save_to_hub(
    loaded: Loaded,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a pocketclip model",
    license: str = "unknown",  # noqa: A002
) -> Uploaded:
    """Publishes a model on the hub, for pocketclip and for open_clip, in one commit: all of it or nothing.

    Written are the checkpoint, open_clip's layout of the same weights where open_clip has such towers, and a model
    card. A card that somebody has made their own stays. Weights of another layout that the new model does not replace
    are deleted, so that a repository never offers two models. The checkpoint's header goes along: the run's settings
    and the names of samples that it dropped.

    Args:
        loaded: un-folded.
        repo_id: "ORG/NAME"; made where it does not exist.
        private: only its owners may see it.
        token: one that may write; None for the one of `hf auth login` or HF_TOKEN.
        revision: branch to commit to, made where it does not exist; None for main.
        commit_message: one line.
        license: an identifier of the hub, such as apache-2.0; the model's owner alone knows.

    Raises:
        ValueError: the model is folded; not a repository's name; not a license's; nothing was sent.
        PermissionError: not logged in, or not allowed to write there; the repository is public, and private was asked.
        ConnectionError: the hub cannot be reached, or the upload broke off; nothing was published.
        OSError: somebody else has changed the repository meanwhile.
    """
    place = _place(PREFIX + repo_id, revision=revision, cache_dir=None)
    if not commit_message.strip():
        raise ValueError("commit_message is empty: say in a line what is uploaded")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="pocketclip") as staged:
        files, reason = _stage(loaded, Path(staged), repo_id=place.repo_id, license=license)
        parent, there = _prepare(api, place, private=private)
        stale = {*_OWN_NAMES, CONFIG_FILE, *_OPEN_CLIP_WEIGHTS} & there - files.keys()
        with _in_a_sentence(place, lost=_UPLOAD_LOST):
            kept = {CARD_FILE} if CARD_FILE in there and not _is_ours(api, place, commit=parent) else set()
            added = [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
                for name, path in sorted(files.items())
                if name not in kept
            ]
            commit = api.create_commit(
                place.repo_id,
                [*added, *(CommitOperationDelete(path_in_repo=name) for name in sorted(stale))],
                commit_message=commit_message,
                revision=place.revision,
                parent_commit=parent,
            )
    return Uploaded(
        repo_id=place.repo_id,
        commit=commit.oid,
        url=commit.commit_url,
        files=tuple(sorted(files)),
        without_open_clip=reason,
    )


def _stage(
    loaded: Loaded,
    folder: Path,
    *,
    repo_id: str,
    license: str,  # noqa: A002
) -> tuple[dict[str, Path], str | None]:
    """Writes what is to be uploaded, by name; and says why open_clip's layout is not among it."""
    files = {CHECKPOINT_FILE: folder / CHECKPOINT_FILE, CARD_FILE: folder / CARD_FILE}
    save(files[CHECKPOINT_FILE], loaded.model, config=loaded.config, tokenizer=loaded.tokenizer)
    reason = None
    try:
        to_open_clip(loaded.config, tokenizer=loaded.tokenizer)
        write_foreign(loaded, folder / "open_clip", layout="open_clip")
        files |= {name: folder / "open_clip" / name for name in (CONFIG_FILE, WEIGHTS_FILE)}
    except ValueError as error:
        reason = str(error)
    card = model_card(loaded, repo_id, license=license, with_open_clip=reason is None)
    files[CARD_FILE].write_text(card, encoding="utf-8")
    return files, reason


def _prepare(api: HfApi, place: _Place, *, private: bool) -> tuple[str, set[str]]:
    """Makes repository and branch where they are missing; gives the commit to build on and the files there."""
    with _in_a_sentence(place, lost=_UPLOAD_LOST):
        api.create_repo(place.repo_id, private=private, exist_ok=True)
        is_private = api.model_info(place.repo_id, timeout=_ANSWER_SECONDS).private
    if private and not is_private:
        raise PermissionError(
            f"{place.repo_id} is public already, nothing was sent: make it private in its settings "
            f"({place.page}/settings), or upload without private"
        )
    with _in_a_sentence(place, lost=_UPLOAD_LOST):
        if place.revision != constants.DEFAULT_REVISION:
            api.create_branch(place.repo_id, branch=place.revision, exist_ok=True)
        info = api.model_info(place.repo_id, revision=place.revision, timeout=_ANSWER_SECONDS)
    assert info.sha is not None
    return info.sha, {file.rfilename for file in info.siblings or ()}


def _is_ours(api: HfApi, place: _Place, *, commit: str) -> bool:
    """Whether the repository's card is as an upload wrote it."""
    with tempfile.TemporaryDirectory(prefix="pocketclip") as folder:
        path = api.hf_hub_download(place.repo_id, CARD_FILE, revision=commit, cache_dir=folder)
        return MARK in Path(path).read_text(encoding="utf-8", errors="replace")


def _place(reference: str, *, revision: str | None, cache_dir: str | Path | None) -> _Place:
    named, separator, written = reference.removeprefix(PREFIX).partition("@")
    wanted = revision or written or constants.DEFAULT_REVISION
    if not reference.startswith(PREFIX) or named.count("/") != 1 or (separator and not written):
        raise ValueError(
            f"{reference!r} names no repository: write {PREFIX}ORG/NAME, or {PREFIX}ORG/NAME@REVISION"
        )
    if revision and written and revision != written:
        raise ValueError(f"{reference!r} and revision {revision!r} disagree: give one")
    if not re.fullmatch(r"\w[\w.+/-]*", wanted) or ".." in wanted:
        raise ValueError(f"{reference!r}: {wanted!r} is no revision: give a branch, a tag or a commit")
    try:
        validate_repo_id(named)
    except HFValidationError as error:
        raise ValueError(f"{reference!r} names no repository ({_first_line(error)})") from None
    return _Place(
        repo_id=named,
        revision=wanted,
        endpoint=constants.ENDPOINT,
        cache=Path(cache_dir or constants.HF_HUB_CACHE).expanduser(),
    )


def _cached(place: _Place) -> Path | None:
    """The snapshot of a revision, where the cache holds all files of its model."""
    try:
        path = snapshot_download(
            place.repo_id,
            revision=place.revision,
            cache_dir=place.cache,
            local_files_only=True,
            allow_patterns=[],  # whatever it holds
        )
        model_files((file.name for file in Path(path).iterdir() if file.is_file()), where=place.name)
    except (LocalEntryNotFoundError, ValueError):  # nothing, or a part of it
        return None
    return Path(path)


def _download(place: _Place, revision: str, wanted: Sequence[str], *, token: str | None) -> Path:
    with _in_a_sentence(place, lost=_DOWNLOAD_LOST):
        folder = snapshot_download(
            place.repo_id,
            revision=revision,
            cache_dir=place.cache,
            token=token,
            allow_patterns=[glob.escape(name) for name in wanted],
        )
    return Path(folder)


def _ask(place: _Place, *, token: str | None) -> tuple[str, list[str]]:
    """The commit that a revision stands for, and the names of its files.

    Raises:
        ConnectionError: nobody answers, or not a hub.
    """
    api = HfApi(token=token)
    try:
        with _in_a_sentence(place, lost=_UNREACHABLE):
            info = api.model_info(place.repo_id, revision=place.revision, timeout=_ANSWER_SECONDS)
    except (ValueError, TypeError, KeyError):  # the page of a network that wants a log-in, for instance
        info = None
    if info is None or info.sha is None:
        raise ConnectionError(
            f"{place.endpoint} does not answer as a hub does (see HF_ENDPOINT, and your network)"
        )
    return info.sha, [file.rfilename for file in info.siblings or ()]


_UNREACHABLE = "{endpoint} cannot be reached ({reason})"
_DOWNLOAD_LOST = "the download of {name} broke off ({reason}): run it again, files that are whole are kept"
_UPLOAD_LOST = "the upload to {name} broke off ({reason}): run it again, nothing was published"


@contextmanager
def _in_a_sentence(place: _Place, *, lost: str) -> Generator[None, None, None]:
    """Puts what the client raises as one sentence; `lost` is the one for a connection."""
    try:
        yield
    except (HTTPError, OSError, RuntimeError) as error:
        cause: BaseException = error
        while isinstance(cause, LocalEntryNotFoundError | RuntimeError) and cause.__cause__ is not None:
            cause = cause.__cause__  # the client's own wrapping
        raise _explained(cause, place=place, lost=lost) from error


def _explained(error: BaseException, *, place: _Place, lost: str) -> OSError:
    match error:
        case GatedRepoError():
            return PermissionError(
                f"{place.repo_id} is gated: ask for access at {place.page}, then {_LOG_IN}"
            )
        case RepositoryNotFoundError():
            return FileNotFoundError(
                f"{place.endpoint} has no repository {place.repo_id}, or it is private: check the name, or {_LOG_IN}"
            )
        case RevisionNotFoundError():
            return FileNotFoundError(
                f"{place.repo_id} has no revision {place.revision!r}: {place.page}/tree/main lists what there is"
            )
        case DisabledRepoError():
            return PermissionError(
                f"{place.repo_id} was disabled by its hub: see {place.page}, or take another"
            )
        case HfHubHTTPError():
            status, said = error.response.status_code, _first_line(error.server_message or "no reason given")
            if status in (401, 403):
                return PermissionError(
                    f"{place.endpoint} refuses access to {place.repo_id} ({said}): {_LOG_IN}"
                )
            if status == 412:
                return OSError(f"{place.repo_id} was changed by somebody else meanwhile: run it again")
            reason = f"answer {status}, {said}"
        case OfflineModeIsEnabled():
            reason = "HF_HUB_OFFLINE is set"
        case OSError(errno=int() as number) if not isinstance(error, ConnectionError | TimeoutError):
            return _unwritable(number, place=place)
        case _:
            reason = _first_line(error)
    return ConnectionError(lost.format(endpoint=place.endpoint, name=place.name, reason=reason))


def _unwritable(number: int, *, place: _Place) -> PublishError:
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free some space" if full else "change its permissions"
    error = PublishError(
        f"{place.name} cannot be kept in the cache {place.cache} ({os.strerror(number).lower()}): {remedy}, or set "
        "HF_HOME to another folder"
    )
    error.errno = number
    return error


def _first_line(text: object) -> str:
    lines = str(text).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(text).__name__


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
