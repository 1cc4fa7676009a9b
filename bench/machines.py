"""Boxes in virtual machines, and QEMU by hand: what one sample of each is."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.build import build
from bench.contender import COMMAND, Contender, python_worker
from bench.filters import Filters
from bench.gvisor import Claims, Once
from bench.memory import pss_kib
from bench.subjects import successful

if TYPE_CHECKING:
    from immure import Sandbox

LEVEL, MEMORY_MIB = "L3", 128
TOOL = Path(__file__).parent.parent / "tools/build_guest_kernel.sh"
#: What goes in at once, and the memory of a machine that takes it.
FILE_BYTES, FILE_MEMORY_MIB = 100 << 20, 384
#: As plan/machine.py has it.
MEMORY_FD = 3
#: In the image, below a busybox.
_TOOLS = ("sh", "true")


def choose_kernel() -> str:
    """The kernel that all of this run boot. Raises FileNotFoundError."""
    place = subprocess.run([TOOL, "--place"], capture_output=True, text=True, check=True).stdout.strip()
    path = os.environ.setdefault("IMMURE_KERNEL", f"{place}/vmlinux")
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is missing; build it: tools/build_guest_kernel.sh")
    return path


def cold(_: Filters) -> Contender:
    return _ours("", "a cold box", f'immure.run(["{COMMAND}"], runtime="qemu")')


def ready(_: Filters) -> Contender:
    return _ours("-exec", "a command in a ready box", f'box.exec(["{COMMAND}"])')


def pooled(_: Filters) -> Contender:
    return _ours("-pool", "a box of a pool, and a command in it", f'pool.claim().exec(["{COMMAND}"])')


def forked(_: Filters) -> Contender:
    return _ours("-fork", "a fork, and its first command", f'box.fork()[0].exec(["{COMMAND}"])')


def file_in(_: Filters) -> Contender:
    return _ours(
        "-file", f"{FILE_BYTES >> 20} MiB into a ready box", 'box.files.write("/tmp/file", content)', apart=True
    )


def port_by_hand(_: Filters) -> Contender:
    shown = "qemu-system-x86_64 … -initrd RECEIVE"
    title = f"{FILE_BYTES >> 20} MiB through the port by hand"
    return Contender("qemu-port", title, shown, python_worker("qemu-port"), apart=True)


def _ours(suffix: str, title: str, command: str, *, apart: bool = False) -> Contender:
    name = f"immure-machine{suffix}"
    return Contender(name, f"machine: {title}", command, python_worker(name), level=LEVEL, apart=apart)


def by_hand(_: Filters) -> Contender:
    shown = "qemu-system-x86_64 … -initrd POWEROFF"
    return Contender("qemu", "QEMU by hand, whose guest ends at once", shown, python_worker("qemu"))


@contextmanager
def image_of_busybox() -> Iterator[str]:
    """A folder with a small image."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox is missing; install it: apt-get install busybox-static")
    with tempfile.TemporaryDirectory(prefix="immure-bench-") as folder:
        binaries = Path(folder, "bin")
        binaries.mkdir()
        shutil.copy(busybox, binaries / "busybox")
        for name in _TOOLS:
            (binaries / name).symlink_to("busybox")
        yield folder


@contextmanager
def _image() -> Iterator[dict[str, object]]:
    """A spec with that."""
    with image_of_busybox() as folder:
        yield {"runtime": "qemu", "level": LEVEL, "image": folder, "workdir": "/", "memory_mib": MEMORY_MIB}


@contextmanager
def cold_subject() -> Iterator[Once]:
    from immure import run

    with _image() as spec:
        yield lambda: successful(run([COMMAND], **spec))  # type: ignore[arg-type]


@contextmanager
def ready_subject() -> Iterator[Once]:
    from immure import Sandbox

    with _image() as spec, Sandbox(**spec) as box:
        yield lambda: successful(box.exec([COMMAND]))


@contextmanager
def pooled_subject() -> Iterator[Once]:
    from immure import Pool

    with _image() as spec, Pool(size=2, **spec) as pool:
        yield Claims(pool)


class Forks:
    """Forks of a machine that has run a command, to the end of their first one. They end when nobody measures."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self._made: list[Sandbox] = []
        successful(box.exec([COMMAND]))

    def __call__(self) -> Mapping[str, int]:
        self._made = self._box.fork()
        return successful(self._made[0].exec([COMMAND]))

    def settle(self) -> None:
        for fork in self._made:
            fork.close()


@contextmanager
def forked_subject() -> Iterator[Once]:
    from immure import Sandbox

    with _image() as spec, Sandbox(**spec) as box:
        yield Forks(box)


class Files:
    """A file that goes in. It is removed when nobody measures."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self._content = os.urandom(FILE_BYTES)

    def __call__(self) -> None:
        self._box.files.write("/tmp/file", self._content)

    def settle(self) -> None:
        self._box.files.remove("/tmp/file")


