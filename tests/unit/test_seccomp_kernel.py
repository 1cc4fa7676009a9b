"""The kernel agrees: filters installed in a child process, and calls made under them.

For calls of any kind the returns of a program are first replaced by errors of our own, so that no call is carried out
and the error says which return the kernel came to. Only calls made from a page of machine code of our own are judged:
Python itself must go on.
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
from collections.abc import Sequence
from pathlib import Path

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
from immure.policy.seccomp.bpf import AND, JEQ, LOAD, RET, pack

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux", reason="makes calls of x86_64"
)

LIBC = ctypes.CDLL(None, use_errno=True)
NR = numbers(ABIS["x86_64"])
FIRST_ERROR = 2000
# From Linux 6.14 on no filter is asked about them, and outside of the kernel's own trampoline they end the caller.
UNFILTERED = {NR["uretprobe"], NR["uprobe"]}

# Number and arguments go from where C puts them to where the kernel looks for them.
SYSCALL = bytes.fromhex("4889f8 4889f7 4889d6 4889ca 4d89c2 4d89c8 4c8b4c2408 0f05 c3")
INT_80 = bytes.fromhex("53 55 89f8 89f3 87d1 4489c6 4489cf 31ed cd80 5d 5b c3")


class Page:
    """Machine code that makes system calls, at an address that a filter can know."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(SYSCALL + INT_80)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        long_call = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_ulong] * 7)
        self._long = long_call(self.address)
        self._short = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 6)(self.address + len(SYSCALL))

    def call(self, call: Call) -> int:
        """The error that a call gives, or 0. Those of i386 have five arguments here."""
        args = (*call.args, *[0] * 6)[:6]
        returned = self._short(call.nr, *args[:5]) if call.arch == "i386" else self._long(call.nr, *args)
        return -returned if -4096 < returned < 0 else 0


PAGE = Page()


def install(program: bytes) -> None:
    """PR_SET_NO_NEW_PRIVS, then SECCOMP_SET_MODE_FILTER."""

    class SockFprog(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    given = SockFprog(len(program) // 8, program)
    if LIBC.prctl(38, 1, 0, 0, 0) or LIBC.syscall(NR["seccomp"], 1, 0, ctypes.byref(given)):
        raise OSError(ctypes.get_errno(), "seccomp")


def in_child(programs: Sequence[bytes], calls: Sequence[Call]) -> list[int]:
    """The errors of `calls`, made in a child process under `programs`."""
    shared = mmap.mmap(-1, 4 * len(calls))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for program in programs:
                install(program)
            for position, call in enumerate(calls):
                struct.pack_into("i", shared, 4 * position, PAGE.call(call))
            status = 0
        finally:
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if ended == -signal.SIGSEGV and any(call.arch == "i386" for call in calls):
        pytest.skip("host: this kernel has no 32-bit calls")
    assert ended == 0
    return list(struct.unpack_from(f"{len(calls)}i", shared, 0))


def harmless(instructions: Sequence[Instruction]) -> tuple[bytes, dict[int, int]]:
    """The program with an error in place of each return value, and what each error stands for."""
    values = sorted({one.k for one in instructions if one.code == RET})
    errors = {value: FIRST_ERROR + index for index, value in enumerate(values)}
    from_page = [
        (LOAD, 0, 0, 12),
        (JEQ, 0, 3, PAGE.address >> 32),
        (LOAD, 0, 0, 8),
        (AND, 0, 0, 0xFFFF_F000),
        (JEQ, 1, 0, PAGE.address & 0xFFFF_F000),
        (RET, 0, 0, 0x7FFF_0000),
    ]
    replaced = [one._replace(k=0x5_0000 | errors[one.k]) if one.code == RET else one for one in instructions]
    meaning = {error: value for value, error in errors.items()}
    return pack([*(Instruction(*one) for one in from_page), *replaced]), meaning


def kernel_returns(profile: Profile, calls: Sequence[Call]) -> list[int]:
    """The return values that the kernel comes to under the compiled profile."""
    program, meaning = harmless(compile_filter(profile).instructions)
    return [meaning[error] for error in in_child([program], calls)]


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
    calls = [call for call in edge_calls(profile, abis=("x86_64", "x32")) if call.nr not in UNFILTERED]
    assert kernel_returns(profile, calls) == [expected(profile, call) for call in calls]


@pytest.mark.parametrize("name", ["guard", *(["moby"] if CORPUS else [])])
def test_the_kernel_comes_to_the_same_return_for_i386(name: str) -> None:
    profile = PROFILES[name]
    calls = [
        Call("i386", call.nr, tuple(arg & 0xFFFF_FFFF for arg in call.args[:5]))
        for call in edge_calls(profile, abis=("i386",))
    ]
    assert kernel_returns(profile, calls) == [expected(profile, call) for call in calls]


DEFAULT = compile_filter(load_preset("default")).to_bytes()
GUARD = compile_filter(guard_profile()).to_bytes()


def test_real_calls_under_default_and_guard(tmp_path: Path) -> None:
    path = ctypes.create_string_buffer(f"{tmp_path}/file".encode())
    where, at_cwd = ctypes.addressof(path), 2**64 - 100
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
    made = [Call("x86_64", nr, args) for nr, args, _ in calls.values()]
    # Of filters that both give an error, the one installed last has its way: here the guard.
    found = in_child([DEFAULT, GUARD], made)
    assert dict(zip(calls, found, strict=True)) == {name: wanted for name, (_, _, wanted) in calls.items()}


def test_i386_is_not_implemented_under_default() -> None:
    getpid = Call("i386", 20)
    assert in_child([GUARD], [getpid]) == [0]
    assert in_child([DEFAULT], [getpid]) == [errno.ENOSYS]
