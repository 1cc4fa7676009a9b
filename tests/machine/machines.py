"""Boxes in virtual machines: QEMU is a command of an ordinary box, our init the first process in its guest."""

from __future__ import annotations

import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conformance.hosted import begin_face
from immure import Sandbox
from immure.channel.blocking import ThreadDriver
from immure.engine.machine_images import first_root, packed_folder
from immure.engine.session import Measured
from immure.plan.launch import Launch
from immure.plan.qemu_arguments import Machine, qemu_arguments
from immure.runtimes.guest.box import GuestBox
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket
from immure.runtimes.qemu.copies import begin_machine
from immure.runtimes.qemu.vmm import Vmm

QEMU = "qemu-system-x86_64"
#: In the box that QEMU is in.
KERNEL, INITRAMFS, IMAGE = "/opt/kernel", "/opt/initramfs", "/opt/image"
START_S = 60.0
#: Of a busybox, in an image.
TOOLS = "sh cat true ls id sleep touch date hostname stty kill ip od setsid"
PRIVATE = {
    "op": "private",
    "options": "size=16m,mode=0755",
    "flags": 6,
    "folders": [{"path": "/tmp", "name": "tmp", "mode": 0o1777}, {"path": "/dev/shm", "name": "shm", "mode": 0o1777}],
}


def needs_qemu() -> None:
    needs(QEMU)


def needs(*programs: str) -> None:
    """These, and what images are made with."""
    for program in (*programs, "mkfs.erofs", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: tools/install_test_packages.sh")


def make_image(folder: Path) -> Path:
    """A small root file system: what a busybox brings."""
    folder.mkdir()
    for name in ("bin", "etc", "usr/bin"):
        (folder / name).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), folder / "bin/busybox")
    for name in TOOLS.split():
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    return folder


def moment() -> dict[str, Any]:
    return {"time_ns": time.time_ns(), "entropy": secrets.token_bytes(64)}


def configuration(launch: Launch, **changes: Any) -> bytes:
    """What our init in the machine is told."""
    stage = {**msgspec.msgpack.decode(launch.wire)["command"], "inherited_filters": 0}
    plain = {"command": stage, "landlock": None, "drop_groups": True, "moment": moment()}
    root = [PRIVATE, {"op": "hostname", "name": "machine"}]
    return msgspec.msgpack.encode({**plain, "root": root, **changes})


def outer_box(kernel: Path, image: Path, initramfs: Path | None = None) -> Sandbox:
    """What QEMU runs in: it sees of the host what any box sees, and what it is to boot."""
    mounts = [(kernel, KERNEL, "ro"), (initramfs or first_root(), INITRAMFS, "ro"), (image, IMAGE, "ro")]
    return Sandbox(level="L2", mounts=mounts, workdir="/tmp", output_mib=64)


def start_qemu(outer: Sandbox, **changes: Any) -> Vmm:
    machine = Machine(**{"kernel": KERNEL, "initramfs": INITRAMFS, "image": IMAGE, "memory_mib": 128, **changes})
    launch = Launch.from_tuple(outer._launch.to_tuple())
    launch.carrier = (f"/usr/bin/{QEMU}", *qemu_arguments(machine))

    def start(request: Request, stdio: tuple[int, int, int]) -> Socket:
        return outer._box.start(request.payload(), stdio, builtin=True)

    return begin_machine(start, launch)


class MachineSandbox(Sandbox):
    """A `Sandbox` whose box is a machine of its own."""

    def __init__(self, kernel: Path, image: Path, config: dict[str, Any] | None = None, **machine: Any) -> None:
        begin_face(self)
        self.outer = outer_box(kernel, image)
        self._measured = Measured(self._launch, {}, ())
        try:
            self.vmm = start_qemu(self.outer, **machine)
            receives, sends = self.vmm.take_channel()
            self._stem = self._box = GuestBox(
                receives,
                sends,
                self._launch,
                lambda: configuration(self._launch, **(config or {})),
                pid=self.outer._box.pid,
                drive=ThreadDriver,
                end=self._end,
                start_s=START_S,
            )
        except BaseException:
            self.outer.close()
            raise

    def _end(self) -> None:
        self.vmm.close()
        self.outer.close()

    def said(self, script: str, **keywords: Any) -> str:
        """What a shell in the machine says."""
        return self.exec(["/bin/sh", "-c", f"exec 2>&1; {script}"], workdir="/", **keywords).stdout.text()


def booted(kernel: Path, folder: Path, config: dict[str, Any] | None = None, **machine: Any) -> MachineSandbox:
    box = MachineSandbox(kernel, packed_folder(str(folder)), config, **machine)
    try:
        box._box.ready()
    except BaseException:
        box.close()
        raise
    return box
