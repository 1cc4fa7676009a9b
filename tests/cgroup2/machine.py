"""Boots the guest, and reads what it says of its scenes."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgroup2.root import IMMURE, interpreter

#: All scenes; an emulated processor takes ten times what this one does.
PATIENCE_S = 600
_MEMORY_MIB, _SWAP_MIB = 1536, 256
_KERNEL = (
    "console=ttyS0 quiet reboot=t panic=-1 nokaslr no_timer_check tsc=reliable"
    f" root=/dev/vda rootfstype=erofs ro init={IMMURE}/tests/cgroup2/init.sh PYTHON={{}}"
)


@dataclass
class Played:
    """What a scene came to."""

    status: int | None = None
    left: list[str] = field(default_factory=list)
    #: By test, with its parameters: outcome, and what was said.
    tests: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


@dataclass
class Guest:
    """A machine that has run. `console` is all that was printed in it."""

    status: int | None
    ended: bool
    scenes: dict[str, Played]
    seconds: float
    console: str


def run_guest(kernel: Path, image: Path, folder: Path) -> Guest:
    """Boots it and waits for its end. One that takes too long is killed, and says what it has said so far."""
    results, console, swap = folder / "results", folder / "console", folder / "swap"
    with swap.open("wb") as file:
        file.truncate(_SWAP_MIB << 20)
    began = time.monotonic()
    with subprocess.Popen(_command(kernel, image, swap, results, console), stdin=subprocess.DEVNULL) as vmm:
        try:
            status = vmm.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            vmm.kill()
            status = None
    lines = results.read_bytes().split(b"\n") if results.exists() else []
    said = [json.loads(line) for line in lines[:-1]]
    seconds = time.monotonic() - began
    return Guest(status, {"ended": True} in said, _played(said), seconds, console.read_text(errors="replace"))


def _played(said: list[dict[str, Any]]) -> dict[str, Played]:
    scenes: dict[str, Played] = {}
    for one in said:
        if "scene" not in one:
            continue
        scene = scenes.setdefault(one["scene"], Played())
        if "status" in one:
            scene.status, scene.left = one["status"], one["left"]
        else:
            scene.tests.setdefault(one["test"], []).append((one["outcome"], one["text"]))
    return scenes


def _command(kernel: Path, image: Path, swap: Path, results: Path, console: Path) -> list[str]:
    """Emulated everywhere, so that it is the same everywhere."""
    return [
        *("qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-machine", "microvm,acpi=off", "-accel", "tcg,thread=multi", "-cpu", "max,erms=off,fsrm=off"),
        *("-smp", "2", "-m", f"{_MEMORY_MIB}M"),
        *("-kernel", str(kernel), "-append", _KERNEL.format(interpreter())),
        *_disk("root", image, "on"),
        *_disk("swap", swap, "off"),
        *("-device", "virtio-rng-device", "-device", "virtio-serial-device"),
        *("-chardev", f"file,id=results,path={results}", "-device", "virtserialport,chardev=results"),
        *("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"),
    ]


def _disk(name: str, path: Path, read_only: str) -> tuple[str, ...]:
    file = f"file.driver=file,file.filename={path},file.read-only={read_only}"
    drive = f"driver=raw,node-name={name},read-only={read_only},{file}"
    return "-blockdev", drive, "-device", f"virtio-blk-device,drive={name}"
