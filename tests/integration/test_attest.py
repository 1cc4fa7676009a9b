"""What a box says of itself, in a process that is as its commands are, and what it lets such a one try."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from conformance.hosted import HostedSandbox
from immure import Sandbox
from immure.engine.stdio import captured
from immure.runtimes.guest.attested import attestation

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60)]

INSIDE = "/etc/passwd"
REFUSED = {
    "unknown_call": {"ENOSYS", "EPERM"},
    "setuid_mode": {"EPERM"},
    "outside_file": {"ENOENT"},
    "outside_by_root": {"EACCES", "ENOENT"},
    "write_image": {"EROFS", "EACCES"},
    "network": {"ENETUNREACH"},
    "user_namespace": {"EPERM"},
}
CONTROLS = {"outside_file", "outside_by_root", "write_image", "network"}


def builtin(box: Sandbox, *argv: str) -> tuple[int, bytes, bytes]:
    """The status of one of the native program's own operations, and what it wrote."""
    request = box.request(list(argv), workdir="/")
    stdio = captured(None)
    try:
        attendance = box.carry_out(request, stdio, builtin=True)
    finally:
        stdio.done()
    assert attendance.exit is not None
    out, err = (bytes(sink.data) for sink in attendance.sinks)
    return os.waitstatus_to_exitcode(attendance.exit.status), out, err


def attested(box: Sandbox, outside: str, inside: str = INSIDE, *apart: str) -> dict[str, bytes]:
    status, out, err = builtin(box, "attest", outside, inside, *apart)
    assert (status, err) == (0, b"")
    return msgspec.msgpack.decode(out, type=dict[str, bytes])


def answers(told: dict[str, bytes], kind: str) -> dict[str, int]:
    """Of the trials of one kind; 0 where one succeeded."""
    found = {name.partition("/")[2]: value for name, value in told.items() if name.startswith(f"{kind}/")}
    return {name: struct.unpack("<i", value)[0] for name, value in found.items()}


@pytest.fixture(params=["stem", "guest"])
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox() if request.param == "stem" else HostedSandbox() as made:
        yield made


@pytest.fixture
def outside(tmp_path: Path) -> str:
    """A file of this host."""
    place = tmp_path / "outside"
    place.write_text("secret")
    return str(place)


def controls_of(told: dict[str, bytes]) -> dict[str, int]:
    """But that of a file that machines alone have."""
    found = answers(told, "control")
    assert found.pop("uncovered") == errno.ENOENT
    return found


@pytest.mark.parametrize("apart", [(), ("apart",)], ids=["itself", "apart"])
def test_what_a_box_refuses_and_what_it_allows(box: Sandbox, outside: str, apart: tuple[str, ...]) -> None:
    told = attested(box, outside, INSIDE, *apart)
    refused = {name: errno.errorcode.get(answer, str(answer)) for name, answer in answers(told, "attempt").items()}
    # A file that machines alone have.
    assert refused.pop("uncovered") == "ENOENT"
    assert set(refused) == set(REFUSED)
    assert {name: answer for name, answer in refused.items() if answer not in REFUSED[name]} == {}
    assert controls_of(told) == dict.fromkeys(CONTROLS, 0)


def test_what_it_says_is_what_its_commands_read(box: Sandbox, outside: str) -> None:
    told = attested(box, outside)
    assert told["interfaces"] == b"lo"
    uname = box.exec(["/bin/sh", "-c", "for i in s r v m; do uname -$i; done"]).stdout
    assert told["uname"].split(b"\0") == uname.splitlines()
    status = dict(line.split(":\t", 1) for line in told["status"].decode().splitlines())
    command = dict(line.split(":\t", 1) for line in box.exec(["cat", "/proc/self/status"]).stdout.text().splitlines())
    same = ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")
    assert {name: status[name] for name in same} == {name: command[name] for name in same}


def test_nothing_stays_of_it(box: Sandbox, outside: str) -> None:
    before = box.exec(["/bin/sh", "-c", "ls -A /tmp; cat /proc/self/mountinfo"]).stdout
    attested(box, outside)
    assert box.exec(["/bin/sh", "-c", "ls -A /tmp; cat /proc/self/mountinfo"]).stdout == before


def test_it_says_so_where_nothing_is_refused(outside: str) -> None:
    """The attempts of which a box has a weaker setting: they are made, and they do succeed."""
    with Sandbox(mounts=[(outside, outside, "rw")]) as box:
        attempts = answers(attested(box, outside, outside), "attempt")
        assert (attempts["outside_file"], attempts["write_image"]) == (0, 0)
    assert Path(outside).read_text() == "secret"


def test_a_filter_that_ends_the_process_is_an_answer(tmp_path: Path, outside: str) -> None:
    profile = tmp_path / "deadly.json"
    deadly = {"names": ["connect", "unshare"], "action": "SCMP_ACT_KILL_PROCESS"}
    profile.write_text(msgspec.json.encode({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [deadly]}).decode())
    with Sandbox(seccomp=str(profile), level="L0") as box:
        assert builtin(box, "attest", outside, INSIDE) == (-31, b"", b"")
        told = attested(box, outside, INSIDE, "apart")
    attempts, controls = answers(told, "attempt"), controls_of(told)
    assert [attempts[name] for name in ("network", "user_namespace")] == [-31] * 2
    assert controls.pop("network") == -31
    assert set(controls.values()) == {0}
    # Those after one that ended its process were made, too.
    assert attempts["write_image"] != 0


def test_whoever_asks_comes_to_such_answers_by_himself(tmp_path: Path, outside: str) -> None:
    profile = tmp_path / "deadly.json"
    deadly = {"names": ["unshare"], "action": "SCMP_ACT_KILL_PROCESS"}
    profile.write_text(msgspec.json.encode({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [deadly]}).decode())
    with Sandbox(seccomp=str(profile), level="L0") as box, attestation(box._box, outside) as attesting:
        assert answers(attesting.items(), "attempt")["user_namespace"] == -31


def test_its_time_does_not_pass_while_a_box_is_made(box: Sandbox, outside: str) -> None:
    """It is asked for before there is anybody to answer."""
    with attestation(box._box, outside) as attesting:
        assert attesting.attendance.wait_ms() is None
        assert attesting.items()["interfaces"] == b"lo"
        assert attesting.attendance.wait_ms() is not None


def test_other_arguments_are_refused(box: Sandbox) -> None:
    assert builtin(box, "attest", "/etc") == (1, b"", b"22 attest\n")
    assert builtin(box, "attest", "/etc", "/etc", "together") == (1, b"", b"22 attest\n")
    assert builtin(box, "nothing", "x")[0] == 1


def test_many_at_once(box: Sandbox, outside: str) -> None:
    told: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda: told.append(attested(box, outside))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [set(controls_of(one).values()) for one in told] == [{0}] * 8
