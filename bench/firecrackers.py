"""Firecracker through our client and jail, and by hand: what one sample of each is, up to the guest's first byte."""

from __future__ import annotations

import http.client
import json
import os
import shutil
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

TOOL = Path(__file__).parent.parent / "tools/install_firecracker.sh"
MEMORY_MIB, UID = 32, 0x7FAF_FFF0
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
    return _contender("client", "Firecracker through our client", "Client(at(SOCKET)).start()")


def by_hand(_: Filters) -> Contender:
    return _contender("by-hand", "Firecracker by hand", "http.client, three PUTs")


def jailed(_: Filters) -> Contender:
    return _contender("jailed", "Firecracker in our jail", "Jailed(…).client.start()")


def jailed_by_hand(_: Filters) -> Contender:
    return _contender("jailed-by-hand", "Firecracker in its jailer, by hand", "jailer … -- …, three PUTs")


def _contender(name: str, title: str, command: str) -> Contender:
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
            return lambda: _end(process, api)

        yield Sampled(begin)


@contextmanager
def by_hand_subject() -> Iterator[Sampled]:
    with _folder() as folder:
        guest, api = str(write_guest(folder)), folder / "api"

        def begin() -> Callable[[], None]:
            process = _bare(api)
            _three_puts(api, guest)
            _hear(process)
            return lambda: _end(process, api)

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


@contextmanager
def jailed_by_hand_subject() -> Iterator[Sampled]:
    firecracker, jailer = programs()
    with _folder() as folder:
        folder.chmod(0o700)
        guest = write_guest(folder)
        guest.chmod(0o644)
        machine = folder / "firecracker/bench"
        words = [jailer, "--id", "bench", "--exec-file", firecracker, "--uid", str(UID), "--gid", str(UID)]
        words += ["--chroot-base-dir", str(folder), "--", "--api-sock", "/run/api", "--level", "Error"]

        def begin() -> Callable[[], None]:
            (machine / "root").mkdir(parents=True)
            os.link(guest, machine / "root/guest")
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            api = machine / "root/run/api"
            _three_puts(api, "/guest")
            _hear(process)

            def end() -> None:
                _end(process, api)
                shutil.rmtree(machine)

            return end

        yield Sampled(begin)


def _bare(api: Path) -> subprocess.Popen[bytes]:
    firecracker, _ = programs_once()
    words = [firecracker, "--api-sock", str(api), "--level", "Error"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    _connected(api).close()
    return process


def programs_once() -> tuple[str, str]:
    """The same, asked for once."""
    if not _known:
        _known.append(programs())
    return _known[0]


_known: list[tuple[str, str]] = []


def _connected(api: Path) -> socket.socket:
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
    connection = http.client.HTTPConnection("localhost")
    connection.sock = _connected(api)
    for path, body in (
        ("/machine-config", {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB}),
        ("/boot-source", {"kernel_image_path": kernel}),
        ("/actions", {"action_type": "InstanceStart"}),
    ):
        connection.request("PUT", path, json.dumps(body))
        answer = connection.getresponse()
        answer.read()
        if answer.status != 204:
            raise RuntimeError(f"PUT {path}: {answer.status}")
    connection.close()


def _hear(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    said = b""
    while _FIRST not in said:
        more = os.read(process.stdout.fileno(), 4096)
        if not more:
            raise RuntimeError(f"Firecracker has ended: {said!r}")
        said += more


def _end(process: subprocess.Popen[bytes], api: Path) -> None:
    process.kill()
    process.communicate()
    api.unlink(missing_ok=True)


SUBJECTS = {
    "firecracker-client": client_subject,
    "firecracker-by-hand": by_hand_subject,
    "firecracker-jailed": jailed_subject,
    "firecracker-jailed-by-hand": jailed_by_hand_subject,
}
