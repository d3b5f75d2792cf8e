"""What a terminal, a log file or a pipe gets to see: progress as lines, errors as one sentence, no noise from pipes.

Of several processes that torchrun started only the first prints results; the others' errors say whose they are.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import TextIO


@contextmanager
def readable_streams() -> Generator[None, None, None]:
    """Progress on standard error as lines where no terminal redraws them; no character is too odd to print."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where a test or a notebook has put its own
            stream.reconfigure(errors="backslashreplace")
    if sys.stderr.isatty():
        yield
        return
    os.environ.setdefault("TQDM_NCOLS", "0")  # figures without the bar; read when tqdm is first imported
    with redirect_stderr(LogLines(sys.stderr)):
        yield


class LogLines(io.TextIOBase):
    """A text stream that turns what redraws one line into lines of their own.

    A carriage return begins a drawing, a flush ends it. A drawing equal to the one before is left out, and so is the
    blank line that would follow the last one.

    Args:
        stream: where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_open = False  # the line at hand has text
        self._drawing = False  # it began with a carriage return
        self._last = ""

    @property
    def encoding(self) -> str:  # ty: ignore[incompatible-property-override]
        """Of the stream underneath; tqdm asks before it draws blocks."""
        return self._stream.encoding

    def fileno(self) -> int:
        """Of the stream underneath."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Writes text; returns its length."""
        for part in re.split(r"([\r\n])", text):
            if part == "\r":
                self._end_line()
                self._drawing = True
            elif part == "\n":
                if self._is_open or not self._drawing:
                    self._stream.write("\n")
                self._is_open = self._drawing = False
            elif self._drawing:
                part = part.rstrip()
                if part and part != self._last:
                    self._stream.write(part)
                    self._is_open, self._last = True, part
            elif part:
                self._stream.write(part)
                self._is_open = True
        return len(text)

    def flush(self) -> None:
        """Ends a drawing's line."""
        if self._drawing:
            self._end_line()
        self._stream.flush()

    def _end_line(self) -> None:
        if self._is_open:
            self._stream.write("\n")
            self._is_open = False


def sentence(error: BaseException) -> str:
    """What went wrong, on one line; a bare error of the operating system is put as "file: reason"."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and text.startswith("[Errno"):
        if error.filename is None:
            return error.strerror
        return f"{os.fsdecode(error.filename)}: {error.strerror.lower()}"
    return text or type(error).__name__


def who() -> str:
    """` of process N` in a process that torchrun started after its first, else nothing."""
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" else f" of process {rank}"


def say(text: str) -> None:
    """Prints on standard output, in the first process; see `flush_output`."""
    if who():
        return
    with _standard_output():
        print(text, flush=True)


def flush_output() -> None:
    """Writes out what is buffered; a reader that has gone (`| head`) has seen enough.

    Raises:
        OSError: the output cannot be written, for instance to a full disk.
    """
    with _standard_output():
        sys.stdout.flush()


def drop_output() -> None:
    """Sends what is still buffered for standard output nowhere, so that the exit does not stumble over it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _standard_output() -> Generator[None, None, None]:
    try:
        yield
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        drop_output()
        raise OSError(error.errno, f"cannot write to standard output: {error.strerror}") from error
