"""Units of systemd: what the lines say, that they are never looser than the profile, and what is refused.

`Reading` is what systemd.exec(5) says that systemd makes of such lines, written down apart from the code.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seccomp_cases import CORPUS, U64, corpus_profile, needs_corpus, profiles

from immure.errors import ProfileError
from immure.policy.seccomp import (
    ABIS,
    Action,
    Architecture,
    Arg,
    Call,
    Flag,
    Operator,
    Profile,
    Rule,
    evaluate,
    name_of,
    numbers,
)
from immure.policy.seccomp.formats import SystemdUnit, read_any, to_systemd

KERNEL = (6, 1)
ARCHES = {"x86-64": "x86_64", "x86": "i386", "x32": "x32", "arm64": "aarch64", "arm": "arm", "s390x": "s390x"}
# Some of the calls that an allow list begins with.
IMPLICIT = {"execve", "exit", "exit_group", "brk", "futex", "mmap", "nanosleep", "getpid", "rt_sigreturn", "getrandom"}
# The most restrictive first: seccomp(2).
ORDER = ("KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "NOTIFY", "TRACE", "LOG", "ALLOW")


class Reading:
    """The lines of a unit, taken in one after another."""

    def __init__(self, unit: SystemdUnit) -> None:
        self.arches: set[str] = set()
        self.error = "kill"
        self.allows: bool | None = None
        self.listed: dict[str, str | None] = {}
        self.logs_listed: bool | None = None
        self.logged: set[str] = set()
        for line in unit.lines:
            key, _, value = line.partition("=")
            getattr(self, key)(value)

    def SystemCallArchitectures(self, value: str) -> None:
        self.arches = self.arches | {ARCHES[word] for word in value.split()} if value else set()

    def SystemCallErrorNumber(self, value: str) -> None:
        self.error = value

    def SystemCallLog(self, value: str) -> None:
        if not value:
            self.logs_listed, self.logged = None, set()
            return
        if self.logs_listed is None:
            self.logs_listed = not value.startswith("~")
        self.logged |= set(value.removeprefix("~").split())

    def SystemCallFilter(self, value: str) -> None:
        if not value:
            self.allows, self.listed = None, {}
            return
        denies = value.startswith("~")
        if self.allows is None:
            self.allows = not denies
            if self.allows:
                self.listed = dict.fromkeys(IMPLICIT)
        for word in value.removeprefix("~").split():
            name, _, error = word.partition(":")
            for one in IMPLICIT if name == "@default" else {name}:
                if denies is not self.allows or error:
                    self.listed[one] = error or None
                else:
                    self.listed.pop(one, None)

    def decide(self, abi: str, nr: int) -> tuple[str, int | None]:
        name = name_of(ABIS[abi], nr)
        if abi not in self.arches:
            return "KILL_PROCESS", None
        is_listed = name in self.listed
        error = self.listed.get(name or "")
        if (error is None and is_listed is (self.allows is not False)) or self.allows is None:
            return (
                "LOG" if self.logs_listed is not None and (name in self.logged) is self.logs_listed else "ALLOW"
            ), None
        word = error or self.error
        if word == "kill":
            return "KILL_PROCESS", None
        return "ERRNO", int(word) if word.isdigit() else getattr(errno, word)


def unit_of(profile: Profile, arch: str = "x86_64", *, best_effort: bool = False) -> SystemdUnit:
    return to_systemd(profile, arch=arch, capabilities=frozenset(), kernel=KERNEL, best_effort=best_effort)


def check_never_looser(profile: Profile, unit: SystemdUnit, arch: str = "x86_64") -> None:
    reading = Reading(unit)
    for abi in {"x86_64": ("x86_64", "i386", "x32"), "aarch64": ("aarch64", "arm"), "s390x": ("s390x",)}[arch]:
        first = ABIS[abi].first
        for nr in (*range(first, first + 700), *numbers(ABIS[abi]).values()):
            got = ORDER.index(reading.decide(abi, nr)[0])
            for args in ((0,) * 6, (1,) * 6, (U64,) * 6, (0x7E02_0000,) * 6, (40, 0, 0, 0, 0, 0)):
                wanted = evaluate(profile, Call(abi, nr, args), arch=arch, kernel=KERNEL)
                assert got <= ORDER.index(wanted.action.name), (abi, nr, args, wanted)


def check_equal(profile: Profile, unit: SystemdUnit, abis: tuple[str, ...] = ("x86_64",)) -> None:
    """For calls that aren't newer than the profile."""
    reading = Reading(unit)
    for abi in abis:
        for nr in numbers(ABIS[abi]).values():
            wanted = evaluate(profile, Call(abi, nr, (0,) * 6), kernel=KERNEL)
            if wanted.reason != "newer than the profile":
                assert reading.decide(abi, nr) == (wanted.action.name, wanted.errno), (abi, nr)


