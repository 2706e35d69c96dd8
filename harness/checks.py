"""Parameters, judged before anything is sent."""

import math
from pathlib import Path

from harness.errors import ConfigError

CLUSTER_CHOICES = ("auto", "cloud", "local", "distant", "simulated")
LONGEST_TIMEOUT_S = 2_147_483  # the client takes milliseconds in 32 bits


def check_whole(name: str, value: object) -> None:
    """Make sure that a parameter is a whole number of 1 or more.

    Raises:
        ConfigError: with the parameter's name.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} has to be a whole number, 1 or more.")


def check_seconds(name: str, value: object) -> None:
    """Make sure that a parameter is a time in seconds that the client can be given; 0 would mean "for ever" to it.

    Raises:
        ConfigError: with the parameter's name.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not 0.001 <= value <= LONGEST_TIMEOUT_S:
        raise ConfigError(f"{name} has to be a number of seconds, from 0.001 to {LONGEST_TIMEOUT_S:,}.")


def check_choice(choice: object) -> None:
    """Make sure that a cluster of that name can be opened.

    Raises:
        ConfigError: with the names there are.
    """
    if choice not in CLUSTER_CHOICES:
        raise ConfigError(f"cluster_choice has to be one of {', '.join(CLUSTER_CHOICES)}.")


def check_parameters(
    num_messages: int,
    batch_size: int,
    *,
    runs_each: int | None = None,
    cluster_choice: str = "auto",
    saved_run: str = "",
) -> None:
    """Judge the notebook's parameters, all of them, before anything is sent.

    Raises:
        ConfigError: with the parameter's name and what it has to be.
    """
    check_whole("num_messages", num_messages)
    check_whole("batch_size", batch_size)
    if batch_size > num_messages:
        raise ConfigError("batch_size can't be larger than num_messages; make it smaller, or send more messages.")
    if runs_each is not None:
        check_whole("runs_each (unless it is None)", runs_each)
    check_choice(cluster_choice)
    if not isinstance(saved_run, str):
        raise ConfigError('saved_run has to be a folder\'s name in quotes, or "" to measure.')
    if saved_run and not Path(saved_run).is_dir():
        beside = Path("results") / saved_run
        hint = f'write "{beside.as_posix()}"' if beside.is_dir() else 'it has to be like "results/2026-11-22_..."'
        raise ConfigError(f"saved_run names no folder; {hint}.")
