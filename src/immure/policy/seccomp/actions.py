"""Actions of a filter: their names in a profile, their values in the kernel and which of two wins.

Values are SECCOMP_RET_* of `linux/seccomp.h`; seccomp(2) gives the order of precedence.
"""

from __future__ import annotations

import errno
from enum import Enum

EPERM = 1
EINVAL = 22
ENOSYS = 38
MAX_ERRNO = 4095
"""The kernel gives at most this, whatever a filter says (`MAX_ERRNO` of `linux/err.h`)."""


class Action(Enum):
    """What happens to a call. `KILL` is the old name of `KILL_THREAD`."""

    KILL = "SCMP_ACT_KILL"
    KILL_THREAD = "SCMP_ACT_KILL_THREAD"
    KILL_PROCESS = "SCMP_ACT_KILL_PROCESS"
    TRAP = "SCMP_ACT_TRAP"
    ERRNO = "SCMP_ACT_ERRNO"
    TRACE = "SCMP_ACT_TRACE"
    ALLOW = "SCMP_ACT_ALLOW"
    LOG = "SCMP_ACT_LOG"
    NOTIFY = "SCMP_ACT_NOTIFY"


RETURNS: dict[Action, int] = {
    Action.KILL_PROCESS: 0x8000_0000,
    Action.KILL_THREAD: 0x0000_0000,
    Action.KILL: 0x0000_0000,
    Action.TRAP: 0x0003_0000,
    Action.ERRNO: 0x0005_0000,
    Action.NOTIFY: 0x7FC0_0000,
    Action.TRACE: 0x7FF0_0000,
    Action.LOG: 0x7FFC_0000,
    Action.ALLOW: 0x7FFF_0000,
}

_BY_RETURN = {value: action for action, value in RETURNS.items() if action is not Action.KILL}

CARRIES_DATA = frozenset({Action.ERRNO, Action.TRACE})
PERMISSIVE = frozenset({Action.ALLOW, Action.LOG, Action.TRACE})
"""Actions that let a call the profile has no word for reach the kernel, which then answers ENOSYS itself."""

ALLOW = RETURNS[Action.ALLOW]
ENOSYS_RETURN = RETURNS[Action.ERRNO] | ENOSYS


def encode(action: Action, data: int | None) -> int:
    """The filter's return value. ERRNO and TRACE without a number carry EPERM, as in runc."""
    if action not in CARRIES_DATA:
        return RETURNS[action]
    number = EPERM if data is None else data
    return RETURNS[action] | (min(number, MAX_ERRNO) if action is Action.ERRNO else number)


def decode(value: int) -> tuple[Action, int | None]:
    """Action and number of a return value. An action that the kernel doesn't know is a kill to it."""
    action = _BY_RETURN.get(value & 0xFFFF_0000, Action.KILL_PROCESS)
    return action, value & 0xFFFF if action in CARRIES_DATA else None


def severity(value: int) -> int:
    """A key that sorts return values, the most restrictive first: actions compare as signed numbers."""
    return (value & 0xFFFF_0000) ^ 0x8000_0000


def describe(value: int) -> str:
    """A return value in words: `ALLOW`, `ERRNO EPERM`, `TRACE 7`."""
    action, data = decode(value)
    if data is None:
        return action.name
    known = errno.errorcode.get(data) if action is Action.ERRNO else None
    return f"{action.name} {known or data}"


def errno_number(name: str) -> int | None:
    """The number of an error such as `ENOSYS`, or None if there is none of that name."""
    number: object = getattr(errno, name, None)
    return number if isinstance(number, int) and errno.errorcode.get(number) else None


def errno_names() -> list[str]:
    """All names that `errno_number` knows."""
    return [name for name in dir(errno) if errno_number(name) is not None]
