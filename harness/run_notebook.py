"""Execute a notebook in a terminal: ``python -m harness.run_notebook assignment1.ipynb [num_messages=40000 ...]``.

It is replaced if every cell succeeds, unless it was changed meanwhile. With parameters it stays as it is, and the
executed copy is saved beside its results.
"""

import os
import signal
import sys


def heed_signals() -> list[signal.Signals]:
    """Let signals end this program in a sentence, and return those; one that is ignored, as by nohup, stays so."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    known = [getattr(signal, name) for name in names if hasattr(signal, name)]
    heeded = [each for each in known if signal.getsignal(each) != signal.SIG_IGN]
    for each in heeded:
        signal.signal(each, end_at_once)
    return heeded


def end_at_once(number: int, _frame: object) -> None:
    """End the program before there is anything to close; an exception could get lost in an import."""
    try:
        os.write(2, b"\nInterrupted before anything ran.\n")
    finally:
        os._exit(128 + number)


def main() -> None:
    """Execute the notebook that the command line names."""
    if not sys.argv[1:]:
        sys.exit(__doc__)
    signals = heed_signals()
    from harness.execute import execute  # only now: it takes a second, in which Ctrl-C would show a traceback

    execute(signals, *sys.argv[1:])


if __name__ == "__main__":
    main()