def rule(action: Action, *names: str, errno_ret: int | None = None, args: tuple[Arg, ...] | None = None) -> Rule:
    return Rule(action=action, names=names, errno_ret=errno_ret, args=args)


BASIC = rule(Action.ALLOW, "write", "execve", "read")
ONE = (Arg(index=0, value=1, op=Operator.EQ),)


def test_an_allow_list_takes_the_implicit_calls_out_first() -> None:
    profile = Profile(
        default_action=Action.ERRNO,
        syscalls=(
            BASIC,
            rule(Action.LOG, "openat"),
            rule(Action.ERRNO, "clone3", errno_ret=38),
            rule(Action.ERRNO, "acct", errno_ret=95),
            rule(Action.KILL_PROCESS, "ptrace"),
            rule(Action.ERRNO, "mount"),
        ),
    )
    unit = unit_of(profile)
    assert unit.text == "\n".join(
        [
            "[Service]",
            "SystemCallArchitectures=",
            "SystemCallArchitectures=x86-64",
            "SystemCallFilter=",
            "SystemCallErrorNumber=EPERM",
            "SystemCallFilter=@default",
            "SystemCallFilter=~@default",
            "SystemCallFilter=execve openat read write",
            "SystemCallFilter=~acct:95 clone3:ENOSYS ptrace:kill",
            "SystemCallLog=",
            "SystemCallLog=openat",
            "",
        ]
    )
    check_equal(profile, unit)
    check_never_looser(profile, unit)
    assert [finding.code for finding in unit.findings] == ["systemd-newer-calls"]


def test_a_deny_list() -> None:
    profile = Profile(
        default_action=Action.ALLOW,
        architectures=(Architecture.X86,),
        syscalls=(
            rule(Action.ERRNO, "mount", "vm86"),
            rule(Action.KILL_PROCESS, "ptrace"),
            rule(Action.ERRNO, "acct", errno_ret=0),
            rule(Action.ALLOW, "ptrace", "read"),
        ),
    )
    unit = unit_of(profile)
    assert unit.lines == (
        "SystemCallArchitectures=",
        "SystemCallArchitectures=x86-64 x86",
        "SystemCallFilter=",
        "SystemCallFilter=~acct:0 mount:EPERM ptrace:kill vm86:EPERM",
        "SystemCallLog=",
    )
    check_equal(profile, unit, ("x86_64", "i386"))
    check_never_looser(profile, unit)
    assert [finding.code for finding in unit.findings] == ["systemd-deny-list"]


def test_a_default_of_log_logs_all_but_what_is_allowed() -> None:
    profile = Profile(
        default_action=Action.LOG, syscalls=(rule(Action.ALLOW, "read", "futex"), rule(Action.ERRNO, "bpf"))
    )
    unit = unit_of(profile)
    assert unit.lines[-3:] == ("SystemCallFilter=~bpf:EPERM", "SystemCallLog=", "SystemCallLog=~futex read")
    check_equal(profile, unit)


def test_a_default_of_log_alone_needs_an_exception_that_never_happens() -> None:
    unit = unit_of(Profile(default_action=Action.LOG))
    exception = unit.lines[-1].removeprefix("SystemCallLog=~")
    assert exception not in numbers(ABIS["x86_64"])
    check_equal(Profile(default_action=Action.LOG), unit)


def test_a_default_of_kill() -> None:
    profile = Profile(default_action=Action.KILL_PROCESS, syscalls=(BASIC,))
    unit = unit_of(profile)
    assert "SystemCallErrorNumber=kill" in unit.lines
    check_equal(profile, unit)


def test_conditions_that_change_nothing_are_no_hindrance() -> None:
    profile = Profile(
        default_action=Action.ERRNO,
        syscalls=(BASIC, rule(Action.ALLOW, "read", args=ONE), rule(Action.ERRNO, "bpf", args=ONE)),
    )
    check_equal(profile, unit_of(profile))


def test_a_unit_that_can_not_start_is_told() -> None:
    findings = unit_of(Profile(default_action=Action.ERRNO, syscalls=(rule(Action.ALLOW, "write"),))).findings
    assert ("systemd-no-start", "$.defaultAction") in {(finding.code, finding.where) for finding in findings}


