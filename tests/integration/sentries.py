"""Sentries that run by hand: a small bundle, a program whose system calls are known, and runsc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from immure.runtimes.gvisor.trace import Offer, init_config, make_session, read_metadata
from runscs import VERSIONS, installed_runsc

HERE = Path(__file__).parent
PATIENCE_S = 50


def every_runsc() -> list[str]:
    """What IMMURE_RUNSC lists, divided by colons, else those that were installed for tests, else what PATH has."""
    listed = os.environ.get("IMMURE_RUNSC")
    if listed:
        return listed.split(":")
    installed = [str(path) for version in VERSIONS if (path := installed_runsc(version)) is not None]
    found = shutil.which("runsc")
    return installed or ([found] if found else [])


@cache
def offer_of(runsc: str) -> Offer:
    done = subprocess.run([runsc, "trace", "metadata"], capture_output=True, text=True, check=True)
    return read_metadata(done.stdout)


def make_bundle(folder: Path) -> Path:
    """A root with the program alone, /tmp and /proc."""
    root = folder / "bundle" / "rootfs"
    root.mkdir(parents=True)
    program = root / "traced_calls"
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Wno-nonnull", "-static", "-o", program, HERE / "traced_calls.c"], check=True
    )
    return root.parent


class Sentry:
    """Runs the program in a Sentry, as one container after the other."""

    def __init__(self, runsc: str, folder: Path) -> None:
        self.runsc, self.folder = runsc, folder
        self.bundle = make_bundle(folder)
        self.socket = folder / "events"

    def close(self) -> None:
        """Takes away what runsc leaves: since 2025 a network namespace that is mounted there."""
        # Path.is_mount knows folders alone.
        left = self.folder / "root" / "null-netns"
        if os.path.ismount(left):
            subprocess.run(["umount", left], check=True)

    def __enter__(self) -> Sentry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, arguments: Sequence[str], points: Sequence[str], **fields: object) -> int:
        """Carries it out, with a session of these points that reports to `socket`."""
        session = make_session(points, offer_of(self.runsc), str(self.socket), **fields)  # type: ignore[arg-type]
        config = self.folder / "init.json"
        config.write_bytes(init_config(session))
        (self.bundle / "config.json").write_text(json.dumps(_bundle(arguments)))
        return subprocess.run(
            [
                self.runsc, "--root", str(self.folder / "root"), "--network=none", "--ignore-cgroups",
                "--platform=systrap", "--pod-init-config", str(config), "run", "--bundle", str(self.bundle), "traced",
            ],
            timeout=PATIENCE_S, check=False,
        ).returncode  # fmt: skip


def _bundle(arguments: Sequence[str]) -> dict[str, object]:
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/traced_calls", *arguments],
            "env": ["NAME=value"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }
