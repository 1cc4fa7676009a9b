"""The others: the C floor, bubblewrap, and processes without walls."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.build import build
from bench.contender import COMMAND, Contender, python_worker
from bench.filters import Filters

HOST_LINKS = ("bin", "sbin", "lib", "lib32", "libx32", "lib64")
PYTHON = (sys.executable, "-SI", "-c", "pass")


def floor(filters: Filters) -> Contender:
    return Contender(
        "floor",
        "safe floor: C client, C spawner",
        f"floor serve FILTER -- {COMMAND}",
        (*_floor("serve", filters), COMMAND),
        rated=True,
    )


def floor_run(filters: Filters, command: Sequence[str]) -> list[str]:
    """One box of the floor, with the stdio of its caller."""
    return [*_floor("run", filters), *command]


def _floor(mode: str, filters: Filters) -> tuple[str, ...]:
    return (str(build("floor")), mode, str(filters.program), "--")


def vfork(_: Filters) -> Contender:
    return Contender(
        "vfork",
        "no walls: C vfork + execve",
        f"vfork_exec serve {COMMAND}",
        (str(build("vfork_exec")), "serve", COMMAND),
    )


def python(_: Filters) -> Contender:
    return Contender("python", "an empty Python process", "python3 -SI -c pass", python_worker("python"))


def bwrap(filters: Filters) -> Contender:
    return Contender(
        "bwrap",
        "bubblewrap, our filter",
        f"bwrap --unshare-all … -- {COMMAND}",
        python_worker("bwrap", str(filters.program)),
        rated=True,
    )


def bwrap_argv(filter_fd: int, command: Sequence[str]) -> list[str]:
    """The walls that bubblewrap can be asked for; it has no Landlock and masks nothing in /proc."""
    program = shutil.which("bwrap")
    if program is None:
        raise FileNotFoundError("bwrap is missing; install it: apt-get install bubblewrap")
    argv = [program, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    argv += ["--ro-bind", "/usr", "/usr"]
    for name in HOST_LINKS:
        link = Path("/", name)
        if link.is_symlink():
            argv += ["--symlink", str(link.readlink()), str(link)]
    if Path("/etc/ld.so.cache").exists():
        argv += ["--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp"]
    argv += ["--remount-ro", "/"]
    argv += ["--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin", "--setenv", "HOME", "/tmp"]
    argv += ["--hostname", "box", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"]
    argv += ["--seccomp", str(filter_fd)]
    return [*argv, "--", *command]


@contextmanager
def bwrap_subject(program: str) -> Iterator[Callable[[], None]]:
    fd = os.open(program, os.O_RDONLY)
    os.set_inheritable(fd, True)
    spawn = spawner(bwrap_argv(fd, [COMMAND]))

    def once() -> None:
        os.lseek(fd, 0, os.SEEK_SET)  # bwrap reads to the end, and the offset is shared
        spawn()

    try:
        yield once
    finally:
        os.close(fd)


@contextmanager
def python_subject() -> Iterator[Callable[[], None]]:
    yield spawner(PYTHON)


def spawner(argv: Sequence[str], stdio_fd: int | None = None) -> Callable[[], None]:
    """The cheapest way to a process in Python: posix_spawn (a vfork in C) and waitid."""
    null = os.open(os.devnull, os.O_RDWR) if stdio_fd is None else stdio_fd
    stdio = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in range(3)]

    def once() -> None:
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=stdio)
        ended = os.waitid(os.P_PID, pid, os.WEXITED)
        if ended is None or ended.si_code != os.CLD_EXITED or ended.si_status != 0:
            raise RuntimeError(f"{argv[0]} did not end with status 0: {ended}")

    return once
