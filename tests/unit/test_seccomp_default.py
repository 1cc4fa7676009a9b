"""The preset `default`: what it lets through, what it doesn't, and that it is never looser than Docker's."""

from __future__ import annotations

import pytest
from seccomp_cases import U64, corpus_profile, edge_calls, expected, needs_corpus, returned

from immure.errors import ProfileError
from immure.policy.seccomp import (
    ABIS,
    Action,
    Call,
    check_profile,
    compare,
    compile_filter,
    constant_allow,
    evaluate,
    load_preset,
    numbers,
)
from immure.policy.seccomp.actions import describe

DEFAULT = load_preset("default")
PROGRAM = compile_filter(DEFAULT)
X86_64 = ABIS["x86_64"]
GARBAGE = 0xDEAD_BEEF_0000_0000

NEVER = """
    unshare setns mount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount
    fspick pivot_root chroot keyctl add_key request_key bpf perf_event_open io_uring_setup io_uring_enter
    io_uring_register userfaultfd open_by_handle_at kexec_load kexec_file_load init_module finit_module
    delete_module reboot swapon swapoff settimeofday clock_settime sethostname setdomainname syslog acct
    quotactl iopl ioperm kcmp process_madvise pidfd_getfd modify_ldt fanotify_init lookup_dcookie vhangup
    uselib ustat
"""


def ask(name: str, *args: int) -> str:
    call = Call("x86_64", numbers(X86_64)[name], args)
    value = returned(PROGRAM, call)
    assert value == expected(DEFAULT, call)
    return describe(value)


def test_it_has_no_findings() -> None:
    assert check_profile(DEFAULT) == ()


def test_every_rule_says_who_needs_it() -> None:
    assert all(rule.comment for rule in DEFAULT.rules)


@pytest.mark.parametrize("name", NEVER.split())
def test_never(name: str) -> None:
    assert {ask(name), ask(name, *(U64,) * 6), ask(name, 1, 1, 1, 1, 1, 1)} == {"ERRNO EPERM"}


# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
@pytest.mark.parametrize("flag", [1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)])
def test_no_namespace_by_clone(flag: int) -> None:
    assert ask("clone", flag | 17) == ask("clone", flag | 17 | GARBAGE) == "ERRNO EPERM"


def test_processes_and_threads_by_clone() -> None:
    fork, thread, vfork = 0x01200011, 0x003D0F00, 0x00004111
    assert {ask("clone", flags) for flags in (fork, thread, vfork)} == {"ALLOW"}
    assert ask("clone3", 0, 88) == "ERRNO ENOSYS"


@pytest.mark.parametrize("family", [1, 2, 10, 16])
def test_families_that_programs_need(family: int) -> None:
    assert ask("socket", family, 1) == ask("socket", family | GARBAGE, 1) == "ALLOW"


def test_all_other_families_are_refused_whatever_the_upper_half() -> None:
    for family in {*range(64), 0xFFFF_FFFF} - {1, 2, 10, 16}:
        assert ask("socket", family) == ask("socket", family | GARBAGE) == "ERRNO EPERM"


@pytest.mark.parametrize("request_number", [0x5412, 0x541C])
def test_no_typing_on_terminals(request_number: int) -> None:
    assert ask("ioctl", 0, request_number) == ask("ioctl", 0, request_number | GARBAGE) == "ERRNO EPERM"
    assert ask("ioctl", 0, request_number - 1) == ask("ioctl", 0, 0x5401) == "ALLOW"


def test_personalities() -> None:
    allowed = (0, 8, 0x20000, 0x20008, 0xFFFF_FFFF)
    assert {ask("personality", persona) for persona in allowed} == {"ALLOW"}
    refused = (0x0040000, 0x0400000, 0x20001, 7, 9, 1 << 32, U64)
    assert {ask("personality", persona) for persona in refused} == {"ERRNO EPERM"}


def test_debuggers_need_a_kernel_that_filters_what_they_change() -> None:
    trace = Call("x86_64", 101)
    assert evaluate(DEFAULT, trace, kernel=(4, 8)).action is Action.ALLOW
    assert evaluate(DEFAULT, trace, kernel=(4, 7)).action is Action.ERRNO


@pytest.mark.parametrize(("abi", "nr"), [("i386", 20), ("i386", 5), ("x32", 0x40000027), ("aarch64", 172)])
def test_other_abis_are_not_implemented(abi: str, nr: int) -> None:
    assert describe(returned(PROGRAM, Call(abi, nr))) == "ERRNO ENOSYS"


def test_calls_newer_than_the_profile_are_not_implemented() -> None:
    assert describe(returned(PROGRAM, Call("x86_64", 600))) == "ERRNO ENOSYS"
    assert ask("file_getattr") == ask("listns") == "ERRNO ENOSYS"


def test_every_unconditional_allow_is_in_the_kernels_bitmap() -> None:
    judged = {name for rule in DEFAULT.rules if rule.args for name in rule.calls}
    plain = {name for rule in DEFAULT.rules if rule.action is Action.ALLOW for name in rule.calls} - judged
    for name, nr in numbers(X86_64).items():
        cached = constant_allow(PROGRAM.instructions, nr, X86_64.audit)
        assert cached == (name in plain), name


def test_the_program_is_the_reference_on_every_call() -> None:
    for call in edge_calls(DEFAULT):
        assert returned(PROGRAM, call) == expected(DEFAULT, call), call


@needs_corpus
@pytest.mark.parametrize("capabilities", [frozenset(), frozenset({"CAP_SYS_PTRACE"})], ids=["none", "ptrace"])
def test_nothing_gets_a_looser_answer_than_from_moby(capabilities: frozenset[str]) -> None:
    """On every architecture, for every argument."""
    found = compare(corpus_profile("moby/default.json"), DEFAULT, capabilities=capabilities)
    assert [one for one in found.differences if one.kind == "looser"] == []
    assert len(found.differences) > 1000


def test_clone_makes_no_namespace_where_its_flags_are_the_second_argument() -> None:
    number = numbers(ABIS["s390x"])["clone"]
    for args, action in ((0, 0x4000_0000), Action.ERRNO), ((0x4000_0000, 17), Action.ALLOW):
        assert evaluate(DEFAULT, Call("s390x", number, args), arch="s390x").action is action


def test_it_compiles_for_aarch64() -> None:
    program = compile_filter(DEFAULT, arch="aarch64")
    table = numbers(ABIS["aarch64"])
    for name, outcome in {"openat": "ALLOW", "unshare": "ERRNO EPERM", "clone3": "ERRNO ENOSYS"}.items():
        assert describe(returned(program, Call("aarch64", table[name]))) == outcome


def test_there_are_no_other_presets() -> None:
    with pytest.raises(ProfileError, match="default"):
        load_preset("defualt")
