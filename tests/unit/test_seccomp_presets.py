"""The presets beside `default`: each denies by default, is nowhere looser, and lets through what it is for."""

from __future__ import annotations

import pytest
from seccomp_cases import U64, edge_calls, expected, returned

from immure.engine import cache as plan_cache
from immure.errors import ProfileError
from immure.policy.seccomp import (
    ABIS,
    MAX_INSTRUCTIONS,
    PRESETS,
    Action,
    Call,
    check_profile,
    compare,
    compile_filter,
    evaluate,
    guard_profile,
    load_preset,
    nearest_preset,
    numbers,
)
from immure.policy.seccomp.actions import describe, encode

OTHERS = [name for name in PRESETS if name != "default"]
NATIVE = ("x86_64", "aarch64", "riscv64", "s390x", "ppc64le", "loongarch64")
GARBAGE = 0xDEAD_BEEF_0000_0000
THREAD, FORK, VFORK = 0x003D0F00, 0x01200011, 0x00004111

NEVER = """
    unshare setns mount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount
    fspick pivot_root chroot keyctl add_key request_key bpf perf_event_open io_uring_setup io_uring_enter
    io_uring_register userfaultfd open_by_handle_at kexec_load kexec_file_load init_module finit_module
    delete_module reboot swapon swapoff settimeofday clock_settime sethostname setdomainname syslog acct
    quotactl process_madvise pidfd_getfd fanotify_init vhangup ptrace process_vm_readv process_vm_writev
    setuid setgid setreuid setgroups capset seccomp personality shmget mq_open
"""


def ask(preset: str, name: str, *args: int, arch: str = "x86_64") -> str:
    decision = evaluate(load_preset(preset), Call(arch, numbers(ABIS[arch])[name], args), arch=arch)
    return describe(encode(decision.action, decision.errno))


def refused(preset: str, names: str) -> set[str]:
    """Which of these calls the preset refuses, whatever is in their arguments, on either architecture."""
    return {
        name
        for name in names.split()
        if all(
            ask(preset, name, *args, arch=arch) in ("ERRNO EPERM", "ERRNO ENOSYS")
            for arch in ("x86_64", "aarch64")
            if name in numbers(ABIS[arch])
            for args in ((), (U64,) * 6, (1,) * 6)
        )
    }


def allowed(preset: str, names: str) -> set[str]:
    """Which of these calls the preset lets through with arguments of zero, wherever they are."""
    return {
        name
        for name in names.split()
        if all(ask(preset, name, arch=arch) == "ALLOW" for arch in ("x86_64", "aarch64") if name in numbers(ABIS[arch]))
    }


@pytest.mark.parametrize("name", PRESETS)
def test_they_load_and_deny_by_default(name: str) -> None:
    profile = load_preset(name)
    assert (profile.default_action, profile.default_data) == (Action.ERRNO, 1)
    assert profile.comment
    assert all(rule.comment for rule in profile.rules)


@pytest.mark.parametrize("name", PRESETS)
def test_they_have_no_findings(name: str) -> None:
    assert check_profile(load_preset(name)) == ()


def test_an_unknown_one_is_told_the_nearest() -> None:
    with pytest.raises(ProfileError, match="network-client") as caught:
        load_preset("netwrok-client")
    assert caught.value.hint == "did you mean the preset `network-client`?"
    assert nearest_preset("Python3") == "did you mean the preset `python`?"
    assert nearest_preset("xyz") is None


def test_the_cache_of_plans_looks_at_each() -> None:
    assert {f"/policy/seccomp/presets/{name}.json" for name in PRESETS} <= set(plan_cache._DECIDING)


# Never looser than `default`.


@pytest.mark.parametrize("preset", OTHERS)
def test_stricter_than_default_for_every_call_and_argument(preset: str) -> None:
    found = compare(load_preset("default"), load_preset(preset))
    assert found.relation == "stricter", [one for one in found.differences if one.kind == "looser"][:3]


# What none of them lets through.


@pytest.mark.parametrize("preset", OTHERS)
def test_never(preset: str) -> None:
    assert refused(preset, NEVER) == set(NEVER.split())


# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
@pytest.mark.parametrize("flag", [1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)])
@pytest.mark.parametrize("arch", NATIVE)
@pytest.mark.parametrize("preset", PRESETS)
def test_no_namespace_by_clone(preset: str, arch: str, flag: int) -> None:
    for flags in (flag, flag | FORK, flag | THREAD, flag | THREAD | GARBAGE):
        assert ask(preset, "clone", *clone_arguments(flags, arch), arch=arch) == "ERRNO EPERM"


def clone_arguments(flags: int, arch: str) -> tuple[int, int]:
    """clone(2): s390x has the stack first."""
    return (0x3FF_0000_0000, flags) if arch == "s390x" else (flags, 0x3FF_0000_0000)


