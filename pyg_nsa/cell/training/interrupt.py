"""Ctrl-C during training: finish the step, save, stop. A second one stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["StopRequest", "TrainingInterrupted", "stop_on_signals"]

# The same signal sent twice, to a process and to its group: `timeout` does so, and torchrun in a job that a batch system stops.
_ONE_REQUEST = 1.0  # seconds


class TrainingInterrupted(RuntimeError):
    """Training was asked to stop, and has saved where it stands.

    Attributes:
        checkpoint: What to go on from.
    """

    def __init__(self, message: str, checkpoint: Path | None = None) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


class StopRequest:
    """Whether somebody wants training to stop; may be set from anywhere, and is looked at after every step."""

    def __init__(self) -> None:
        self.requested = False
        #: What is to be called for which signal.
        self.handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {}

    def listen(self) -> None:
        """Takes the signals, also from a library that has taken them since.

        Lightning has a handler of SIGTERM, which talks to the other processes in the middle of whatever they talk about (and all of
        them wait for ever), and in the last step of an epoch or in validation ends training unsaved, with status 0.
        """
        for number, handler in self.handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns the first SIGINT (Ctrl-C) or SIGTERM into a request, and lets a second one end the process at once.

    A step is never torn apart that way: an exception in the middle of an optimiser's step would leave some parameters
    updated and others not. SIGTERM is what batch systems send before they take a machine away. What comes within a second of the
    first belongs to it. In threads other than the main one Python delivers no signals, and nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    asked_at = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        if request.requested:
            if time.monotonic() - asked_at < _ONE_REQUEST:
                return
            # As if nobody had ever listened: whoever started this process sees what ended it. Progress bars hide the cursor.
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h\n")
                sys.stderr.flush()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        request.requested = True
        asked_at = time.monotonic()
        sys.stderr.write("\nstopping after this step; once more stops at once, without saving\n")
        sys.stderr.flush()

    request.handlers = {signal.SIGINT: handle, signal.SIGTERM: handle}
    before: dict[signal.Signals, Any] = {n: signal.getsignal(n) for n in request.handlers}
    request.listen()
    try:
        yield request
    finally:
        for number, handler in before.items():
            # None: installed by something other than Python, which cannot be put back from here.
            if handler is not None:
                signal.signal(number, handler)
