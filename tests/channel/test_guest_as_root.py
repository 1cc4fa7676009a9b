"""The native guest as root, which can do what one in an ordinary box refuses: as process 1, with a root and ids."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conformance.hosted import configuration, name_of, outer_box
from immure import ExecFailed, Sandbox
from immure.channel.blocking import ThreadDriver
from immure.errors import SetupFailed
from immure.host.native import native_program
from immure.host.tree import below
from immure.plan.launch import Launch
from immure.runtimes.guest.box import GuestBox

from .guests import NOWHERE, PRIVATE, eventually, face_of

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(120)]

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(120)]


def guests_below(pid: int) -> list[int]:
    # What sets a machine up comes and goes.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [one for one in below(pid) if name_of(one) == "immure-guest"]
    return []


def privileged_box(launch: Launch, config: bytes, *how: str) -> GuestBox:
    """A guest that is process 1 of a namespace, as in a machine of its own, with all privileges."""
    how = how or ("--mount-proc", native_program())
    command = ["unshare", "--pid", "--fork", "--kill-child", *how, "guest", "0", "1"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    assert eventually(lambda: guests_below(child.pid))

    def end() -> None:
        child.wait(10)

    receives, sends = os.dup(child.stdout.fileno()), os.dup(child.stdin.fileno())
    child.stdin.close()
    child.stdout.close()
    return GuestBox(
        receives, sends, launch, lambda: config, pid=guests_below(child.pid)[0], drive=ThreadDriver, end=end
    )


@pytest.fixture
def pid_1() -> Iterator[Sandbox]:
    with outer_box() as outer:
        launch = outer._launch
        stage = msgspec.msgpack.decode(launch.wire)["command"]
        box = privileged_box(launch, configuration(stage, drop_groups=True))
        try:
            box.ready()
            yield face_of(outer, box)
        finally:
            box.close()


@pytest.mark.root
class TestAsProcess1:
    def test_the_whole_last_stage(self, pid_1: Sandbox) -> None:
        script = "id -u; id -g; id -G; umask; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"
        words = pid_1.exec(["/bin/sh", "-c", script], user=1234).stdout.text().split()
        assert words[:4] == ["1234", "1234", "1234", "0022"]
        shown = dict(zip(words[4::2], words[5::2], strict=True))
        assert {name: int(value, 16) for name, value in shown.items()} == {
            "CapInh:": 0, "CapPrm:": 0, "CapEff:": 0, "CapBnd:": 0, "CapAmb:": 0, "NoNewPrivs:": 1, "Seccomp:": 2,
        }  # fmt: skip

    def test_a_command_owns_its_streams(self, pid_1: Sandbox) -> None:
        assert pid_1.exec(["/bin/sh", "-c", "echo out > /dev/stdout"]).stdout == b"out\n"
        process = pid_1.start(["/bin/sh", "-c", "echo tty > $(tty)"], pty=True)
        assert process.stdout.read() == b"tty\r\n"

    def test_orphans_are_its_children_and_reaped(self, pid_1: Sandbox) -> None:
        pid_1.exec(["/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do (sleep 0.01 &) ; done"])
        assert eventually(lambda: not below(pid_1._box.pid))

    def test_a_pause_stops_forks_without_end(self, pid_1: Sandbox) -> None:
        bomb = pid_1.start(["/bin/sh", "-c", "f() { for i in 1 2; do (:); done; }; while :; do f & f; done"])
        for _ in range(5):
            pid_1.pause()
            before = pid_1.stats()
            time.sleep(0.05)
            after = pid_1.stats()
            assert (after.cpu_ms, after.processes) == (before.cpu_ms, before.processes)
            pid_1.resume()
            time.sleep(0.02)
        bomb.close()

    def test_its_end_ends_everything(self, pid_1: Sandbox) -> None:
        running = pid_1.start(["/bin/sh", "-c", "setsid sleep 300 & sleep 300 & wait"])
        assert eventually(lambda: len(below(pid_1._box.pid)) == 3)
        known = below(pid_1._box.pid)
        pid_1._box.close()
        assert not [pid for pid in known if Path(f"/proc/{pid}").exists()]
        running.close()

    def test_no_command_can_end_or_stop_it(self, pid_1: Sandbox) -> None:
        pid_1.exec(["/bin/sh", "-c", "kill -9 1; kill -STOP 1; kill -TERM 1"], user=0)
        assert pid_1.exec(["true"]).ok


OWN_IDS = {"user": 1000, "group": 1000}
MACHINE = """
set -e
mount -t tmpfs -o mode=0755 machine "$1"
cd "$1"; shift
mkdir -p usr etc proc dev/pts dev/shm tmp work old .immure/space
for name in bin lib lib64 sbin; do ln -s "usr/$name" "$name"; done
mount --rbind /usr usr
mount --bind "$1" work
cp "$2" .immure/init
ln -s pts/ptmx dev/ptmx
touch dev/null; mount --bind /dev/null dev/null
shift 2
# A process whose root is none of a mount namespace may make no user namespace.
pivot_root . old
cd /
mount -t proc proc proc
umount -l old
mount -o remount,bind,ro /
exec /.immure/init "$@"
"""


class Machine:
    """A guest with a root and a kernel's privileges of its own; `work` is a folder of this host in it."""

    def __init__(self, folder: Path, *operations: dict[str, Any], user: int = 1000, **more: Any) -> None:
        self.work = folder / "work"
        (folder / "root").mkdir()
        self.work.mkdir()
        self._outer = outer_box(user=user)
        stage = {**msgspec.msgpack.decode(self._outer._launch.wire)["command"], "inherited_filters": 0}
        plain = msgspec.msgpack.decode(configuration(stage))
        how = ["--mount", "--uts", "sh", "-c", MACHINE, "sh", str(folder / "root"), str(self.work), native_program()]
        config = msgspec.msgpack.encode({**plain, "root": operations, **more})
        self._box = privileged_box(self._outer._launch, config, *how)
        try:
            self._box.ready()
        except BaseException:
            self._box.close()
            self._outer.close()
            raise
        self.face = face_of(self._outer, self._box)

    def said(self, script: str, **keywords: Any) -> str:
        return self.face.exec(["/bin/sh", "-c", f"exec 2>&1; {script}"], workdir="/", **keywords).stdout.text()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self._box.close()
        self._outer.close()