@pytest.mark.parametrize("arch", NATIVE)
@pytest.mark.parametrize("preset", PRESETS)
def test_threads_and_processes_by_clone(preset: str, arch: str) -> None:
    thread, fork, vfork = (
        ask(preset, "clone", *clone_arguments(flags, arch), arch=arch) for flags in (THREAD, FORK, VFORK)
    )
    assert thread == "ALLOW"
    assert {fork, vfork} == ({"ERRNO EPERM"} if preset == "strict" else {"ALLOW"})
    assert ask(preset, "clone3", 0, 88, arch=arch) == "ERRNO ENOSYS"


@pytest.mark.parametrize(("abi", "nr"), [("i386", 20), ("i386", 5), ("x32", 0x40000027)])
@pytest.mark.parametrize("preset", OTHERS)
def test_other_abis_are_not_implemented(preset: str, abi: str, nr: int) -> None:
    assert describe(expected(load_preset(preset), Call(abi, nr))) == "ERRNO ENOSYS"


@pytest.mark.parametrize("request_number", [0x5412, 0x541C])
@pytest.mark.parametrize("preset", OTHERS)
def test_no_typing_on_terminals(preset: str, request_number: int) -> None:
    for number in (request_number, request_number | GARBAGE):
        assert ask(preset, "ioctl", 0, number) == "ERRNO EPERM"
    assert ask(preset, "ioctl", 0, 0x5401) == "ALLOW"


# What each compiles to.


@pytest.mark.parametrize("arch", NATIVE)
@pytest.mark.parametrize("preset", OTHERS)
def test_they_compile_alone_and_with_the_guard(preset: str, arch: str) -> None:
    for beside in (None, guard_profile()):
        program = compile_filter(load_preset(preset), arch=arch, beside=beside)
        assert len(program.instructions) <= MAX_INSTRUCTIONS


@pytest.mark.parametrize("preset", OTHERS)
def test_the_program_is_the_reference_on_every_call(preset: str) -> None:
    profile = load_preset(preset)
    program = compile_filter(profile)
    for call in edge_calls(profile, abis=("x86_64", "i386")):
        assert returned(program, call) == expected(profile, call), call


# strict

COMPUTES = """
    read write openat fstat newfstatat lseek mmap munmap mprotect brk futex rt_sigaction rt_sigprocmask clock_gettime
    clock_nanosleep getrandom execve exit_group sched_getaffinity getdents64 pipe2 epoll_create1 eventfd2 rseq
    set_robust_list set_tid_address prlimit64 getcwd readlinkat faccessat2 statx close dup3 fcntl sigaltstack
"""
NO_COMPUTING = """
    fork vfork execveat kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal pidfd_open wait4 waitid
    setsid setpgid socket socketpair connect bind listen accept accept4 sendto recvfrom sendmsg recvmsg setsockopt
    chmod fchmod fchmodat fchmodat2 chown fchown fchownat lchown link linkat symlink symlinkat mknod mknodat rename
    renameat renameat2 unlink unlinkat rmdir mkdir mkdirat truncate utimensat setxattr sched_setaffinity setpriority
    inotify_init1 memfd_create splice vmsplice tee io_setup landlock_create_ruleset
"""


def test_strict_computes_and_does_nothing_else() -> None:
    assert allowed("strict", COMPUTES) == set(COMPUTES.split())
    assert refused("strict", NO_COMPUTING) == set(NO_COMPUTING.split())


def test_strict_has_no_other_way_to_signal() -> None:
    for command, outcome in {8: "ERRNO EPERM", 15: "ERRNO EPERM", 1: "ALLOW", 4: "ALLOW", 38: "ALLOW"}.items():
        assert ask("strict", "fcntl", 0, command) == ask("strict", "fcntl", 0, command | GARBAGE) == outcome
    for request, outcome in {0x5413: "ALLOW", 0x5451: "ALLOW", 0x5410: "ERRNO EPERM", 0x8901: "ERRNO EPERM"}.items():
        assert ask("strict", "ioctl", 0, request) == outcome


def test_strict_changes_nothing_of_other_processes() -> None:
    assert ask("strict", "prlimit64", 0, 3) == ask("strict", "prlimit64", GARBAGE, 3) == "ALLOW"
    assert ask("strict", "prlimit64", 1, 3) == ask("strict", "prlimit64", U64, 3) == "ERRNO EPERM"
    names, tracer, memory = 15, 0x59616D61, 35
    assert ask("strict", "prctl", names) == "ALLOW"
    assert {ask("strict", "prctl", option) for option in (tracer, memory, 22, 1)} == {"ERRNO EPERM"}


# python, node, build, network-client