CANNOT: Mapping[str, tuple[Profile, str, str, str, str]] = {
    "arguments in an allow list": (
        Profile(default_action=Action.ERRNO, syscalls=(BASIC, rule(Action.ALLOW, "socket", args=ONE))),
        "$.syscalls[1].args",
        "socket depends on its arguments",
        "socket",
        "ERRNO",
    ),
    "arguments in a deny list": (
        Profile(default_action=Action.ALLOW, syscalls=(rule(Action.KILL_PROCESS, "socket", args=ONE),)),
        "$.syscalls[0].args",
        "socket depends on its arguments",
        "socket",
        "KILL_PROCESS",
    ),
    "a thread to kill": (
        Profile(default_action=Action.ALLOW, syscalls=(rule(Action.KILL, "bpf"),)),
        "$.syscalls[0].action",
        "SCMP_ACT_KILL_THREAD",
        "bpf",
        "KILL_PROCESS",
    ),
    "a trap": (
        Profile(default_action=Action.TRAP, syscalls=(BASIC,)),
        "$.defaultAction",
        "SCMP_ACT_TRAP",
        "bpf",
        "KILL_PROCESS",
    ),
    "a tracer": (
        Profile(default_action=Action.ALLOW, syscalls=(rule(Action.TRACE, "bpf"),)),
        "$.syscalls[0].action",
        "SCMP_ACT_TRACE",
        "bpf",
        "ERRNO",
    ),
    "a listener": (
        Profile(default_action=Action.ALLOW, syscalls=(rule(Action.NOTIFY, "bpf"),)),
        "$.syscalls[0].action",
        "SCMP_ACT_NOTIFY",
        "bpf",
        "ERRNO",
    ),
    "a listener's path": (
        Profile(default_action=Action.ALLOW, listener_path="/run/a"),
        "$.listenerPath",
        "no listeners",
        "bpf",
        "ALLOW",
    ),
    "a default that seems to succeed": (
        Profile(default_action=Action.ERRNO, default_errno_ret=0, syscalls=(BASIC,)),
        "$.defaultErrnoRet",
        "seem to succeed",
        "bpf",
        "ERRNO",
    ),
    "a flag": (
        Profile(default_action=Action.ALLOW, flags=(Flag.TSYNC, Flag.SPEC_ALLOW)),
        "$.flags[1]",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "bpf",
        "ALLOW",
    ),
    "a call behind one that is denied": (
        Profile(
            default_action=Action.ERRNO,
            architectures=(Architecture.X86,),
            syscalls=(BASIC, rule(Action.ALLOW, "connect")),
        ),
        "$.syscalls[1]",
        "also opens socketcall",
        "connect",
        "ERRNO",
    ),
}


@pytest.mark.parametrize(("profile", "path", "says", "call", "action"), CANNOT.values(), ids=CANNOT)
def test_what_systemd_can_not_say(profile: Profile, path: str, says: str, call: str, action: str) -> None:
    with pytest.raises(ProfileError) as caught:
        unit_of(profile)
    assert caught.value.path == path
    assert says in str(caught.value)
    unit = unit_of(profile, best_effort=True)
    assert Reading(unit).decide("x86_64", numbers(ABIS["x86_64"])[call])[0] == action
    assert any(finding.where == path and says in finding.message for finding in unit.findings)


@pytest.mark.parametrize("best_effort", [False, True])
@pytest.mark.parametrize(
    ("syscalls", "path"),
    [((), "$.defaultAction"), ((rule(Action.ERRNO, "write"),), "$.syscalls[0]")],
)
def test_a_profile_without_write_is_refused(syscalls: tuple[Rule, ...], path: str, best_effort: bool) -> None:
    with pytest.raises(ProfileError, match="always lets write through") as caught:
        unit_of(Profile(default_action=Action.ERRNO, syscalls=syscalls), best_effort=best_effort)
    assert caught.value.path == path


@given(profiles(), st.sampled_from(["x86_64", "aarch64", "s390x"]))
@settings(max_examples=25, deadline=None)
def test_random_profiles_are_never_looser(profile: Profile, arch: str) -> None:
    profile = msgspec.structs.replace(profile, syscalls=(*profile.rules, rule(Action.ALLOW, "write")))
    check_never_looser(profile, unit_of(profile, arch, best_effort=True), arch)


@needs_corpus
@pytest.mark.parametrize(
    "name",
    [
        "moby/default.json",
        "moby/fixture-default-old-format.json",
        "containers-common/seccomp.json",
        "runc/seccomp_syscall_test2.json",
        "spo/security-profiles-operator.json",
    ],
)
def test_corpus_profiles_are_never_looser(name: str) -> None:
    profile = corpus_profile(name)
    check_never_looser(profile, unit_of(profile, best_effort=True))


@needs_corpus
@pytest.mark.parametrize("name", ["spo/baseprofile-crun.yaml", "spo/baseprofile-runc.yaml"])
def test_profiles_without_conditions_need_no_best_effort(name: str) -> None:
    profile = read_any((Path(CORPUS or "") / name).read_bytes(), name=name, bases={})
    check_equal(profile, unit_of(profile))
