"""Machines of Firecracker's that go on from a snapshot, up to the first answer of the guest's init: boxes, and by hand.

Both boot the same kernel, init and image once, and go on from there: each sample from a snapshot of its own, since what
is under way in a guest at that moment decides how soon it hears of anything when it wakes up.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contender import Contender
from bench.filters import Filters
from bench.firecrackers import Sampled, connected, contender, end_vmm, programs, put
from bench.machines import LEVEL, MEMORY_MIB, choose_kernel, image_of_busybox

if TYPE_CHECKING:
    from immure import Sandbox

#: As plan/firecracker_config.py has it.
PORT = 1
_BOOT_S, _ANSWER_S = 180.0, 30.0
#: The first try, and what the next is longer. A guest that wakes up cuts what was connected to it a moment before.
_TRY_S, _LONGER = 0.2, 1.5


def restored(_: Filters) -> Contender:
    return contender("restore", "a box that goes on from a snapshot, to its init's answer", "FirecrackerBox(…)")


def restored_whole(_: Filters) -> Contender:
    return contender("restore-box", "the same, measured from inside", "Sandbox.restore(snapshot)")


def restored_by_hand(_: Filters) -> Contender:
    return contender("restore-by-hand", "Firecracker by hand, to its init's answer", "PUT /snapshot/load, CONNECT 1")


@contextmanager
def _spec() -> Iterator[dict[str, object]]:
    choose_kernel()
    os.environ.setdefault("IMMURE_FIRECRACKER", programs()[0])
    with image_of_busybox() as image:
        spec: dict[str, object] = {"runtime": "firecracker", "level": LEVEL, "image": image, "workdir": "/"}
        yield {**spec, "memory_mib": MEMORY_MIB}


class Snapshots:
    """Of one box, a new one after each sample."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self.newest = box.snapshot()

    def over(self, end: Callable[[], None]) -> Callable[[], None]:
        """Ends a sample, and makes the next one's."""

        def ended() -> None:
            end()
            self.newest.close()
            self.newest = self._box.snapshot()

        return ended

    def __enter__(self) -> Snapshots:
        return self

    def __exit__(self, *_: object) -> None:
        self.newest.close()


@contextmanager
def whole_subject() -> Iterator[Sampled]:
    from immure import Sandbox

    with _spec() as spec, Sandbox(**spec) as box, Snapshots(box) as snapshots:  # type: ignore[arg-type]
        yield Sampled(lambda: snapshots.over(Sandbox.restore(snapshots.newest).close))


@contextmanager
def answer_subject() -> Iterator[Sampled]:
    from immure import Sandbox
    from immure.engine.spawners import spawner_for
    from immure.runtimes.guest.box import GuestBox
    from immure.runtimes.guest.carried import CarriedBox
    from immure.runtimes.registry import open_box

    with _spec() as spec, Sandbox(**spec) as box, Snapshots(box) as snapshots:  # type: ignore[arg-type]

        def begin() -> Callable[[], None]:
            launch = snapshots.newest.launch()
            made = open_box(spawner_for(launch), launch, adopts=snapshots.newest.standing)
            assert isinstance(made, CarriedBox)
            made._outer_ready()
            GuestBox.ready(made)
            return snapshots.over(made.close)

        yield Sampled(begin)


@contextmanager
def by_hand_subject() -> Iterator[Sampled]:
    from immure.engine.kvm import kvm_facts
    from immure.engine.machine_images import first_root, packed_folder
    from immure.plan.firecracker_config import Machine, configuration

    firecracker, _ = programs()
    with tempfile.TemporaryDirectory(prefix="immure-bench-") as name, image_of_busybox() as image:
        folder = Path(name)
        first, api, vsock, config = folder / "first", folder / "api", folder / "vsock", folder / "config"
        machine = Machine(
            choose_kernel(),
            str(first_root()),
            str(packed_folder(image)),
            str(vsock),
            MEMORY_MIB,
            emulated=kvm_facts().kind == "emulating",
        )
        config.write_bytes(configuration(machine))
        files = {"snapshot_path": str(folder / "state"), "mem_file_path": str(folder / "memory")}
        backend = {"backend_type": "File", "backend_path": files["mem_file_path"]}
        load = {"snapshot_path": files["snapshot_path"], "mem_backend": backend, "resume_vm": True}

        def started(api: Path, *more: str) -> subprocess.Popen[bytes]:
            words = [firecracker, "--api-sock", str(api), "--level", "Error", *more]
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        def save() -> None:
            put(first, ("/vm", {"state": "Paused"}), method="PATCH")
            put(first, ("/snapshot/create", files))
            put(first, ("/vm", {"state": "Resumed"}), method="PATCH")

        def begin() -> Callable[[], None]:
            process = started(api)
            put(api, ("/snapshot/load", load))
            connection = _answer(vsock, _ANSWER_S)

            def over() -> None:
                connection.close()
                end_vmm(process, api)
                vsock.unlink()
                save()

            return over

        booted = started(first, "--config-file", str(config))
        try:
            _answer(vsock, _BOOT_S).close()
            # Those that go on from it make theirs in this place.
            vsock.unlink()
            save()
            yield Sampled(begin)
        finally:
            end_vmm(booted, first)


def _answer(vsock: Path, within_s: float) -> socket.socket:
    """A connection to the guest's init that has answered."""
    from immure.channel import frames
    from immure.channel.host import hello_of_guest, own_hello

    hello, pong = hello_of_guest(), frames.encode(frames.Pong(1))
    asked = own_hello() + frames.encode(frames.Ping(1))
    deadline, patience = time.monotonic() + within_s, _TRY_S
    while time.monotonic() < deadline:
        connection = connected(vsock)
        connection.settimeout(patience)
        try:
            connection.sendall(b"CONNECT %d\n" % PORT)
            stream = connection.makefile("rb")
            if stream.readline().startswith(b"OK ") and stream.read(len(hello)) == hello:
                connection.sendall(asked)
                if stream.read(len(pong)) == pong:
                    return connection
        except TimeoutError:
            patience *= _LONGER
        except OSError:
            # Cut.
            pass
        connection.close()
        time.sleep(0.002)
    raise RuntimeError("the guest does not answer")


SUBJECTS = {
    "firecracker-restore": answer_subject,
    "firecracker-restore-box": whole_subject,
    "firecracker-restore-by-hand": by_hand_subject,
}
