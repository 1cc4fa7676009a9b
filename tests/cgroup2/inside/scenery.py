"""Runs the scenes in the guest, and says on a port of the machine's what came of each test: a line of JSON for each.

One process imports what tests need, and each scene is a fork of it, in its place and as its user.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import immure
from cgroup2.root import SYSTEMD
from cgroup2.scenes import GROUPS, SCENES, Group, Scene

CGROUPS = Path("/sys/fs/cgroup")
#: A scene that takes longer hangs.
SCENE_S = 300
_NEW_MOUNTS, _NEW_CGROUPS = 0x0002_0000, 0x0200_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Reporter:
    """What came of each test, said at once: the guest may fall."""

    def __init__(self, scene: Scene, port: int) -> None:
        self._scene, self._port = scene.name, port

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._say(report.nodeid.removeprefix("tests/"), report.outcome, report.longreprtext, report.duration)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._say(report.nodeid.removeprefix("tests/"), report.outcome, report.longreprtext, 0)

    def _say(self, test: str, outcome: str, text: str, seconds: float) -> None:
        said = {"test": test, "outcome": outcome, "text": text[-6000:], "seconds": round(seconds, 2)}
        say(self._port, scene=self._scene, **said)


def main() -> None:
    (place,) = Path("/dev").glob("vport*")
    port = os.open(place, os.O_WRONLY | os.O_CLOEXEC)
    for group in GROUPS:
        make(group)
    # By which a systemd knows that it is the host's.
    Path("/run/systemd/system").mkdir(parents=True)
    # Whatever a scene needs is imported once.
    assert immure.run
    for scene in SCENES:
        began = time.monotonic()
        status = play(scene, port)
        say(port, scene=scene.name, status=status, left=left(), seconds=round(time.monotonic() - began, 1))
    say(port, ended=True)
    os.close(port)


def say(port: int, **words: object) -> None:
    os.write(port, json.dumps(words).encode() + b"\n")


def make(group: Group) -> None:
    folder = CGROUPS / group.path
    folder.mkdir(exist_ok=True)
    for name in group.passes.split():
        (folder / "cgroup.subtree_control").write_text(f"+{name}")
    if group.owner:
        for path in (folder, *(folder / f"cgroup.{name}" for name in ("procs", "subtree_control", "threads"))):
            os.chown(path, group.owner, group.owner)
    if group.delegated:
        os.setxattr(folder, "user.delegate", b"1")
    if group.lived_in:
        subprocess.Popen(["sleep", "infinity"], preexec_fn=lambda: join(group.path))


def join(path: str) -> None:
    (CGROUPS / path / "cgroup.procs").write_text(str(os.getpid()))


def left() -> list[str]:
    """Cgroups of boxes that are there after a scene."""
    return [folder for folder, _, _ in os.walk(CGROUPS) if Path(folder).name.startswith("immure-")]


def play(scene: Scene, port: int) -> int:
    """The exit status of its process."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = act(scene, port)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    end = time.monotonic() + SCENE_S
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1])


def act(scene: Scene, port: int) -> int:
    """The exit status of its tests."""
    print(f"== {scene.name}", flush=True)
    join(scene.place)
    if scene.container:
        CONTAINERS[scene.container]()
    if scene.user:
        os.setgroups([])
        os.setgid(scene.user)
        os.setuid(scene.user)
        os.environ["HOME"] = {1000: "/home/plain", 1001: "/home/ranges"}[scene.user]
    return in_scope(scene, port) if scene.scope else run_tests(scene, port)


def run_tests(scene: Scene, port: int) -> int:
    words = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", *(f"tests/{one}" for one in scene.tests)]
    return int(pytest.main(words, plugins=[Reporter(scene, port)]))


def in_scope(scene: Scene, port: int) -> int:
    """As users are told to, by a systemd of the user's, which goes with the scene."""
    os.environ["XDG_RUNTIME_DIR"] = own = f"{os.environ['HOME']}/run"
    Path(own).mkdir(mode=0o700)
    with subprocess.Popen([SYSTEMD, "--user", "--unit=basic.target"]) as manager:
        try:
            while subprocess.run(["systemctl", "--user", "is-active", "--quiet", "basic.target"]).returncode:
                time.sleep(0.2)
            words = [sys.executable, "-m", "cgroup2.inside.scenery", scene.name, str(port)]
            scope = ["systemd-run", "--user", "--scope", "-p", "Delegate=yes", *words]
            return subprocess.run(scope, pass_fds=[port]).returncode
        finally:
            manager.terminate()


def unshare(flags: int) -> None:
    if _LIBC.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")


def own_cgroups(options: str) -> None:
    """Those of a new namespace in place of the host's, as an engine of containers mounts them."""
    unshare(_NEW_MOUNTS | _NEW_CGROUPS)
    mount("--make-rprivate", "/")
    subprocess.run(["umount", str(CGROUPS)], check=True)
    mount("-t", "cgroup2", "-o", options, "cgroup2", str(CGROUPS))


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def sealed() -> None:
    own_cgroups("ro")


def writable() -> None:
    own_cgroups("rw")


def roomy() -> None:
    """Its first program has moved itself aside."""
    own_cgroups("rw")
    (CGROUPS / "own").mkdir(exist_ok=True)
    join("own")
    (CGROUPS / "cgroup.subtree_control").write_text("+memory +pids")


def elsewhere() -> None:
    """Moved by somebody outside once it has its namespace."""
    receives, sends = os.pipe()
    moved = os.getpid()
    mover = os.fork()
    if mover == 0:
        os.close(sends)
        os.read(receives, 1)
        (CGROUPS / "system.slice/root.service/cgroup.procs").write_text(str(moved))
        os._exit(0)
    own_cgroups("rw")
    os.close(sends)
    assert os.waitpid(mover, 0)[1] == 0
    os.close(receives)


def hidden() -> None:
    unshare(_NEW_MOUNTS)
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "tmpfs", str(CGROUPS))


CONTAINERS: dict[str, Callable[[], None]] = {one.__name__: one for one in (sealed, writable, roomy, elsewhere, hidden)}

if __name__ == "__main__":
    if sys.argv[1:]:
        # Of a scene whose place somebody else has made.
        (here,) = (one for one in SCENES if one.name == sys.argv[1])
        sys.exit(run_tests(here, int(sys.argv[2])))
    main()
