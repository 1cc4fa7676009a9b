"""One Firecracker in its jailer: a user, chroot, cgroup and namespaces of its own, and nothing of it left at the end.

Around the jailer stands a shell, first in a process namespace of its own, which reads from a pipe of ours. When the
pipe ends, by `close` or because we are gone, the shell ends, and with it the kernel ends all that is in the namespace.
The jailer is root of the host until it becomes the machine's user, so that only root can have one.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from immure.errors import BoxLost, ImmureError, SetupFailed
from immure.host.cgroups import find_parents, switch_on
from immure.host.tree import below
from immure.plan.limits import choose_parents
from immure.runtimes.firecracker import bringing, system, taps
from immure.runtimes.firecracker.claims import FIRST_UID, Claim, Loan, runs_as
from immure.runtimes.firecracker.client import Client
from immure.runtimes.firecracker.console import Console
from immure.runtimes.firecracker.programs import Programs
from immure.runtimes.firecracker.readback import Confinement, confinement

#: In the jail.
_API = "run/api.socket"
_UP_S, _END_S, _STEP_S = 20.0, 20.0, 0.001
#: What a VMM may have beside its guest's memory: its own pages, and cache of what it reads and writes.
_BESIDE_MIB = 64
_PROCESSES = 64
#: Of cgroup v2 and v1.
_MEMORY = ("memory.max", "memory.limit_in_bytes")
_SWAP, _MEMORY_AND_SWAP = "memory.swap.max", "memory.memsw.limit_in_bytes"
#: Waits to be let go, starts what follows, and ends when that does or the pipe does.
_SHELL: Final = """
read -r _ || exit 125
exec 3<&0 </dev/null
"$@" 3<&- &
vmm=$!
{ read -r _ <&3; kill -KILL "$vmm"; } >/dev/null 2>&1 &
exec 3<&-
wait "$vmm"
"""


class Jailed:
    """A process of Firecracker that serves its API. `client` speaks with it; `console` is what its guest says."""

    def __init__(self, programs: Programs, place: str, name: str, *, own_network: bool = True) -> None:
        """Takes 30 to 50 ms. `name` is what Firecracker calls the machine; `place` is where its jail is made.

        Without `own_network` it is in this host's network, where TAP devices are. Raises SetupFailed and BoxError.
        """
        self.own_network = own_network
        self._claim = Claim(place)
        self._process: subprocess.Popen[bytes] | None = None
        self._status: int | None = None
        self._fds: list[int] = []
        self._brought: set[str] = set()
        try:
            self._begin(programs, name)
        except BaseException:
            self.close()
            raise

    @property
    def uid(self) -> int:
        """The machine's user, which nobody else is; its group has the same number."""
        return self._claim.uid

    @property
    def shell_pid(self) -> int:
        """The process below which all of it is, itself included."""
        return self._shell.pid

    @property
    def root(self) -> Path:
        """The jail's root, on this host."""
        return self._root

    @property
    def status(self) -> int | None:
        """What it ended with: its exit status, or 128 and the signal's number. None while it runs."""
        return self._status if self._process is None else self._process.poll()

    def wait(self, within_s: float) -> int:
        """Its status, when it has ended. Raises TimeoutError."""
        # In steps, `Popen.wait` would sleep much longer than it has to.
        try:
            fd = os.pidfd_open(self._shell.pid)
        except ProcessLookupError:
            # Another thread has just heard of its end.
            return self._shell.wait()
        try:
            if not select.select([fd], [], [], within_s)[0]:
                raise TimeoutError(f"it has not ended in {within_s:g} s")
        finally:
            os.close(fd)
        return self._shell.wait()

    def ends_within(self, within_s: float) -> bool:
        """Whether it has ended, or does so within a time."""
        try:
            return self.status is not None or self.wait(within_s) >= 0
        except TimeoutError:
            return False

    def bring(self, source: str, name: str, *, writable: bool = False) -> str:
        """Shows a file or block device of this host in the jail, and gives its path there. Raises SpecError.

        What had that name before is out of sight then; who has it open keeps it.
        """
        tree = bringing.shown(source, writable=writable, uid=self.uid)
        try:
            self.take_away(name)
            path = bringing.bring(tree, source, name, root=self._root_fd, mounts=self._mounts)
        finally:
            os.close(tree)
        self._brought.add(name)
        return path

    def take_away(self, name: str) -> None:
        """Takes what was brought under a name out of sight again, if anything was."""
        if name in self._brought:
            bringing.take_away(name, self._mounts)
            self._brought.discard(name)

    def pipe(self, name: str) -> tuple[str, int]:
        """A new named pipe in the jail, for its VMM to write to: its path there, and a descriptor to read from.

        Reading does not wait, for before there is a writer it would find the end.
        """
        fd = bringing.pipe(name, root=self._root_fd, uid=self.uid)
        return f"/{bringing.FOLDER}/{name}", fd

    def lend_tap(self, name: str, owner: int) -> None:
        """Makes a TAP device of `owner` the machine's user's until `close`. Raises OSError."""
        self._claim.write(taps=(*self._claim.record.taps, Loan(name, owner)))
        if owner != taps.NOBODY:
            taps.lend(name, self.uid)

    def make_tap(self) -> str:
        """Makes a TAP device that is the machine's user's, down, until `close`. Gives its name. Raises SetupFailed."""
        made = self._claim.record.made_taps
        name = f"ivm{self.uid - FIRST_UID}n{len(made)}"
        self._claim.write(made_taps=(*made, name))
        try:
            taps.make(name, self.uid)
        except OSError as error:
            raise SetupFailed(
                f"the TAP device {name} can't be made",
                step="tap",
                errno=error.errno or 0,
                need="/dev/net/tun, and a name that is free",
                have=error.strerror,
            ) from error
        return name

    def has_tap(self, name: str) -> bool:
        """Whether it was lent this one, or it was made for it."""
        record = self._claim.record
        return name in record.made_taps or any(loan.name == name for loan in record.taps)

    def confinement(self) -> Confinement:
        """What confines it, read from the host. Raises BoxLost where it has ended."""
        try:
            return confinement(self.pid, self._root_fd)
        except OSError as error:
            raise self.lost("its confinement can't be read") from error

    def limit_memory(self, guest_mib: int) -> None:
        """Bounds its memory by its guest's and what a VMM has beside, none of it swapped where the kernel counts that.

        Without a memory controller nothing happens.
        """
        for cgroup in self._claim.record.cgroups:
            _set(cgroup, _SWAP, 0)
            # It may not be below the memory's own bound, which may be raised now.
            _set(cgroup, _MEMORY_AND_SWAP, -1)
            for name in (*_MEMORY, _MEMORY_AND_SWAP):
                _set(cgroup, name, (guest_mib + _BESIDE_MIB) << 20)

    def bounds(self) -> tuple[int | None, int | None]:
        """How many bytes of memory and processes it may have, as its cgroups say; None where none bounds it."""
        return self._bound(*_MEMORY), self._bound("pids.max")

    def _bound(self, *names: str) -> int | None:
        found = [_get(cgroup, name) for cgroup in self._claim.record.cgroups for name in names]
        return min((bound for bound in found if bound is not None), default=None)

    def lost(self, what: str) -> BoxLost:
        """An error with its status and its last words."""
        have = f"status {self.status}" if self.status is not None else "one that runs"
        words = self.console.last_words()
        return BoxLost(f"Firecracker: {what}", need="a VMM that runs", have=f"{have}: {words}" if words else have)

    def kill(self) -> None:
        """Ends it at once, from any thread: whoever waits for its answer hears that it is gone. `close` comes after."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Ends it at once, waits until it is gone, and removes all there was of it. Harmless the second time."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            if self._process.poll() is None:
                self.wait(_END_S)
            self._status = self._process.returncode
            self.console.close()
            self.client.close()
            self._process = None
        while self._fds:
            os.close(self._fds.pop())
        self._claim.give_back()

    def _begin(self, programs: Programs, name: str) -> None:
        base = self._claim.path
        program = os.path.realpath(programs.firecracker)
        self._root = base / Path(program).name / name / "root"
        cgroups = self._cgroups()
        jail = ["--id", name, "--exec-file", program, "--uid", str(self.uid), "--gid", str(self.uid)]
        jail += ["--chroot-base-dir", str(base), "--", "--api-sock", f"/{_API}", "--level", "Error"]
        self._start([programs.jailer, *jail])
        for cgroup in cgroups:
            (Path(cgroup) / "cgroup.procs").write_text(str(self._shell.pid))
        self._stdin.write(b"go\n")
        self._stdin.flush()
        self.client = Client(self._connected)
        self._wait_until_up()

    def _start(self, command: list[str]) -> None:
        receives, sends = os.pipe2(os.O_CLOEXEC)
        flags = system.CLONE_NEWPID | (system.CLONE_NEWNET if self.own_network else 0)
        shell = ["/bin/sh", "-c", _SHELL, "sh", *command]

        def start() -> subprocess.Popen[bytes]:
            system.unshare(flags)
            return subprocess.Popen(
                shell, stdin=subprocess.PIPE, stdout=sends, stderr=sends, start_new_session=True, cwd="/", env={}
            )

        try:
            self._process = system.in_own_thread(start)
        except OSError as error:
            os.close(receives)
            raise SetupFailed(
                "Firecracker's jailer could not be started", step="jailer", errno=error.errno or 0, have=error.strerror
            ) from error
        finally:
            os.close(sends)
        self.console = Console(receives)
        self.client = Client(self._connected)

    def _cgroups(self) -> tuple[str, ...]:
        """A cgroup for each controller that there is, recorded before it is made."""
        chosen = choose_parents(find_parents().parents, {"memory", "pids"})
        parents = tuple(dict.fromkeys(chosen.values()))
        made = tuple(f"{parent.path}/vmm-immure-{self.uid}" for parent in parents)
        self._claim.write(cgroups=made)
        for parent in parents:
            switch_on(parent)
        for cgroup in made:
            os.makedirs(cgroup, exist_ok=True)  # noqa: PTH103
            _set(cgroup, "pids.max", _PROCESSES)
        return made

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _UP_S
        while not self._is_up():
            if self.status is not None or time.monotonic() > deadline:
                # The last words of what has ended are still on their way.
                self.console.wait_for(b"\0", 0.1)
                raise self.lost("it did not come up")
            time.sleep(_STEP_S)
        self.pid = self._vmm_pid()
        self._mounts = self._kept(os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))

    def _is_up(self) -> bool:
        try:
            if len(self._fds) == 0:
                self._root_fd = self._kept(os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW))
            self._connected(_UP_S).close()
        except (OSError, ImmureError):
            return False
        return True

    def _kept(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _vmm_pid(self) -> int:
        for pid in below(self._shell.pid):
            if runs_as(pid, self.uid):
                return pid
        raise self.lost("its process is not there")

    def _connected(self, within_s: float) -> socket.socket:
        """A connection to its API. The jail's root is its user's: no link is followed, and who answers is asked."""
        with _opened_in(self._root_fd, _API) as found:
            if not stat.S_ISSOCK(os.fstat(found).st_mode):
                raise OSError("no socket")
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                made.settimeout(within_s)
                made.connect(f"/proc/self/fd/{found}")
                peer = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                if int.from_bytes(peer[4:8], "little") != self.uid:
                    raise OSError("somebody else listens")
            except BaseException:
                made.close()
                raise
            return made

    @property
    def _shell(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._shell.stdin is not None
        return self._shell.stdin


@contextmanager
def _opened_in(root: int, path: str) -> Generator[int]:
    """A descriptor of what is at a path below a folder, where no part of it is a link."""
    held: list[int] = []
    try:
        at = root
        *folders, last = path.split("/")
        for folder in folders:
            at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            held.append(at)
        held.append(os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at))
        yield held[-1]
    finally:
        for fd in held:
            os.close(fd)


def _get(cgroup: str, name: str) -> int | None:
    """A bound of a cgroup that may be another controller's; None where it has none."""
    try:
        found = (Path(cgroup) / name).read_text().strip()
    except FileNotFoundError:
        return None
    return int(found) if found.isdigit() else None


def _set(cgroup: str, name: str, value: int) -> None:
    """Sets a file of a cgroup that may be another controller's."""
    try:
        (Path(cgroup) / name).write_text(str(value))
    except (FileNotFoundError, PermissionError):
        # No file can be made in a cgroup: this one is not that controller's.
        if (Path(cgroup) / name).exists():
            raise
