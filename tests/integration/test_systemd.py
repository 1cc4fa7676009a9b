"""Profiles as units of systemd: the filters that a real one installs, read back and held against the profile.

The manager is a user's, in a mount namespace that makes it believe in a host that it has booted.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from immure.policy.seccomp import ABIS, PRESETS, Call, Instruction, Reference, load_preset, numbers, run
from immure.policy.seccomp.actions import ALLOW, PERMISSIVE, RETURNS, severity
from immure.policy.seccomp.bpf import unpack
from immure.policy.seccomp.formats import to_systemd

MANAGER = shutil.which("systemd-analyze") and Path("/lib/systemd/systemd")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not MANAGER, reason="systemd is not installed"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="host: the calls are x86_64's"),
]
KERNEL = (6, 1)
X86_64 = ABIS["x86_64"]
OPEN = {RETURNS[action] for action in PERMISSIVE}
_ATTACH, _DETACH, _GET_FILTER = 16, 17, 0x420C

START = textwrap.dedent("""
    set -e
    mount -t tmpfs own /run
    mount -t cgroup2 own /sys/fs/cgroup
    mkdir -p /run/systemd/system -m 755
    mkdir /run/own -m 700
    mkdir -p /run/own/systemd
    cp -r "$1" /run/own/systemd/user
    export XDG_RUNTIME_DIR=/run/own SYSTEMD_LOG_TARGET=console
    /lib/systemd/systemd --user --unit=basic.target &
    for _ in $(seq 100); do systemctl --user is-system-running --quiet && break; sleep 0.1; done
    cd "$1"
    for unit in *.service; do
        systemctl --user start "$unit"
        echo "$unit $(systemctl --user show -p MainPID --value "$unit")"
    done
    echo
    read -r _ || true
    systemctl --user stop '*.service'
    kill %1
    wait || true
""")
UNIT = "[Service]\nType=exec\nExecStart=/bin/sleep 60\nNoNewPrivileges=yes\n"


def unit_of(name: str) -> str:
    lines = to_systemd(load_preset(name), arch="x86_64", capabilities=frozenset(), kernel=KERNEL, best_effort=True).text
    return UNIT + lines.replace("[Service]\n", "")


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The presets as units that run: their main processes."""
    folder = tmp_path_factory.mktemp("units")
    for name in PRESETS:
        (folder / f"immure-{name}.service").write_text(unit_of(name))
    with (folder / "log").open("wb") as log:
        manager = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "bash", "-c", START, "start", folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
    assert manager.stdout is not None
    assert manager.stdin is not None
    found: dict[str, int] = {}
    for line in iter(manager.stdout.readline, b"\n"):
        assert line, (folder / "log").read_text()
        name, pid = line.decode().split()
        found[name.removeprefix("immure-").removesuffix(".service")] = int(pid)
    yield found
    manager.stdin.close()
    try:
        manager.wait(30)
    finally:
        if manager.poll() is None:
            os.killpg(manager.pid, signal.SIGKILL)
        manager.stdout.close()


def installed(pid: int) -> list[tuple[Instruction, ...]]:
    """The filters of a process, as the kernel gives them back."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_void_p)

    def ptrace(request: int, place: int, data: object) -> int:
        return libc.ptrace(*(kind(one) for kind, one in zip(arguments, (request, pid, place, data), strict=True)))

    assert ptrace(_ATTACH, 0, None) == 0, ctypes.get_errno()
    os.waitpid(pid, 0x40000000)
    try:
        found: list[tuple[Instruction, ...]] = []
        while (length := ptrace(_GET_FILTER, len(found), None)) > 0:
            buffer = ctypes.create_string_buffer(length * 8)
            assert ptrace(_GET_FILTER, len(found), ctypes.addressof(buffer)) == length
            found.append(unpack(buffer.raw[: length * 8]))
        return found
    finally:
        ptrace(_DETACH, 0, None)


def answer(filters: list[tuple[Instruction, ...]], number: int, audit: int, args: tuple[int, ...]) -> int:
    values = [run(program, number, audit, 0, args)[0] for program in filters]
    return min(values, key=severity, default=ALLOW)


def known_to_systemd(name: str, folder: Path) -> set[str]:
    """The calls of x86_64 but those that this systemd is too old to know, which it says."""
    path = folder / f"{name}.service"
    path.write_text(unit_of(name))
    said = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60).stderr
    unknown = set(re.findall(r"Failed to parse system call, ignoring: (\w+)", said))
    assert len(said.splitlines()) == len(unknown), said
    return set(numbers(X86_64)) - unknown


@pytest.mark.parametrize("name", PRESETS)
def test_a_unit_of_systemd_lets_through_no_more_than_its_preset(
    name: str, units: dict[str, int], tmp_path: Path
) -> None:
    filters = installed(units[name])
    assert filters
    profile = load_preset(name)
    reference = Reference(profile, kernel=KERNEL)
    always = {
        call for call in numbers(X86_64) if not any(call in rule.calls and rule.args for rule in profile.rules)
    } & known_to_systemd(name, tmp_path)
    patterns = [(0,) * 6, (1,) * 6, (2**64 - 1,) * 6, (0x10000000, 40, 3, 4, 5, 6)]
    opened = 0
    for call, number in numbers(X86_64).items():
        for args in patterns:
            got = answer(filters, number, X86_64.audit, args) & 0xFFFF_0000 in OPEN
            wanted = reference.decide(Call("x86_64", number, args)).action in PERMISSIVE
            assert wanted or not got, f"{call}{args} is let through by systemd alone"
            # What is decided by the number alone, and by a name that it knows, it decides as we do.
            assert got == wanted or call not in always, f"{call}{args} is refused by systemd alone"
            opened += got
    assert opened > 100
    for abi in ("i386", "x32"):
        for number in numbers(ABIS[abi]).values():
            assert answer(filters, number, ABIS[abi].audit, (0,) * 6) & 0xFFFF_0000 not in OPEN, (abi, number)


def test_a_process_without_a_unit_has_no_filter() -> None:
    """The control: what was read back is the unit's."""
    with subprocess.Popen(["sleep", "60"]) as process:
        assert installed(process.pid) == []
        process.kill()
