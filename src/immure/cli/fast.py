"""`immure run` when the launch of these options is in the cache.

The key is the options as they were typed. What else the launch came from is kept with it and compared: the content
of files that were read, and variables that `-e NAME` took from the environment.
"""

from __future__ import annotations

import os

from immure.engine import cache
from immure.errors import ImmureError
from immure.plan.launch import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    from typing import Any

#: Options after which nothing is cached: they print or write what takes the models to make.
_SLOW = ("--dry-run", "--result", "--keep", "--detach", "-h", "--help", "--tty")


def _is_slow(option: str) -> bool:
    """Options of one letter may stand together: `-it` is -i and -t."""
    return option.startswith(_SLOW) or (option[:1] == "-" and not option.strip("-itqd") and bool({*"td"} & {*option}))


class Dependencies:
    """What a launch was made from, beside its options."""

    __slots__ = ("environment", "files", "interactive", "quiet")

    def __init__(self) -> None:
        self.files: list[tuple[str, bytes]] = []
        self.environment: list[tuple[str, str | None]] = []
        self.interactive = False
        self.quiet = False


def run_cached(arguments: list[str]) -> int | None:
    """Runs it, or gives None where the launch is not in the cache."""
    if "--" not in arguments:
        return None
    end = arguments.index("--")
    options, command = arguments[:end], arguments[end + 1 :]
    if not command or any(_is_slow(option) for option in options):
        return None
    entry = cache.load(_name(options))
    found = _valid(entry)
    if found is None:
        return None
    launch, interactive, quiet = found
    # The spawner makes what boxes share while this process imports the rest.
    from immure.engine.spawners import spawner_for

    try:
        spawner_for(launch).load(launch)
    except ImmureError:
        # It fails again, and is told, when the box is asked for.
        pass
    from immure.cli.execute import execute

    return execute(launch, command, interactive=interactive, quiet=quiet)


def remember(options: list[str], launch: Launch, dependencies: Dependencies) -> None:
    """Keeps a launch for the next time that the same options are typed."""
    if any(_is_slow(option) for option in options):
        return
    value = (
        dependencies.files,
        dependencies.environment,
        launch.to_tuple(),
        dependencies.interactive,
        dependencies.quiet,
    )
    cache.store(_name(options), value)


def _name(options: list[str]) -> str:
    try:
        place = os.getcwd()  # noqa: PTH109
    except OSError:
        place = ""
    return "run-" + cache.key_of(options, place, cache.host_key())


def _valid(entry: Any) -> tuple[Launch, bool, bool] | None:
    try:
        files, environment, values, interactive, quiet = entry
    except (TypeError, ValueError):
        return None
    for path, content in files:
        if _content(path) != content:
            return None
    for name, value in environment:
        if os.environ.get(name) != value:
            return None
    try:
        launch = Launch.from_tuple(values)
    except ValueError:
        return None
    return (launch, interactive, quiet) if cache.is_current(launch) else None


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.readall()
    except OSError:
        return None