@contextmanager
def file_subject() -> Iterator[Once]:
    from immure import Sandbox

    with (
        _image() as spec,
        Sandbox(**{**spec, "memory_mib": FILE_MEMORY_MIB, "disk_mib": 2 * (FILE_BYTES >> 20)}) as box,
    ):
        yield Files(box)


@contextmanager
def by_hand_subject() -> Iterator[Once]:
    """The same machine with the same image, but that its first process ends it."""
    with machine_by_hand("poweroff", MEMORY_MIB) as start:

        def once() -> None:
            machine = start()
            machine.end()

        yield once


@contextmanager
def port_subject() -> Iterator[Once]:
    """The same port, by which a process in the guest takes as many bytes into its memory, and nothing else is done."""
    content = os.urandom(FILE_BYTES)
    with machine_by_hand("receive", FILE_MEMORY_MIB, f" TAKE_BYTES={FILE_BYTES}") as start:
        machine = start()
        machine.hear(b"r")

        def once() -> None:
            machine.channel.sendall(content)
            machine.hear(b"dr")

        try:
            yield once
        finally:
            machine.kill()


class ByHand:
    """A QEMU that was started by hand."""

    def __init__(self, argv: list[str], memory: int) -> None:
        self.channel, first = socket.socketpair()
        self._monitor, second = socket.socketpair()
        with first, second:
            ends = enumerate((first.fileno(), second.fileno()))
            actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in (*ends, (MEMORY_FD, memory))]
            self._pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)

    def hear(self, wanted: bytes) -> None:
        for number in range(len(wanted)):
            if self.channel.recv(1) != wanted[number : number + 1]:
                raise RuntimeError("the guest says something else")

    def end(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._let_go()
        if status:
            raise RuntimeError(f"QEMU ended with status {status}")

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._let_go()

    def _let_go(self) -> None:
        self.channel.close()
        self._monitor.close()


@contextmanager
def machine_by_hand(program: str, memory_mib: int, words: str = "") -> Iterator[Callable[[], ByHand]]:
    """The machine of a box, with another first process."""
    from immure.engine.machine_images import packed_folder
    from immure.host.facts import ProgramFacts
    from immure.host.machines import find_qemu
    from immure.plan.initramfs import initramfs
    from immure.plan.qemu_arguments import CONSOLE, Machine, kernel_words, qemu_arguments
    from immure.runtimes.guest.memory import make_memory

    qemu = find_qemu()
    if not isinstance(qemu, ProgramFacts):
        raise FileNotFoundError(f"{qemu.need}: {qemu.have}; {qemu.command}")
    with _image() as spec, tempfile.TemporaryDirectory(prefix="immure-bench-") as folder:
        first = Path(folder, "initramfs")
        first.write_bytes(initramfs(build(program).read_bytes()))
        machine = Machine(choose_kernel(), str(first), str(packed_folder(str(spec["image"]))), memory_mib=memory_mib)
        said = kernel_words(machine)
        argv = [
            word.replace(CONSOLE, f"{folder}/console").replace(said, said + words) for word in qemu_arguments(machine)
        ]

        def start() -> ByHand:
            memory = make_memory(memory_mib << 20)
            try:
                return ByHand([qemu.path, *argv], memory)
            finally:
                os.close(memory)

        yield start


def overhead_kib(count: int) -> dict[str, float]:
    """What so many idle machines take each, beside the pages of their guests: QEMU's and our init's, as PSS; and those
    pages.
    """
    from immure import Sandbox
    from immure.host.tree import below

    with _image() as spec, ExitStack() as stack:
        boxes = [stack.enter_context(Sandbox(**spec)) for _ in range(count)]
        for box in boxes:
            successful(box.exec([COMMAND]))
        pids = [pid for box in boxes for pid in (box._box.pid, *below(box._box.pid))]
        guests = pss_kib(pids, "Pss_Shmem")
        return {"guest": guests / count, "above": (pss_kib(pids) - guests) / count}


SUBJECTS = {
    "immure-machine": cold_subject,
    "immure-machine-exec": ready_subject,
    "immure-machine-pool": pooled_subject,
    "immure-machine-fork": forked_subject,
    "immure-machine-file": file_subject,
    "qemu": by_hand_subject,
    "qemu-port": port_subject,
}
