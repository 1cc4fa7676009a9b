"""Boxes in virtual machines, and QEMU by hand: what one sample of each is."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.build import build
from bench.contender import COMMAND, Contender, python_worker
from bench.filters import Filters
from bench.gvisor import Claims, Once
from bench.subjects import successful

LEVEL, MEMORY_MIB = "L3", 128
TOOL = Path(__file__).parent.parent / "tools/build_guest_kernel.sh"
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


def _ours(suffix: str, title: str, command: str) -> Contender:
    name = f"immure-machine{suffix}"
    return Contender(name, f"machine: {title}", command, python_worker(name), level=LEVEL)


def by_hand(_: Filters) -> Contender:
    shown = "qemu-system-x86_64 … -initrd POWEROFF"
    return Contender("qemu", "QEMU by hand, whose guest ends at once", shown, python_worker("qemu"))


@contextmanager
def _image() -> Iterator[dict[str, object]]:
    """A spec with a small image."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox is missing; install it: apt-get install busybox-static")
    with tempfile.TemporaryDirectory(prefix="immure-bench-") as folder:
        binaries = Path(folder, "bin")
        binaries.mkdir()
        shutil.copy(busybox, binaries / "busybox")
        for name in _TOOLS:
            (binaries / name).symlink_to("busybox")
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


@contextmanager
def by_hand_subject() -> Iterator[Once]:
    """The same machine with the same image, but that its first process ends it."""
    from immure.engine.machine_images import packed_folder
    from immure.host.facts import ProgramFacts
    from immure.host.machines import find_qemu
    from immure.plan.initramfs import initramfs
    from immure.plan.machine import CONSOLE, Machine, qemu_arguments

    qemu = find_qemu()
    if not isinstance(qemu, ProgramFacts):
        raise FileNotFoundError(f"{qemu.need}: {qemu.have}; {qemu.command}")
    with _image() as spec, tempfile.TemporaryDirectory(prefix="immure-bench-") as folder:
        first = Path(folder, "initramfs")
        first.write_bytes(initramfs(build("poweroff").read_bytes()))
        image = str(packed_folder(str(spec["image"])))
        machine = Machine(choose_kernel(), str(first), image, memory_mib=MEMORY_MIB)
        words = [word.replace(CONSOLE, f"{folder}/console") for word in qemu_arguments(machine)]
        yield partial(_by_hand, [qemu.path, *words])


def _by_hand(argv: list[str]) -> None:
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)


SUBJECTS = {
    "immure-machine": cold_subject,
    "immure-machine-exec": ready_subject,
    "immure-machine-pool": pooled_subject,
    "qemu": by_hand_subject,
}
