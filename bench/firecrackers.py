"""Firecracker through our client and jail, and by hand: what one sample of each is, up to the guest's first byte."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contender import Contender, python_worker
from bench.filters import Filters
from bench.memory import pss_kib
from immure.host.cgroups import find_parents
from immure.runtimes.firecracker.claims import processes, runs_as

TOOL = Path(__file__).parent.parent / "tools/install_firecracker.sh"
MEMORY_MIB, UID = 32, 0x7FB0_0000
GROUP = "immure-bench-jailer"
_FIRST = b"!"
_UP_S = 20.0


def programs() -> tuple[str, str]:
    """Firecracker and its jailer. Raises FileNotFoundError."""
    place = subprocess.run([TOOL, "--place"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(place, "jailer").exists():
        raise FileNotFoundError(f"{place} is missing; make it: tools/install_firecracker.sh")
    return f"{place}/firecracker", f"{place}/jailer"


def write_guest(folder: Path) -> Path:
    """An ELF64 file whose kernel says one byte on the serial line and sleeps. elf(5)."""
    entry, offset = 0x100000, 64 + 56
    # mov dx, 0x3f8; mov al, '!'; out dx, al; again: hlt; jmp again
    code = bytes.fromhex("66baf803 b021 ee f4 ebfd")
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, offset, entry, entry, len(code), len(code), 0x1000)
    path = folder / "guest"
    path.write_bytes(header + segment + code)
    return path


def client(_: Filters) -> Contender:
    return contender("client", "Firecracker through our client", "Client(at(SOCKET)).start()")


def by_hand(_: Filters) -> Contender:
    return contender("by-hand", "Firecracker by hand", "http.client, three PUTs")


def jailed(_: Filters) -> Contender:
    return contender("jailed", "Firecracker in our jail", "Jailed(…).client.start()")


def jailed_by_hand(_: Filters) -> Contender:
    return contender(
        "jailed-by-hand", "Firecracker in its jailer, by hand", "unshare --net jailer --new-pid-ns …, three PUTs"
    )


def contender(name: str, title: str, command: str) -> Contender:
    """One of Firecracker's, whose subject has that name."""
    return Contender(f"firecracker-{name}", title, command, python_worker(f"firecracker-{name}"))


class Sampled:
    """One sample; `settle`, which is not timed, ends what it has begun."""

    def __init__(self, begin: Callable[[], Callable[[], None]]) -> None:
        self._begin = begin
        self._end: Callable[[], None] | None = None

    def __call__(self) -> None:
        self._end = self._begin()

    def settle(self) -> None:
        assert self._end is not None
        self._end()


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="immure-bench-") as name:
        yield Path(name)


@contextmanager
def client_subject() -> Iterator[Sampled]:
    from immure.runtimes.firecracker.client import Client, at
    from immure.runtimes.firecracker.models import BootSource, MachineConfiguration

    with _folder() as folder:
        guest, api = str(write_guest(folder)), folder / "api"

        def begin() -> Callable[[], None]:
            process = _bare(api)
            client = Client(at(str(api)))
            client.set_machine(MachineConfiguration(1, MEMORY_MIB))
            client.set_boot_source(BootSource(guest))
            client.start()
            _hear(process)
            return lambda: end_vmm(process, api)

        yield Sampled(begin)


@contextmanager
def by_hand_subject() -> Iterator[Sampled]:
    with _folder() as folder:
        guest, api = str(write_guest(folder)), folder / "api"

        def begin() -> Callable[[], None]:
            process = _bare(api)
            _three_puts(api, guest)
            _hear(process)
            return lambda: end_vmm(process, api)

        yield Sampled(begin)


@contextmanager
def jailed_subject() -> Iterator[Sampled]:
    from immure.runtimes.firecracker.jailer import Jailed
    from immure.runtimes.firecracker.models import BootSource, MachineConfiguration
    from immure.runtimes.firecracker.programs import Programs

    found = Programs(*programs())
    with _folder() as folder:
        guest, place = str(write_guest(folder)), str(folder / "vmms")

        def begin() -> Callable[[], None]:
            one = Jailed(found, place, "bench")
            one.limit_memory(MEMORY_MIB)
            one.client.set_machine(MachineConfiguration(1, MEMORY_MIB))
            one.client.set_boot_source(BootSource(one.bring(guest, "kernel")))
            one.client.start()
            assert one.console.wait_for(_FIRST, _UP_S)
            return one.close

        yield Sampled(begin)