@pytest.mark.root
class TestRoot:
    def test_a_private_space_is_one_and_its_stand_is_gone(self, tmp_path: Path) -> None:
        with Machine(tmp_path, PRIVATE, {"op": "share", "path": "/work", "name": "w", "mode": 0o700}) as machine:
            assert machine.said("df -k --output=size /tmp /dev/shm /work").split()[1:] == ["1024"] * 3
            assert machine.said("stat -c %a /tmp /dev/shm /work").split() == ["1777", "1777", "700"]
            assert machine.said("ls -A /.immure/space") == ""
            assert "/.immure/space" not in machine.said("cat /proc/self/mountinfo")
            # It is full for all of them once it is for one.
            machine.said("yes | head -c 2000000 > /tmp/full")
            assert "No space left" in machine.said("yes | head -c 20000 > /dev/shm/more")

    def test_folders_files_mounts_and_the_name(self, tmp_path: Path) -> None:
        operations = [
            PRIVATE,
            {"op": "dir", "path": "/tmp/a/b", "mode": 0o755},
            {"op": "mount", "kind": "tmpfs", "path": "/tmp/a/b", "options": "size=64k,mode=1777", "flags": 2},
            {"op": "file", "path": "/tmp/a/f"},
            {"op": "hostname", "name": "other"},
        ]
        with Machine(tmp_path, *operations) as machine:
            assert machine.said("uname -n; ls /tmp/a; df -k --output=size /tmp/a/b | tail -1").split() == [
                *("other", "b", "f", "64")
            ]

    def test_a_link_on_the_way_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        folder = tmp_path / "machine"
        folder.mkdir()
        operations = [{"op": "mount", "kind": "tmpfs", "path": "/bin", "options": "", "flags": 0}]
        with pytest.raises(SetupFailed) as caught:
            Machine(folder, *operations)
        assert (caught.value.step, caught.value.errno) == ("mount", 40)


