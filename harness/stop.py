"""The user's stop button: an interrupt is noted, and what is under way ends at a safe point."""

import signal
import threading
from collections.abc import Callable
from typing import ClassVar


class StopButton:
    """The user's interrupt: the first is noted, a second one is raised as usual.

    Nothing is raised out of the signal handler at the first press: the client loses an exception that falls into one
    of its callbacks, and Python one that falls into a destructor. Whoever works under the button calls
    :meth:`check` between two short waits, or sets ``then``, which is called at the press and answers for the stop.
    While ``closing``, every press is noted only, so that a client is always closed. Only the main thread is ever
    interrupted; a button in another thread counts as pressed when the main thread's is.
    """

    _of_main_thread: ClassVar["StopButton | None"] = None

    def __init__(self) -> None:
        self.closing = False
        self.then: Callable[[], None] | None = None
        self._pressed = False

    @property
    def pressed(self) -> bool:
        """Whether the user has pressed."""
        main = StopButton._of_main_thread
        return self._pressed or (main is not None and main._pressed)

    def __enter__(self) -> "StopButton":
        in_main = threading.current_thread() is threading.main_thread()
        # Also in the place of asyncio's and a notebook's own handler, which would wait for this code to end; but not of
        # another stop button, whose owner answers for the stop.
        self._before = signal.getsignal(signal.SIGINT)
        is_anothers = isinstance(getattr(self._before, "__self__", None), StopButton)
        self._installed = in_main and callable(self._before) and not is_anothers
        if self._installed:
            signal.signal(signal.SIGINT, self._press)
            StopButton._of_main_thread = self
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if self._installed:
            StopButton._of_main_thread = None
            signal.signal(signal.SIGINT, self._before)
        if kind is None:
            self.check()

    def _press(self, *_) -> None:
        if self._pressed and not self.closing:
            raise KeyboardInterrupt
        self._pressed = True
        if self.then:
            self.then()

    def check(self) -> None:
        """Raise KeyboardInterrupt if the button was pressed and nobody answers for it."""
        if self.pressed and not self.then:
            raise KeyboardInterrupt