def memory_bytes(samples: int) -> list[float]:
    """PSS of all processes of one jailed machine whose guest has touched some few pages, so often, each its own."""
    from immure.host.tree import below
    from immure.runtimes.firecracker.jailer import Jailed
    from immure.runtimes.firecracker.models import BootSource, MachineConfiguration
    from immure.runtimes.firecracker.programs import Programs

    found = Programs(*programs())
    taken: list[float] = []
    with _folder() as folder:
        guest = str(write_guest(folder))
        for _ in range(samples):
            one = Jailed(found, str(folder / "vmms"), "bench")
            try:
                one.client.set_machine(MachineConfiguration(1, MEMORY_MIB))
                one.client.set_boot_source(BootSource(one.bring(guest, "kernel")))
                one.client.start()
                assert one.console.wait_for(_FIRST, _UP_S)
                shell = one.shell_pid
                taken.append(1024 * pss_kib([shell, *below(shell)]))
            finally:
                one.close()
    return taken


@contextmanager
def jailed_by_hand_subject() -> Iterator[Sampled]:
    firecracker, jailer = programs()
    with _folder() as folder:
        folder.chmod(0o700)
        guest = write_guest(folder)
        guest.chmod(0o644)
        machine = folder / "firecracker/bench"
        words = [
            "unshare",
            "--net",
            "--",
            jailer,
            "--id",
            "bench",
            "--exec-file",
            firecracker,
            "--uid",
            str(UID),
            "--gid",
            str(UID),
        ]
        words += ["--chroot-base-dir", str(folder), "--new-pid-ns", *_cgroups()]
        words += ["--", "--api-sock", "/run/api", "--level", "Error"]

        def begin() -> Callable[[], None]:
            (machine / "root").mkdir(parents=True)
            os.link(guest, machine / "root/guest")
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            api = machine / "root/run/api"
            _three_puts(api, "/guest")
            _hear(process)

            def end() -> None:
                # With a process namespace of its own it is no child of ours.
                os.kill(_pid(UID), signal.SIGKILL)
                end_vmm(process, api)
                shutil.rmtree(machine)
                _remove_cgroups("bench")

            return end

        try:
            yield Sampled(begin)
        finally:
            _remove_cgroups("")


def _cgroups() -> list[str]:
    """Options for the cgroups that our jail makes, too."""
    parents = find_parents().parents
    new = any(parent.version == 2 and "pids" in parent.controllers for parent in parents)
    memory = f"{'memory.max' if new else 'memory.limit_in_bytes'}={MEMORY_MIB + 64 << 20}"
    version = ["--cgroup-version", "2" if new else "1", "--parent-cgroup", GROUP]
    return [*version, "--cgroup", "pids.max=64", "--cgroup", memory]


def _remove_cgroups(name: str) -> None:
    for mount in ("", "*/"):
        for path in Path("/sys/fs/cgroup").glob(f"{mount}{GROUP}/{name}"):
            _remove_cgroup(path)


def _remove_cgroup(path: Path) -> None:
    deadline = time.monotonic() + _UP_S
    while path.exists():
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def _pid(uid: int) -> int:
    return next(pid for pid in processes() if runs_as(pid, uid))


def _bare(api: Path) -> subprocess.Popen[bytes]:
    firecracker, _ = programs_once()
    words = [firecracker, "--api-sock", str(api), "--level", "Error"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    connected(api).close()
    return process


def programs_once() -> tuple[str, str]:
    """The same, asked for once."""
    if not _known:
        _known.append(programs())
    return _known[0]


_known: list[tuple[str, str]] = []


def connected(api: Path) -> socket.socket:
    """To who listens at a socket, once somebody does."""
    deadline = time.monotonic() + _UP_S
    while True:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(str(api))
        except OSError:
            made.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
            continue
        return made


def _three_puts(api: Path, kernel: str) -> None:
    put(
        api,
        ("/machine-config", {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB}),
        ("/boot-source", {"kernel_image_path": kernel}),
        ("/actions", {"action_type": "InstanceStart"}),
    )


def put(api: Path, *calls: tuple[str, object], method: str = "PUT") -> None:
    """Makes these calls, each a path and its body, on one connection."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = connected(api)
    for path, body in calls:
        connection.request(method, path, json.dumps(body))
        answer = connection.getresponse()
        answer.read()
        if answer.status != 204:
            raise RuntimeError(f"{method} {path}: {answer.status}")
    connection.close()


def _hear(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    said = b""
    while _FIRST not in said:
        more = os.read(process.stdout.fileno(), 4096)
        if not more:
            raise RuntimeError(f"Firecracker has ended: {said!r}")
        said += more


def end_vmm(process: subprocess.Popen[bytes], api: Path) -> None:
    """Ends a Firecracker, and removes its socket."""
    process.kill()
    process.communicate()
    api.unlink(missing_ok=True)


SUBJECTS = {
    "firecracker-client": client_subject,
    "firecracker-by-hand": by_hand_subject,
    "firecracker-jailed": jailed_subject,
    "firecracker-jailed-by-hand": jailed_by_hand_subject,
}