@pytest.mark.root
class TestOwnIds:
    """One id of the machine has the names that commands were promised; the guest is another."""

    def test_a_command_owns_what_the_machine_s_user_owns(self, tmp_path: Path) -> None:
        with Machine(tmp_path, PRIVATE, own_ids=OWN_IDS) as machine:
            (machine.work / "mine").write_text("before")
            (machine.work / "mine").chmod(0o600)
            assert machine.said("id -u; id -g; id -G; stat -c %u:%g /work/mine").split() == [
                *("1000", "1000", "1000", "1000:1000")
            ]
            machine.said("echo after > /work/mine; echo new > /work/new; echo out > /tmp/x; cat /tmp/x")
            assert (machine.work / "mine").read_text() == "after\n"
            assert (machine.work / "new").stat().st_uid == os.getuid()
            assert machine.said("cat /proc/self/setgroups") == "deny\n"
            assert machine.said("grep -E '^Cap(Eff|Prm|Bnd)' /proc/self/status").split()[1::2] == ["0" * 16] * 3

    @pytest.mark.parametrize("own", [0, 1000])
    def test_no_command_reaches_the_guest(self, tmp_path: Path, own: int) -> None:
        with Machine(tmp_path, user=own, own_ids={"user": own, "group": own}) as machine:
            assert machine.said("id -u", user=own) == f"{own}\n"
            for name in ("KILL", "STOP", "TERM", "CONT", "0"):
                assert "Operation not permitted" in machine.said(f"kill -{name} 1", user=own)
            for name in ("mem", "environ", "maps", "root/", "fd/0"):
                assert "Permission denied" in machine.said(f"exec 3</proc/1/{name}", user=own), name
            # The control: its own are there.
            assert machine.said("exec 3</proc/self/environ; kill -0 $$", user=own) == ""

    def test_no_command_is_another(self, tmp_path: Path) -> None:
        with Machine(tmp_path, own_ids=OWN_IDS) as machine, pytest.raises(ExecFailed):
            machine.face.exec(["true"], user=1001)

    def test_a_terminal_is_the_command_s(self, tmp_path: Path) -> None:
        devpts = {
            "op": "mount",
            "kind": "devpts",
            "path": "/dev/pts",
            "options": "newinstance,ptmxmode=0666",
            "flags": 0,
        }
        with Machine(tmp_path, devpts, own_ids=OWN_IDS) as machine:
            process = machine.face.start(
                ["/bin/sh", "-c", "echo $(stat -c %u:%a $(tty)) > $(tty)"], pty=True, workdir="/"
            )
            assert process.stdout.read() == b"1000:620\r\n"


@pytest.mark.root
def test_landlock_is_entered_and_what_it_answers_is_told() -> None:
    with outer_box() as outer:
        plan = msgspec.msgpack.decode(outer._launch.wire)
        rules = [rule for rule in plan["landlock"]["rules"] if rule["path"] in ("/usr", "/dev", "/proc")]
        landlock = {**plan["landlock"], "rules": rules, "sentinel": "/etc/passwd"}
        stage = {**plan["command"], "inherited_filters": 0}
        box = privileged_box(outer._launch, configuration(stage, landlock))
        try:
            said = {name: int.from_bytes(value, "little") for name, value in box.ready().items()}
            # It opens before, and is refused after it.
            assert said == {"sentinel.before": 0, "sentinel.after": 13}
            face = face_of(outer, box)
            assert face.exec(["/usr/bin/cat", "/etc/passwd"], workdir="/usr").exit.code == 1
            assert face.exec(["/usr/bin/cat", "/usr/bin/cat"], workdir="/usr").ok
        finally:
            box.close()
        box = privileged_box(outer._launch, configuration(stage, {**landlock, "rules": [NOWHERE]}))
        try:
            with pytest.raises(SetupFailed, match="/no/such/place"):
                box.ready()
        finally:
            box.close()
