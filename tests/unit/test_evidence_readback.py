"""The judgement of a readback. Sabotage: whatever protection is taken away, its part is named and the level falls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from readbacks import (
    HOST,
    SETS,
    Change,
    Items,
    both,
    expected,
    item,
    judged,
    line,
    number,
    plain_readback,
    plans,
    readback,
    shared,
    unreadable,
)

from immure.evidence.levels import L1_PARTS, L2_PARTS, award
from immure.evidence.readback import held_parts, judge

FILTER = "syscalls.default_deny"
PRIVILEGES = "identity.no_new_privs"
CAPABILITIES = "identity.capabilities"
MAC = "files.mac"
HOST_ROOT = "identity.no_host_root"
USER = "identity.user_namespace"
FULL_SET = "000001ffffffffff"


def flipped(name: str) -> Change:
    """One bit of the value is another."""

    def change(items: Items, wanted: object, host: object) -> None:
        items[name] = items[name][:-5] + bytes([items[name][-5] ^ 1]) + items[name][-4:]

    return change


def swapped(items: Items, wanted: object, host: object) -> None:
    items["filter/0"], items["filter/1"] = items["filter/1"], items["filter/0"]


def nothing(items: Items, wanted: object, host: object) -> None:
    items.clear()


def host_unknown(name: str) -> Change:
    def change(items: Items, wanted: object, host: dict[str, int]) -> None:
        del host[name]

    return change


SABOTAGE: dict[str, tuple[Change, set[str]]] = {
    # The filter.
    "no filter at all": (
        both(line("Seccomp", "0"), line("Seccomp_filters", "0"), item("filter/0", None), item("filter/1", None)),
        {FILTER},
    ),
    "seccomp off, whatever was read": (line("Seccomp", "0"), {FILTER}),
    "strict mode, no filter": (line("Seccomp", "1"), {FILTER}),
    "seccomp unknown": (line("Seccomp", None), {FILTER}),
    "the guard is missing": (
        both(item("filter/0", readback()["filter/1"]), item("filter/1", None), line("Seccomp_filters", "1")),
        {FILTER},
    ),
    "the profile is missing": (item("filter/1", None), {FILTER}),
    "the profile can't be read": (unreadable("filter/1"), {FILTER}),
    "one bit of the guard": (flipped("filter/0"), {FILTER}),
    "one bit of the profile": (flipped("filter/1"), {FILTER}),
    "an empty profile": (item("filter/1", b""), {FILTER}),
    "a shorter profile": (item("filter/1", readback()["filter/1"][:-8]), {FILTER}),
    "a longer profile": (item("filter/1", readback()["filter/1"] + bytes(8)), {FILTER}),
    "in the other order": (swapped, {FILTER}),
    "a filter too many": (both(item("filter/2", b"\x06" + bytes(7)), line("Seccomp_filters", "3")), {FILTER}),
    "the profile allows by default": (plans(default_deny=False), {FILTER}),
    # Privileges.
    "new privileges": (line("NoNewPrivs", "0"), {PRIVILEGES}),
    "new privileges unknown": (line("NoNewPrivs", None), {PRIVILEGES}),
    "new privileges, another word": (line("NoNewPrivs", "11"), {PRIVILEGES}),
    # Capabilities: one in each set.
    **{f"a capability in {name}": (line(name, "0000000000200000"), {CAPABILITIES}) for name in SETS},
    **{f"{name} unknown": (line(name, None), {CAPABILITIES}) for name in SETS},
    "a set that is no number": (line("CapEff", "none"), {CAPABILITIES}),
    "an empty set": (line("CapPrm", ""), {CAPABILITIES}),
    "the plan's capability in the host's namespace": (
        both(plans(keep_capabilities=1 << 10), line("CapEff", "0000000000000400"), shared("ns/user")),
        {CAPABILITIES, USER},
    ),
    "one more than the plan's": (
        both(plans(keep_capabilities=1 << 10), line("CapEff", "0000000000000c00")),
        {CAPABILITIES},
    ),
    "the host's bounding set, and new privileges": (
        both(line("CapBnd", FULL_SET), shared("ns/user"), line("NoNewPrivs", "0")),
        {CAPABILITIES, PRIVILEGES, USER},
    ),
    # File control.
    "no landlock in the plan": (plans(landlock_abi=0), {MAC}),
    "the sentinel opens afterwards": (item("sentinel.after", number(0)), {MAC}),
    "the sentinel fails for another reason": (item("sentinel.after", number(2)), {MAC}),
    "the sentinel fails for want of memory": (item("sentinel.after", number(12)), {MAC}),
    "the sentinel could never be opened": (item("sentinel.before", number(13)), {MAC}),
    "the sentinel was not there": (item("sentinel.before", number(2)), {MAC}),
    "nobody opened the sentinel before": (item("sentinel.before", None), {MAC}),
    "nobody opened the sentinel afterwards": (item("sentinel.after", None), {MAC}),
    # Host root.
    "host root is mapped": (item("uid_map", b"0 0 1\n"), {HOST_ROOT}),
    "host root's group is mapped": (item("gid_map", b"0 0 1\n"), {HOST_ROOT}),
    "host root is the last of several": (item("uid_map", b"0 100000 1000\n  1000 5 1\n 2000 0 1\n"), {HOST_ROOT}),
    "host root is mapped on another id": (item("uid_map", b"1000 0 1\n"), {HOST_ROOT}),
    "the host's own map": (item("uid_map", b"         0          0 4294967295\n"), {HOST_ROOT}),
    "an empty map": (item("uid_map", b""), {HOST_ROOT}),
    "an empty group map": (item("gid_map", b"\n"), {HOST_ROOT}),
    "no map": (item("uid_map", None), {HOST_ROOT}),
    "no group map": (item("gid_map", None), {HOST_ROOT}),
    "a map that can't be read": (unreadable("uid_map"), {HOST_ROOT}),
    "a map of two words": (item("uid_map", b"0 100000\n"), {HOST_ROOT}),
    "a map of four words": (item("uid_map", b"0 100000 1 1\n"), {HOST_ROOT}),
    "a map of other words": (item("uid_map", b"zero one two\n"), {HOST_ROOT}),
    "a map with one bad line": (item("gid_map", b"0 100000 1\nx\n"), {HOST_ROOT}),
    # The readback itself.
    "no status": (item("status", None), {FILTER, PRIVILEGES, CAPABILITIES}),
    "an empty status": (item("status", b""), {FILTER, PRIVILEGES, CAPABILITIES}),
    "a status that can't be read": (unreadable("status"), {FILTER, PRIVILEGES, CAPABILITIES}),
    "a status of something else": (item("status", bytes(range(256))), {FILTER, PRIVILEGES, CAPABILITIES}),
    "nothing": (nothing, set(L2_PARTS)),
}
for kind, part in (
    ("mnt", "files.mount_namespace"),
    ("net", "network.namespace"),
    ("pid", "processes.pid_namespace"),
    ("ipc", "processes.ipc_namespace"),
    ("uts", "processes.uts_namespace"),
    ("user", USER),
):
    SABOTAGE[f"the host's {kind} namespace"] = (shared(f"ns/{kind}"), {part})
    SABOTAGE[f"no {kind} namespace"] = (item(f"ns/{kind}", None), {part})
    SABOTAGE[f"an empty {kind} namespace"] = (item(f"ns/{kind}", b""), {part})
    SABOTAGE[f"a {kind} namespace that can't be read"] = (unreadable(f"ns/{kind}"), {part})
    SABOTAGE[f"a host that does not know its {kind} namespace"] = (host_unknown(f"ns/{kind}"), {part})


def test_all_held_is_l2() -> None:
    held = judged(readback())
    assert held == dict.fromkeys(L2_PARTS, True)
    assert award(frozenset(held)) == "L2"


def test_what_holds_gives_no_reason_and_what_does_not_gives_one() -> None:
    for finding in judge(readback(), expected(), HOST):
        assert finding.why == ""
        assert finding.observed
    for finding in judge({}, expected(), HOST):
        assert finding.why
        assert not finding.held


@pytest.mark.parametrize("name", SABOTAGE)
def test_sabotage(name: str) -> None:
    change, lost = SABOTAGE[name]
    items, wanted, host = readback(), expected(), dict(HOST)
    change(items, wanted, host)
    findings = judge(items, wanted, host)
    held = held_parts(findings)
    assert set(L2_PARTS - held) == lost
    assert award(held) == ("L0" if lost & L1_PARTS else "L1")
    for finding in findings:
        assert finding.held or finding.why, finding.part


def test_every_part_is_sabotaged() -> None:
    assert set().union(*(lost for change, lost in SABOTAGE.values() if lost != L2_PARTS)) == set(L2_PARTS)


@pytest.mark.parametrize(
    "name",
    ["status", "uid_map", "gid_map", "sentinel.before", "sentinel.after", "filter/1"]
    + [name for name in HOST if name != "ns/cgroup"],
)
def test_each_item_is_needed(name: str) -> None:
    items = readback()
    del items[name]
    assert not all(judged(items).values())


# As a plain user, who may not read filters back.


def test_a_plain_users_readback_is_l2() -> None:
    assert all(judged(plain_readback()).values())


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (line("Seccomp_filters", "2"), True),
        (line("Seccomp_filters", "0"), False),
        (line("Seccomp_filters", "1"), False),
        (line("Seccomp_filters", "3"), False),
        # Before Linux 5.9 nobody counts.
        (line("Seccomp_filters", None), False),
        (line("Seccomp", "0"), False),
        (plans(default_deny=False), False),
    ],
)
def test_a_plain_users_filters_are_counted(change: Change, holds: bool) -> None:
    items, wanted = plain_readback(), expected()
    change(items, wanted, {})
    assert judged(items, wanted)[FILTER] is holds


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        # Without namespaces a plain user can't lower the bounding set, which gives nothing without new privileges.
        ([line("CapBnd", FULL_SET)], True),
        ([line("CapBnd", FULL_SET), line("NoNewPrivs", "0")], False),
        ([line("CapEff", "0000000000000400")], False),
        ([line("CapPrm", "0000000000000400")], False),
        ([line("CapInh", "0000000000000400")], False),
        ([line("CapAmb", "0000000000000400")], False),
        ([plans(keep_capabilities=1 << 10), line("CapEff", "0000000000000400")], False),
    ],
)
def test_in_the_hosts_user_namespace_no_capability_may_be_held(changes: list[Change], holds: bool) -> None:
    items, wanted = readback(), expected()
    both(shared("ns/user"), *changes)(items, wanted, dict(HOST))
    assert judged(items, wanted)[CAPABILITIES] is holds


@pytest.mark.parametrize(("mask", "holds"), [("0000000000000400", True), ("0000000000000000", True), (FULL_SET, False)])
def test_what_the_plan_keeps_may_be_held(mask: str, holds: bool) -> None:
    items, wanted = readback(), expected(keep_capabilities=1 << 10)
    both(*(line(name, mask) for name in SETS))(items, wanted, dict(HOST))
    assert judged(items, wanted)[CAPABILITIES] is holds


@pytest.mark.parametrize(
    ("row", "root", "holds"),
    [
        (b"1000 0 1\n", 0, False),
        # In a container root outside may be another id here, or none.
        (b"1000 0 1\n", None, True),
        (b"1000 0 1\n", 65534, True),
        (b"0 65534 1\n", 65534, False),
        (b"0 65000 1000\n", 65534, False),
        (b"0 65000 534\n", 65534, True),
        (b"0 65535 10\n", 65534, True),
    ],
)
def test_host_root_is_who_is_root_outside(row: bytes, root: int | None, holds: bool) -> None:
    for name in ("uid_map", "gid_map"):
        items = readback()
        items[name] = row
        assert judged(items, expected(host_root_id=root))[HOST_ROOT] is holds


@given(st.dictionaries(st.sampled_from(sorted({*readback(), "filter/2", "filter/0.errno"})), st.binary(max_size=40)))
def test_any_readback_is_judged(items: Items) -> None:
    held = judged(items)
    assert set(held) == L2_PARTS
    assert award(frozenset(part for part, holds in held.items() if holds)) == "L0"


@given(st.data())
def test_a_readback_cut_anywhere_proves_no_more(data: st.DataObject) -> None:
    """No value that was cut short makes anything hold that did not."""
    items = readback()
    nothing_holds = both(
        line("CapAmb", "0000000000200000"),
        line("NoNewPrivs", "0"),
        item("sentinel.before", number(13)),
        item("uid_map", b"0 0 100\n"),
        *(shared(name) for name in HOST),
    )
    nothing_holds(items, {}, dict(HOST))
    before = {part for part, holds in judged(items).items() if holds}
    name = data.draw(st.sampled_from(sorted(items)))
    items[name] = items[name][: data.draw(st.integers(0, len(items[name]) - 1))]
    after = {part for part, holds in judged(items).items() if holds}
    assert after <= before


# What must not count as held.


@pytest.mark.parametrize("abi", [1, 2])
def test_a_landlock_that_is_too_old_is_no_file_control(abi: int) -> None:
    assert not judged(readback(), expected(landlock_abi=abi))[MAC]


def test_an_empty_answer_of_the_sentinel_is_no_answer() -> None:
    items = readback()
    items["sentinel.before"] = b""
    assert not judged(items)[MAC]


def test_a_status_that_ends_within_a_set_is_not_read() -> None:
    items = readback()
    line("CapAmb", "0000000000000008")(items, {}, {})
    cut = items["status"].index(b"0000000000000008") + 16
    # The rest comes first, so that nothing but the last line is cut.
    head, rest = items["status"][:cut], items["status"][cut:]
    items["status"] = b"Name:\tx" + rest + head.partition(b"\n")[2]
    assert not judged(items)[CAPABILITIES]


def test_more_filters_than_were_read_are_not_the_plans() -> None:
    items = readback()
    line("Seccomp_filters", "3")(items, {}, {})
    items["filter/2.errno"] = number(13)
    assert not judged(items)[FILTER]


def test_without_the_hosts_user_namespace_nothing_is_known_of_capabilities() -> None:
    items, wanted = readback(), expected(keep_capabilities=1 << 10)
    line("CapEff", "0000000000000400")(items, wanted, {})
    host = {name: inode for name, inode in HOST.items() if name != "ns/user"}
    assert not judged(items, wanted, host)[CAPABILITIES]
