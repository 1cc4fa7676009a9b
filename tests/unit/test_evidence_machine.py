"""The judgement of a box in a machine: each part, broken on either side, does not hold, and the level falls with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_readbacks import EXPECTED, VMM, judged, readback
from readbacks import HOST
from sentry_readbacks import Change, Items, all_of, line, put

from immure.evidence.levels import L2_PARTS, award, boundary_of, has_hardware
from immure.evidence.machine import judge_machine

FILTER, PRIVILEGES, CAPABILITIES = "syscalls.default_deny", "identity.no_new_privs", "identity.capabilities"
MAC, NETWORK, HOST_ROOT, KERNEL = "files.mac", "network.namespace", "identity.no_host_root", "kernel.machine"
HARDWARE = "kernel.hardware"
HOST_BOOT = readback()["host/boot_id"]


def level(parts: dict[str, bool]) -> str:
    held = frozenset(part for part, one in parts.items() if one)
    return award(held, boundary_of(held), hardware=has_hardware(held))


def on_hardware() -> Items:
    return {**readback(), f"{VMM}/kvm": b"a machine"}


def test_a_whole_readback_comes_to_what_the_processor_gives() -> None:
    parts = judged(readback())
    assert set(parts) == L2_PARTS | {KERNEL}
    assert all(parts.values()), parts
    assert level(parts) == "L3"
    parts = judged(on_hardware(), hardware=True)
    assert set(parts) == L2_PARTS | {KERNEL, HARDWARE}
    assert level(parts) == "L4"


@pytest.mark.parametrize("opened", [b"nothing", b"", b"Permission denied", None])
def test_a_machine_that_is_not_kvm_s_is_no_l4(opened: bytes | None) -> None:
    items = on_hardware()
    put(f"{VMM}/kvm", opened)(items)
    parts = judged(items, hardware=True)
    assert (parts[HARDWARE], level(parts)) == (False, "L3")
    assert level(judged(on_hardware())) == "L3", "nor is one that was not to be"


@pytest.mark.parametrize(
    ("opened", "there", "held"),
    [
        (13, 0, {"required", "best_effort", None}),
        (0, 0, {"best_effort", None}),
        (2, 2, {None}),
        (13, 2, {None}),
        (1, 0, {None}),
        (None, 0, {None}),
        (13, None, {None}),
    ],
)
def test_landlock_within_is_seen_by_a_file_that_no_rule_covers(
    opened: int | None, there: int | None, held: set[str | None]
) -> None:
    items = readback()
    put("inside/attempt/uncovered", opened)(items)
    put("inside/control/uncovered", there)(items)
    assert {wanted for wanted in ("required", "best_effort", None) if judged(items, landlock=wanted)[MAC]} == held


#: What is done to the readback, and the parts that do not hold then.
BROKEN: dict[str, tuple[Change, set[str]]] = {
    "no filter within": (line("inside/status", "Seccomp", "0"), {FILTER}),
    "another filter around it": (put("filter/0", b"\x06\0\0\0\0\0\xff\x7f"), {FILTER}),
    "no filter around it": (line("status", "Seccomp", "0"), {FILTER}),
    "the call comes through": (put("inside/attempt/unknown_call", 0), {FILTER}),
    "a setuid mode is allowed": (put("inside/attempt/setuid_mode", 2), {FILTER}),
    "privileges are to be had within": (
        all_of(line("inside/status", "NoNewPrivs", "0"), put("inside/no_new_privs", b"0")),
        {PRIVILEGES},
    ),
    "privileges are to be had around it": (line("status", "NoNewPrivs", "0"), {PRIVILEGES}),
    "a capability within": (line("inside/status", "CapEff", "0000000000200000"), {CAPABILITIES}),
    "a capability around it": (line("status", "CapPrm", "000001ffffffffff"), {CAPABILITIES}),
    "a file around it": (put("inside/attempt/outside_file", 0), {MAC}),
    "a writable image": (put("inside/attempt/write_image", 0), {MAC}),
    "nothing was there to be reached": (put("inside/outer_opens", b"0"), {MAC}),
    "no Landlock around it": (put("sentinel.after", 0), {MAC}),
    "a way to others": (put("inside/attempt/network", 0), {NETWORK}),
    "an interface": (put("inside/interfaces", b"lo\neth0\nsit0"), {NETWORK}),
    "the host's network": (put("ns/net", HOST["ns/net"].to_bytes(8, "little")), {NETWORK}),
    "the host's processes": (put("ns/pid", HOST["ns/pid"].to_bytes(8, "little")), {"processes.pid_namespace"}),
    "the host's root in the map": (put("uid_map", b"0 0 65536\n"), {HOST_ROOT}),
    "the host's kernel, whatever it is called": (put("inside/boot_id", HOST_BOOT), {KERNEL}),
    "another program": (put(f"{VMM}/exe", b"/usr/bin/python3"), {KERNEL}),
    "a program that can't be seen": (put(f"{VMM}/exe", b"Permission denied"), {KERNEL}),
    "a process beside it": (
        all_of(put("vmm/8601/exe", b"/usr/bin/sh"), put("vmm/8601/status", b"NoNewPrivs:\t1\nSeccomp:\t2\n")),
        {KERNEL},
    ),
    "two of them": (
        all_of(
            put("vmm/8601/exe", b"/usr/bin/qemu-system-x86_64"),
            put("vmm/8601/status", b"NoNewPrivs:\t1\nSeccomp:\t2\n"),
        ),
        {KERNEL},
    ),
    "a machine without a filter": (line(f"{VMM}/status", "Seccomp", "0"), {KERNEL}),
    "a machine in a strict mode": (line(f"{VMM}/status", "Seccomp", "1"), {KERNEL}),
    "a machine that could gain privileges": (line(f"{VMM}/status", "NoNewPrivs", "0"), {KERNEL}),
    "no machine": (all_of(put(f"{VMM}/exe", None), put(f"{VMM}/status", None)), {KERNEL}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_does_not_hold(name: str) -> None:
    change, missing = BROKEN[name]
    items = readback()
    change(items)
    parts = judged(items)
    assert {part for part, held in parts.items() if not held} == missing
    assert level(parts) < "L3"
    findings = {one.part: one for one in judge_machine(items, EXPECTED, HOST)}
    assert all(findings[part].why for part in missing)


def test_what_can_not_be_read_does_not_hold() -> None:
    for name in readback():
        if name in ("inside/no_new_privs", "inside/ambient", "ns/cgroup", "cgroup", "filter/0", f"{VMM}/kvm"):
            # Of these another tells the same, or no part is about them. Without the first filter a plain user has read.
            continue
        for value in (None, b"", b"\xff\0?"):
            items = readback()
            put(name, value)(items)
            assert level(judged(items)) < "L3", (name, value)


def test_a_guest_may_boot_the_kernel_that_its_host_has() -> None:
    """Of a distribution, say: the same file, started twice."""
    items = readback()
    put("inside/uname", b"Linux\x006.18.44\0#1 SMP PREEMPT_DYNAMIC\0x86_64")(items)
    assert level(judged(items)) == "L3"


def test_nothing_read_is_nothing_held() -> None:
    assert not any(judged({}).values())
    assert level(judged({})) == "L0"


@given(st.sets(st.sampled_from(sorted(BROKEN))))
def test_what_is_broken_together_is_no_better(names: set[str]) -> None:
    items = on_hardware()
    for name in sorted(names):
        try:
            BROKEN[name][0](items)
        except KeyError:
            # Another has taken it away already.
            continue
    assert (level(judged(items, hardware=True)) == "L4") == (not names)


def test_a_profile_that_allows_by_default_does_not_hold() -> None:
    assert not judged(readback(), default_deny=False)[FILTER]
