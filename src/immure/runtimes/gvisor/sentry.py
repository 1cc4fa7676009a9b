"""What the host sees of a Sentry: every process in its outer box, what it executes and what filters it."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache

import msgspec

from immure.host.native import native_program
from immure.host.tree import below
from immure.policy.seccomp import bpf
from immure.policy.seccomp.abi import find_abi
from immure.policy.seccomp.actions import RETURNS, Action
from immure.policy.seccomp.syscalls import numbers

_STATUS_BYTES = 4096
_READING_S = 10.0
#: What a Sentry has no need of: to become another program, to change mounts or modules, to watch others.
_NEVER = ("execve", "execveat", "mount", "pivot_root", "init_module", "bpf", "keyctl", "open_by_handle_at", "setns")


class SentryReading:
    """A reading of every process below `pid`, and of this host's kernel, which needs some time: others may go on
    meanwhile. To be made once the Sentry serves, whose filters stand before it does. Leaving it ends what was begun.
    """

    def __init__(self, pid: int, *, root: bool) -> None:
        """Begins to read the filters of the Sentry itself, which root alone can."""
        self._pid, self._root = pid, root
        self._asked = [one for one in below(pid) if _is_sentry(_read(f"/proc/{one}/cmdline"))] if root else []
        self._reader = _begin_reading(self._asked) if self._asked else None

    def __enter__(self) -> SentryReading:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.kill()
            self._reader.communicate()

    def items(self) -> dict[str, bytes]:
        """Items `sentry/PID/…` of what runs there now; `lets` names what filters let through that they must not."""
        items: dict[str, bytes] = {}
        boots: list[int] = []
        for one in below(self._pid):
            found = _process(one)
            if found is None:
                # It has ended meanwhile.
                continue
            items.update({f"sentry/{one}/{name}": value for name, value in found.items()})
            if _is_sentry(found["cmdline"]):
                boots.append(one)
        for one, lets in self._let_through(boots).items():
            items[f"sentry/{one}/lets"] = lets
        own = os.uname()
        items["host/uname"] = f"{own.release}\0{own.version}".encode()
        return items

    def _let_through(self, pids: list[int]) -> dict[int, bytes]:
        """What the filters of each process were asked about and let through; `nothing`, or `unread`."""
        if not self._root or not pids:
            return dict.fromkeys(pids, b"unread")
        reader, self._reader = self._reader, None
        if reader is None or pids != self._asked:
            # Another one has come since.
            if reader is not None:
                _finish(reader)
            reader = _begin_reading(pids)
        try:
            read = msgspec.msgpack.decode(_finish(reader), type=dict[int, list[bytes] | int])
        except (msgspec.DecodeError, subprocess.TimeoutExpired):
            return dict.fromkeys(pids, b"an answer that could not be read")
        found: dict[int, bytes] = {}
        for pid in pids:
            programs = read.get(pid, 0)
            # None is what a kernel without CONFIG_CHECKPOINT_RESTORE says of every process. Whether this one has any is
            # in its status.
            found[pid] = b"all" if isinstance(programs, int) else _asked(tuple(programs)) if programs else b"unread"
        return found


def _is_sentry(cmdline: bytes) -> bool:
    return b"\0boot\0" in cmdline


def gofers(items: dict[str, bytes]) -> list[int]:
    """Of the processes in a reading those that open files for a Sentry."""
    return [
        int(name.split("/")[1]) for name, value in items.items() if name.endswith("/cmdline") and b"\0gofer\0" in value
    ]


def _begin_reading(pids: list[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [native_program(), "filters", *map(str, pids)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _finish(reader: subprocess.Popen[bytes]) -> bytes:
    """What it says. Raises subprocess.TimeoutExpired, after it was ended."""
    try:
        return reader.communicate(timeout=_READING_S)[0]
    except BaseException:
        reader.kill()
        reader.communicate()
        raise


def _process(pid: int) -> dict[str, bytes] | None:
    try:
        exe = os.readlink(f"/proc/{pid}/exe").encode(errors="surrogateescape")  # noqa: PTH115
    except FileNotFoundError:
        return None
    except OSError as error:
        exe = os.strerror(error.errno or 0).encode()
    return {"exe": exe, "status": _read(f"/proc/{pid}/status"), "cmdline": _read(f"/proc/{pid}/cmdline")}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(_STATUS_BYTES)
    except OSError:
        return b""


# Those of one program are mostly the same.
@lru_cache(maxsize=16)
def _asked(programs: tuple[bytes, ...]) -> bytes:
    abi = find_abi(os.uname().machine)
    known = numbers(abi)
    let = [name for name in _NEVER if name in known and _allows(programs, known[name], abi.audit)]
    return " ".join(let).encode() or b"nothing"


def _allows(programs: tuple[bytes, ...], number: int, audit: int) -> bool:
    return all(bpf.run(one, number, audit)[0] == RETURNS[Action.ALLOW] for one in programs)
