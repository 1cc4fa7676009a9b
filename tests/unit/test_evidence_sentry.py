"""The judgement of a box in a Sentry: each part, broken in turn, does not hold, and the level falls with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from readbacks import HOST
from sentry_readbacks import (
    EXPECTED,
    GOFER,
    SENTRY,
    STUB,
    Change,
    Items,
    all_of,
    judged,
    line,
    plain_readback,
    put,
    readback,
    readback_of_2024,
)

from immure.evidence.levels import L2_PARTS, award
from immure.evidence.sentry import judge_sentry

FILTER, PRIVILEGES, CAPABILITIES = "syscalls.default_deny", "identity.no_new_privs", "identity.capabilities"
MAC, NETWORK, HOST_ROOT, KERNEL = "files.mac", "network.namespace", "identity.no_host_root", "kernel.user_space"
OWN = "files.mount_namespace"
READBACKS = (readback, readback_of_2024, plain_readback)


def level(parts: dict[str, bool]) -> str:
    held = frozenset(part for part, one in parts.items() if one)
    return award(held, "user_kernel" if KERNEL in held else "kernel")


@pytest.mark.parametrize("read", READBACKS)
def test_a_whole_readback_comes_to_l3(read: type[Items]) -> None:
    parts = judged(read())
    assert set(parts) == L2_PARTS | {KERNEL}
    assert all(parts.values()), parts
    assert level(parts) == "L3"


#: What is done to the readback, and the parts that do not hold then.
BROKEN: dict[str, tuple[Change, set[str]]] = {
    "no filter within": (line("inside/status", "Seccomp", "0"), {FILTER}),
    "the Sentry answers a call that there is not": (put("inside/attempt/unknown_call", 1), {FILTER}),
    "the call comes through": (put("inside/attempt/unknown_call", 0), {FILTER}),
    "a setuid mode is allowed": (put("inside/attempt/setuid_mode", 2), {FILTER}),
    "a user namespace is made": (put("inside/attempt/user_namespace", 0), {FILTER}),
    "an attempt that came to no answer": (put("inside/attempt/user_namespace", 11), {FILTER}),
    "privileges are to be had within": (
        all_of(line("inside/status", "NoNewPrivs", "0"), put("inside/no_new_privs", b"0")),
        {PRIVILEGES},
    ),
    "privileges are to be had around it": (line("status", "NoNewPrivs", "0"), {PRIVILEGES}),
    "a capability within": (line("inside/status", "CapEff", "0000000000200000"), {CAPABILITIES}),
    "a bounding set within": (line("inside/status", "CapBnd", "0000000000000400"), {CAPABILITIES}),
    "an ambient one within": (
        all_of(line("inside/status", "CapAmb", "0000000000000400"), put("inside/ambient", b"0000000000000400")),
        {CAPABILITIES},
    ),
    "more around it": (line("status", "CapPrm", "000001ffffffffff"), {CAPABILITIES}),
    "a file around it": (put("inside/attempt/outside_file", 0), {MAC}),
    "a file around it, by the first process": (put("inside/attempt/outside_by_root", 0), {MAC}),
    "an error that denies nothing": (put("inside/attempt/outside_file", 23), {MAC}),
    "a writable image": (put("inside/attempt/write_image", 0), {MAC}),
    "no control of files": (put("inside/control/outside_file", 2), {MAC}),
    "no control of writing": (put("inside/control/write_image", 30), {MAC}),
    "nothing was there to be reached": (put("inside/outer_opens", b"0"), {MAC}),
    "a way to others": (put("inside/attempt/network", 0), {NETWORK}),
    "no way to itself": (put("inside/control/network", 101), {NETWORK}),
    "an interface": (put("inside/interfaces", b"lo\neth0"), {NETWORK}),
    "the host's root in the map": (put("uid_map", b"0 0 65536\n"), {HOST_ROOT}),
    "the host's root group in the map": (put("gid_map", b"0 2069430272 10\n10 0 1\n"), {HOST_ROOT}),
    "the host's kernel": (put("inside/uname", b"Linux\x006.18.44\0#1 SMP PREEMPT_DYNAMIC\0x86_64"), {KERNEL}),
    "the host's kernel by another name": (
        put("inside/uname", b"Linux\x002.6.78\0#1 SMP PREEMPT_DYNAMIC\0x86_64"),
        {KERNEL},
    ),
    "no kernel at all": (put("inside/uname", b""), {KERNEL}),
    "another program": (put(f"{STUB}/exe", b"/rootfs/usr/bin/python3"), {KERNEL}),
    "a program that can't be seen": (put(f"{STUB}/exe", b"Permission denied"), {KERNEL}),
    "a gofer without a filter": (line(f"{GOFER}/status", "Seccomp", "0"), {KERNEL}),
    "a stub without a filter": (line(f"{STUB}/status", "Seccomp", None), {KERNEL}),
    "a Sentry without a filter": (line(f"{SENTRY}/status", "Seccomp", "0"), {KERNEL}),
    "a strict mode in place of a filter": (line(f"{SENTRY}/status", "Seccomp", "1"), {KERNEL}),
    "a Sentry that may execute": (put(f"{SENTRY}/lets", b"execve mount"), {KERNEL}),
    "a Sentry whose filters are all open": (put(f"{SENTRY}/lets", b"all"), {KERNEL}),
    "an answer that could not be read": (put(f"{SENTRY}/lets", b"an answer that could not be read"), {KERNEL}),
    "two Sentries": (put(f"{STUB}/cmdline", b"runsc\0boot\0box\0"), {KERNEL}),
    "no Sentry": (put(f"{SENTRY}/cmdline", b"runsc\0wait\0box\0"), {KERNEL}),
    **{
        f"the host's {name}": (put(name, HOST[name].to_bytes(8, "little")), {part})
        for name, part in (
            ("ns/mnt", OWN),
            ("ns/net", NETWORK),
            ("ns/pid", "processes.pid_namespace"),
            ("ns/ipc", "processes.ipc_namespace"),
            ("ns/uts", "processes.uts_namespace"),
            ("ns/user", "identity.user_namespace"),
        )
    },
}


@pytest.mark.parametrize("read", READBACKS)
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_does_not_hold(name: str, read: type[Items]) -> None:
    change, missing = BROKEN[name]
    items = read()
    change(items)
    parts = judged(items)
    assert {part for part, held in parts.items() if not held} == missing
    assert level(parts) < "L3"
    findings = {one.part: one for one in judge_sentry(items, EXPECTED, HOST)}
    assert all(findings[part].why for part in missing)


#: Of these one is enough: what the status has no line of is asked for by a call.
SPARE = {"inside/no_new_privs", "inside/ambient", "inside/ambient.errno"}


@pytest.mark.parametrize("read", READBACKS)
def test_what_can_not_be_read_does_not_hold(read: type[Items]) -> None:
    for name in read():
        # A process that has no command line is a stub of the Sentry's; one that is gone is not there at all.
        if name in SPARE | {f"{STUB}/cmdline", f"{GOFER}/cmdline", "ns/cgroup"}:
            continue
        # What this host is called is read by ourselves, and is never anything else.
        for value in (None, b"") if name == "host/uname" else (None, b"", b"\xff\0?"):
            items = read()
            put(name, value)(items)
            assert level(judged(items)) < "L3", (name, value)


def test_the_spare_ones_are_no_answers_together() -> None:
    items = readback_of_2024()
    del items["inside/no_new_privs"]
    assert not judged(items)[PRIVILEGES]
    items = readback_of_2024()
    items["inside/ambient.errno"] = b"\x01\0\0\0"
    assert not judged(items)[CAPABILITIES]


def test_nothing_read_is_nothing_held() -> None:
    assert not any(judged({}).values())
    assert level(judged({})) == "L0"


@given(st.sets(st.sampled_from(sorted(name for name in readback() if not name.startswith("sentry/")))), st.data())
def test_less_that_was_read_never_raises_the_level(taken: set[str], data: st.DataObject) -> None:
    some = data.draw(st.sets(st.sampled_from(sorted(taken)))) if taken else set()
    left = judged({name: value for name, value in readback().items() if name not in taken})
    more = judged({name: value for name, value in readback().items() if name not in some})
    assert {part for part, held in left.items() if held} <= {part for part, held in more.items() if held}
    assert level(left) <= level(more)


@given(st.sets(st.sampled_from(sorted(BROKEN))), st.sampled_from(READBACKS))
def test_what_is_broken_together_is_no_better(names: set[str], read: type[Items]) -> None:
    items = read()
    for name in sorted(names):
        BROKEN[name][0](items)
    parts = judged(items)
    assert (level(parts) == "L3") == (not names)


def test_a_profile_that_allows_by_default_does_not_hold() -> None:
    assert not judged(readback(), default_deny=False)[FILTER]


def test_what_no_filter_answers_is_not_asked() -> None:
    """A user's own profile may let these through, and is then held by what it denies elsewhere."""
    items = readback()
    items["inside/attempt/user_namespace"] = bytes(4)
    assert judged(items, user_namespace=None)[FILTER]
    assert not judged(items)[FILTER]


def test_kept_capabilities_are_allowed_and_no_others() -> None:
    items = readback()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        line("inside/status", name, "0000000000200400")(items)
    assert judged(items, keep_capabilities=0x200400)[CAPABILITIES]
    assert not judged(items, keep_capabilities=0x200000)[CAPABILITIES]


@pytest.mark.parametrize("read", READBACKS)
def test_where_the_filter_denies_the_control_too_there_is_no_attempt_to_make(read: type[Items]) -> None:
    items = read()
    for kind in ("attempt", "control"):
        put(f"inside/{kind}/network", 1)(items)
    assert not {one.part: one.held for one in judge_sentry(items, EXPECTED, HOST)}[NETWORK]
    denies = {**EXPECTED, "denied_controls": {"network": 1}}
    assert {one.part: one.held for one in judge_sentry(items, denies, HOST)}[NETWORK]
    put("inside/interfaces", b"lo\neth0")(items)
    assert not {one.part: one.held for one in judge_sentry(items, denies, HOST)}[NETWORK]
