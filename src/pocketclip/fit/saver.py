"""Training states on their way to disk while training goes on: the last few are kept, each whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

State = dict[str, Any]  # a tree of tensors, numbers and strings


class Saver:
    """Writes one state at a time in a thread of its own.

    Args:
        folder: of the files `step-00000050.safetensors`.
        write: puts a state on disk, whole or not at all.
        keep: how many of the latest states stay.
    """

    def __init__(self, folder: Path, *, write: Callable[[Path, State], None], keep: int) -> None:
        self._folder = folder
        self._write = write
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._thread.shutdown()

    def __call__(self, state: Mapping[str, Any]) -> None:
        """Takes a copy of a state and returns; the state has a `step`.

        Raises:
            OSError: the state before this one could not be written; the files before that stand.
        """
        self.finish()
        copy = _copied(dict(state))
        self._under_way = self._thread.submit(self._save, copy)

    def finish(self) -> None:
        """Waits for the state that is being written.

        Raises:
            OSError: it could not be written.
        """
        under_way, self._under_way = self._under_way, None
        if under_way:
            under_way.result()

    def _save(self, state: State) -> None:
        self._write(self._folder / f"step-{state['step']:08d}.safetensors", state)
        for path in saved_states(self._folder)[self._keep :]:
            path.unlink(missing_ok=True)


def saved_states(folder: Path) -> list[Path]:
    """The states in a folder, the latest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def _copied(tree: Any) -> Any:  # noqa: ANN401
    """The tree with every tensor copied to the CPU, because the next step changes it in place."""
    match tree:
        case Tensor():
            return tree.detach().to("cpu", copy=True)
        case dict():
            return {key: _copied(value) for key, value in tree.items()}
        case list() | tuple():
            return type(tree)(_copied(value) for value in tree)
    return tree