SERVERS = "listen accept accept4"
PROCESSES = (
    "execve wait4 waitid kill tgkill setsid setpgid pidfd_open pipe2 dup2 memfd_create flock rename unlinkat chmod"
)
LIBUV = """
    epoll_create1 epoll_ctl epoll_pwait eventfd2 pipe2 dup3 accept4 bind connect listen getpeername getsockname
    getsockopt setsockopt sendmsg recvmsg sendmmsg recvmmsg shutdown socketpair read readv pread64 preadv write writev
    pwrite64 pwritev openat close close_range fstat newfstatat statx fsync fdatasync ftruncate fchmod fchmodat
    utimensat futimesat unlinkat renameat mkdirat rmdir symlinkat linkat readlinkat getdents64 statfs copy_file_range
    sendfile inotify_init1 inotify_add_watch inotify_rm_watch futex madvise mmap mprotect munmap membarrier pkey_alloc
    pkey_mprotect pkey_free getrandom clock_gettime sched_getaffinity sched_yield getpriority setpriority kill wait4
    waitid execve setsid getrusage sysinfo uname prctl prlimit64 rt_sigaction rt_sigprocmask capget timerfd_create
"""


@pytest.mark.parametrize("preset", ["python", "node", "build", "network-client"])
def test_processes(preset: str) -> None:
    assert allowed(preset, PROCESSES) == set(PROCESSES.split())


def test_node_has_what_libuv_and_v8_call() -> None:
    assert allowed("node", LIBUV) == set(LIBUV.split())


def test_build_has_links_owners_and_queues() -> None:
    wanted = "link linkat symlinkat fchown fchownat semget semop msgget setpriority ioprio_set sched_setscheduler"
    assert allowed("build", wanted) == set(wanted.split())


def test_build_sets_the_effective_id_alone() -> None:
    """What make's posix_spawn() does."""
    keep = 0xFFFF_FFFF
    for call in ("setresuid", "setresgid"):
        assert ask("build", call, keep, 1000, keep) == ask("build", call, U64, 1000, U64) == "ALLOW"
        for ids in ((1000, 1000, keep), (keep, 1000, 1000), (1000, 1000, 1000)):
            assert ask("build", call, *ids) == "ERRNO EPERM"
        assert ask("python", call, keep, 1000, keep) == "ERRNO EPERM"


@pytest.mark.parametrize("preset", ["python", "node", "build"])
def test_fifos_are_the_only_nodes(preset: str) -> None:
    for kind, outcome in {
        0o010000: "ALLOW",
        0o020000: "ERRNO EPERM",
        0o060000: "ERRNO EPERM",
        0: "ERRNO EPERM",
    }.items():
        assert ask(preset, "mknod", 0, kind | 0o644) == ask(preset, "mknodat", 0, 0, kind | 0o644) == outcome


UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
STREAM, DATAGRAM, RAW = 1, 2, 3
FLAGS = 0o2004000
"""SOCK_CLOEXEC | SOCK_NONBLOCK"""


@pytest.mark.parametrize(
    ("preset", "families"),
    [
        ("python", {UNIX, INET, INET6, NETLINK}),
        ("node", {UNIX, INET, INET6, NETLINK}),
        ("build", {UNIX}),
        ("network-client", {UNIX, INET, INET6, NETLINK}),
        ("strict", set()),
    ],
)
def test_families_of_sockets(preset: str, families: set[int]) -> None:
    made = {one for one in {*range(64), 0xFFFF_FFFF} if ask(preset, "socket", one, STREAM) == "ALLOW"}
    assert made == families
    assert {one for one in range(64) if ask(preset, "socket", one | GARBAGE, STREAM) == "ALLOW"} == families


@pytest.mark.parametrize("preset", ["python", "node", "network-client"])
def test_netlink_is_for_routes_alone(preset: str) -> None:
    assert ask(preset, "socket", NETLINK, RAW | FLAGS, 0) == "ALLOW"
    assert {ask(preset, "socket", NETLINK, RAW, protocol) for protocol in range(1, 32)} == {"ERRNO EPERM"}


def test_servers_are_for_all_but_clients() -> None:
    for preset in ("python", "node", "build"):
        assert allowed(preset, SERVERS) == set(SERVERS.split())
    assert refused("network-client", SERVERS) == set(SERVERS.split())
    wanted = "connect bind sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg getsockopt setsockopt poll epoll_pwait"
    assert allowed("network-client", wanted) == set(wanted.split())


@pytest.mark.parametrize("inet", [INET, INET6])
def test_clients_speak_tcp_and_udp(inet: int) -> None:
    spoken = {
        (kind, protocol)
        for kind in range(1, 11)
        for protocol in (*range(256), 262, 0xFFFF_FFFF)
        if ask("network-client", "socket", inet, kind, protocol) == "ALLOW"
    }
    assert spoken == {(STREAM, 0), (STREAM, 6), (DATAGRAM, 0), (DATAGRAM, 17)}
    assert ask("network-client", "socket", inet, STREAM | FLAGS, 6) == "ALLOW"
    assert ask("network-client", "socket", inet, RAW | FLAGS, 6) == "ERRNO EPERM"
