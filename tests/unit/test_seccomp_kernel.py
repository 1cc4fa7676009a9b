"""The kernel agrees: filters installed in a child process, and calls made under them.

For calls of any kind the returns of a program are first replaced by errors of our own, so that no call is carried out
and the error says which return the kernel came to.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import random
import signal
import struct
from collections.abc import Callable, Sequence

import pytest
from seccomp_cases import CORPUS, corpus_profile, edge_calls, expected

from immure.policy.seccomp import (
    ABIS,
    Action,
    Arg,
    Call,
    Instruction,
    Operator,
    Profile,
    Rule,
    compile_filter,
    guard_profile,
    load_preset,
    numbers,
)
from immure.policy.seccomp.bpf import pack

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux", reason="makes calls of x86_64"
)

LIBC = ctypes.CDLL(None, use_errno=True)
NR = dict(numbers(ABIS["x86_64"]))
RETURN, FIRST_ERROR = 0x06, 2000


def install(program: bytes) -> None:
    """PR_SET_NO_NEW_PRIVS, then SECCOMP_SET_MODE_FILTER."""

    class SockFprog(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    given = SockFprog(len(program) // 8, program)
    if LIBC.prctl(38, 1, 0, 0, 0) or LIBC.syscall(NR["seccomp"], 1, 0, ctypes.byref(given)):
        raise OSError(ctypes.get_errno(), "seccomp")


def syscall(nr: int, *args: int) -> int:
    """The errno of a call, or 0."""
    wide = [ctypes.c_ulong(one) for one in args]
    return ctypes.get_errno() if LIBC.syscall(ctypes.c_ulong(nr), *wide) == -1 else 0


def in_child(results: int, work: Callable[[], Sequence[int]]) -> list[int]:
    """What `work` returns in a child process. It comes back in shared memory, since the child may be unable to write."""
    shared = mmap.mmap(-1, 4 * results)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            struct.pack_into(f"{results}i", shared, 0, *work())
            status = 0
        finally:
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if ended == -signal.SIGSEGV:
        pytest.skip("this kernel has no 32-bit calls")
    assert ended == 0
    return list(struct.unpack_from(f"{results}i", shared, 0))


def harmless(instructions: Sequence[Instruction]) -> tuple[bytes, dict[int, int]]:
    """The program with an error in place of each return value, and what each error stands for.

    Before it stands a way out for exit_group, with which the child ends.
    """
    values = sorted({one.k for one in instructions if one.code == RETURN})
    errors = {value: FIRST_ERROR + index for index, value in enumerate(values)}
    ending = [(0x20, 0, 0, 4), (0x15, 0, 3, ABIS["x86_64"].audit)]
    ending += [(0x20, 0, 0, 0), (0x15, 0, 1, NR["exit_group"]), (RETURN, 0, 0, 0x7FFF_0000)]
    replaced = [one._replace(k=0x5_0000 | errors[one.k]) if one.code == RETURN else one for one in instructions]
    return pack([*(Instruction(*one) for one in ending), *replaced]), {error: value for value, error in errors.items()}


def kernel_returns(profile: Profile, calls: Sequence[Call], make: Callable[..., int]) -> list[int]:
    program, meaning = harmless(compile_filter(profile).instructions)

    def work() -> list[int]:
        install(program)
        return [make(call.nr, *call.args) for call in calls]

    return [meaning[error] for error in in_child(len(calls), work)]


def random_profile(seed: int) -> Profile:
    chosen = random.Random(seed)

    def value() -> int:
        return chosen.choice([chosen.getrandbits(64), chosen.getrandbits(3), 1 << 32, 2**64 - 1, 0xFFFF_FFFF])

    def rule() -> Rule:
        args = [
            Arg(index=chosen.randrange(6), value=value(), value_two=value(), op=chosen.choice(list(Operator)))
            for _ in range(chosen.randrange(4))
        ]
        action = chosen.choice([Action.ALLOW, Action.KILL, Action.TRAP, Action.LOG, Action.ERRNO])
        return Rule(action=action, names=tuple(chosen.sample(sorted(NR), 3)), args=tuple(args))

    return Profile(default_action=chosen.choice(list(Action)[:-1]), syscalls=tuple(rule() for _ in range(40)))


PROFILES = {
    "default": load_preset("default"),
    "guard": guard_profile(),
    **{f"random {seed}": random_profile(seed) for seed in range(5)},
    **({"moby": corpus_profile("moby/default.json")} if CORPUS else {}),
}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_the_kernel_comes_to_the_same_return(profile: Profile) -> None:
    calls = [
        Call(call.arch, call.nr, (*call.args, *[0] * (6 - len(call.args))))
        for call in edge_calls(profile, abis=("x86_64", "x32"))
        # glibc's syscall() can make any of them; exit_group is how the child ends.
        if call.nr != NR["exit_group"]
    ]
    assert kernel_returns(profile, calls, syscall) == [expected(profile, call) for call in calls]


def int80() -> Callable[..., int]:
    """A function that makes a call of i386: number and five arguments, from where the C ABI puts them."""
    code = bytes.fromhex("53 55 89f8 89f3 87d1 4489c6 4489cf 31ed cd80 5d 5b c3")
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    entered = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 6)(address)
    return lambda nr, *args: -entered(nr, *args[:5])


@pytest.mark.parametrize("name", ["guard", *(["moby"] if CORPUS else [])])
def test_the_kernel_comes_to_the_same_return_for_i386(name: str) -> None:
    profile = PROFILES[name]
    calls = [
        Call("i386", call.nr, (*(arg & 0xFFFF_FFFF for arg in (*call.args, *[0] * 5)[:5]), 0))
        for call in edge_calls(profile, abis=("i386",))
    ]
    assert kernel_returns(profile, calls, int80()) == [expected(profile, call) for call in calls]


def test_real_calls_under_default_and_guard(tmp_path: object) -> None:
    filters = [compile_filter(guard_profile()).to_bytes(), compile_filter(load_preset("default")).to_bytes()]
    path = ctypes.c_char_p(f"{tmp_path}/file".encode())
    where = ctypes.cast(path, ctypes.c_void_p).value or 0
    at_cwd = 2**64 - 100
    calls: dict[str, tuple[int, tuple[int, ...], int]] = {
        "getpid": (NR["getpid"], (), 0),
        "make a file": (NR["openat"], (at_cwd, where, os.O_CREAT | os.O_WRONLY, 0o600), 0),
        "its mode": (NR["chmod"], (where, 0o755), 0),
        "make it setuid": (NR["chmod"], (where, 0o4755), errno.EPERM),
        "make a setuid file": (NR["openat"], (at_cwd, where, os.O_CREAT, 0o4755), errno.EPERM),
        "make a setgid file": (NR["creat"], (where, 0o2755), errno.EPERM),
        "chmod by the new call": (NR["fchmodat2"], (at_cwd, where, 0o755, 0), errno.ENOSYS),
        "open by the new call": (NR["openat2"], (at_cwd, where, 0, 0), errno.ENOSYS),
        "io_uring": (NR["io_uring_setup"], (1, 0), errno.ENOSYS),
        "user namespace": (NR["unshare"], (0x1000_0000,), errno.EPERM),
        "user namespace by clone": (NR["clone"], (0x1000_0011, 0), errno.EPERM),
        "clone3": (NR["clone3"], (0, 0), errno.ENOSYS),
        "TCP": (NR["socket"], (2, 1, 0), 0),
        "vsock": (NR["socket"], (40, 1, 0), errno.EPERM),
        "vsock in disguise": (NR["socket"], (1 << 32 | 40, 1, 0), errno.EPERM),
        "type on a terminal": (NR["ioctl"], (0, 0x5412, 0), errno.EPERM),
        "keyring": (NR["keyctl"], (0,), errno.EPERM),
        "x32 getpid": (0x4000_0000 | NR["getpid"], (), errno.ENOSYS),
        "a call that no kernel has": (4000, (), errno.ENOSYS),
    }

    def work() -> list[int]:
        for program in filters:
            install(program)
        return [syscall(nr, *args) for nr, args, _ in calls.values()]

    found = in_child(len(calls), work)
    assert dict(zip(calls, found, strict=True)) == {name: wanted for name, (_, _, wanted) in calls.items()}


def test_i386_is_not_implemented_under_default() -> None:
    program = compile_filter(load_preset("default")).to_bytes()

    def work() -> list[int]:
        install(program)
        return [int80_call(20)]

    int80_call = int80()
    assert in_child(1, work) == [errno.ENOSYS]
