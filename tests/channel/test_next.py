"""The process of the next command, begun before it is asked for, in a guest on this kernel."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.hosted import configuration, guest_box, name_of, outer_box, stage_of
from immure import ExecFailed, Sandbox
from immure.channel.blocking import ThreadDriver
from immure.host.tree import below
from immure.runtimes.guest.box import GuestBox

from .guests import eventually, face_of

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60)]


class Guest:
    """A guest that begins the next one ahead, and a face for its box."""

    def __init__(self, outer: Sandbox, box: GuestBox) -> None:
        self.outer, self.box, self.face = outer, box, face_of(outer, box)

    def next(self) -> int | None:
        """The number on this host of the process that waits for a command."""
        return next((pid for pid in below(self.box.pid) if is_next(pid)), None)

    def waiting(self) -> int:
        """The same once it is there."""
        assert eventually(self.next)
        pid = self.next()
        assert pid is not None
        # It waits, and has its filters.
        assert eventually(lambda: field(pid, "Seccomp_filters") == "2" and "futex" in wchan(pid))
        return pid

    def own_number(self) -> str:
        """What a command is called in its box."""
        return self.face.exec(["/bin/sh", "-c", "echo $$"]).stdout.text().strip()


def is_next(pid: int) -> bool:
    try:
        return name_of(pid) == "immure-next"
    except OSError:
        return False


def field(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split("\t")[-1].strip() for line in lines if line.startswith(f"{name}:"))


def wchan(pid: int) -> str:
    """What it waits in; a host that does not say so says 0."""
    said = Path(f"/proc/{pid}/wchan").read_text()
    return "futex" if said in ("0", "") else said


@pytest.fixture
def guest() -> Iterator[Guest]:
    with outer_box() as outer:
        stage = {**stage_of(outer._launch), "inherited_filters": 0, "ahead": True}
        box = guest_box(outer, outer._launch, ThreadDriver, configuration(stage))
        box.ready()
        yield Guest(outer, box)
        box.close()
        assert not below(outer._box.pid)


class TestBegun:
    def test_not_before_somebody_has_asked(self, guest: Guest) -> None:
        time.sleep(0.1)
        assert guest.next() is None
        assert guest.face.exec(["true"]).ok
        assert guest.waiting()

    def test_not_beside_one_like_it(self, guest: Guest) -> None:
        assert guest.face.exec(["true"]).ok
        guest.waiting()
        runs = threading.Thread(target=guest.face.exec, args=(["sleep", "1"],))
        runs.start()
        assert eventually(lambda: [name_of(pid) for pid in below(guest.box.pid)] == ["sleep"])
        seen = [guest.next() for _ in range(20) if time.sleep(0.01) is None]
        runs.join()
        assert set(seen) == {None}
        assert guest.waiting()

    def test_beside_one_that_was_started(self, guest: Guest) -> None:
        with guest.face.start(["sleep", "60"]):
            assert guest.face.exec(["true"]).ok
            assert guest.waiting()

    def test_it_becomes_the_next_command(self, guest: Guest) -> None:
        assert guest.face.exec(["true"]).ok
        for _ in range(5):
            number = field(guest.waiting(), "NSpid")
            assert guest.own_number() == number

    def test_it_is_not_the_boxs_to_look_into(self, guest: Guest) -> None:
        """As the guest, whose memory it shares."""
        assert guest.face.exec(["true"]).ok
        number = field(guest.waiting(), "NSpid")
        # By one that does not become it.
        looks = guest.face.start(["/bin/sh", "-c", f"cat /proc/{number}/environ || cat /proc/self/environ"]).wait()
        assert b"ermission denied" in looks.stderr
        # The control: its own can be read.
        assert b"PATH=" in looks.stdout

    def test_a_command_has_all_that_it_is_asked_for_with(self, guest: Guest) -> None:
        assert guest.face.exec(["true"]).ok
        guest.waiting()
        script = "pwd; echo $A; echo err >&2; head -c 1 /dev/stdin | wc -c; echo again > /dev/stdout; exit 7"
        result = guest.face.exec(["/bin/sh", "-c", script], env={"A": "b"}, workdir="/usr")
        assert (result.stdout, result.stderr, result.exit.code) == (b"/usr\nb\n0\nagain\n", b"err\n", 7)

    def test_what_it_can_not_be_is_said(self, guest: Guest) -> None:
        assert guest.face.exec(["true"]).ok
        for wrong, named in ((["/no/such"], "not found"), (["/etc/passwd"], "passwd")):
            guest.waiting()
            with pytest.raises(ExecFailed, match=named):
                guest.face.exec(wrong)
        guest.waiting()
        with pytest.raises(ExecFailed, match="/nowhere"):
            guest.face.exec(["true"], workdir="/nowhere")
        assert guest.own_number() != ""

    def test_those_with_an_input_do_without(self, guest: Guest) -> None:
        assert guest.face.exec(["true"]).ok
        pid = guest.waiting()
        assert guest.face.exec(["cat"], stdin=b"in").stdout == b"in"
        assert guest.face.start(["/bin/echo", "out"]).wait().stdout == b"out\n"
        assert guest.next() == pid


class TestDisturbed:
    @pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
    def test_commands_go_on_without_one(self, guest: Guest, by: signal.Signals) -> None:
        assert guest.face.exec(["true"]).ok
        pid = guest.waiting()
        number = field(pid, "NSpid")
        os.kill(pid, by)
        assert eventually(lambda: not Path(f"/proc/{pid}").exists() or field(pid, "State")[0] in "TZ")
        assert guest.own_number() != number
        # Nor is there another: what ends it once would do so again.
        time.sleep(0.05)
        assert guest.face.exec(["true"]).ok
        time.sleep(0.05)
        assert guest.next() is None

    def test_a_box_that_stands_still_has_none_made(self, guest: Guest) -> None:
        assert guest.face.exec(["true"]).ok
        pid = guest.waiting()
        number = field(pid, "NSpid")
        guest.face.pause()
        assert {field(one, "State")[0] for one in below(guest.box.pid)} == {"T"}
        time.sleep(0.05)
        assert below(guest.box.pid) == [pid]
        guest.face.resume()
        # That it was stopped meanwhile is nobody's fault.
        assert guest.own_number() == number

    def test_a_pause_between_two(self, guest: Guest) -> None:
        """However far it has come."""
        for round_ in range(30):
            assert guest.face.exec(["true"]).ok
            time.sleep(round_ * 0.0002)
            guest.face.pause()
            assert all(field(one, "State")[0] == "T" for one in below(guest.box.pid))
            guest.face.resume()


class TestNothingGrows:
    def test_descriptors_and_processes(self, guest: Guest) -> None:
        def held() -> int:
            guest.waiting()
            # They are the guest's secret before anybody but root.
            return len(list(Path(f"/proc/{guest.box.pid}/fd").iterdir())) if os.geteuid() == 0 else 0

        assert guest.face.exec(["true"]).ok
        before = held()
        for round_ in range(300):
            assert guest.face.exec(["true"]).ok
            if round_ % 3:
                guest.waiting()
        assert held() == before
        assert len(below(guest.box.pid)) == 1
