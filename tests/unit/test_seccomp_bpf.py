"""The interpreter, against programs written by hand and against libseccomp's."""

from __future__ import annotations

import ctypes
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seccomp_cases import NAMES, U64, edge_values, rules

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
    constant_allow,
    disassemble,
    numbers,
    run,
)
from immure.policy.seccomp.actions import ALLOW, encode

LOAD, AND, JA, JEQ, JGT, JGE, JSET, RET = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
X86_64 = ABIS["x86_64"].audit


def returns(*instructions: tuple[int, int, int, int], nr: int = 0, args: tuple[int, ...] = ()) -> int:
    return run([Instruction(*one) for one in instructions], nr, X86_64, 0x1122_3344_5566_7788, args)[0]


@pytest.mark.parametrize(
    ("offset", "word"),
    [
        (0, 7),
        (4, X86_64),
        (8, 0x5566_7788),
        (12, 0x1122_3344),
        (16, 0x89AB_CDEF),
        (20, 0x0123_4567),
        (56, 6),
        (60, 0),
    ],
)
def test_words_of_seccomp_data(offset: int, word: int) -> None:
    args = (0x0123_4567_89AB_CDEF, 2, 3, 4, 5, 6)
    found = returns((LOAD, 0, 0, offset), (JEQ, 0, 1, word), (RET, 0, 0, 1), (RET, 0, 0, 2), nr=7, args=args)
    assert found == 1


@pytest.mark.parametrize(
    ("code", "k", "holds"),
    [
        (JEQ, 6, True),
        (JEQ, 7, False),
        (JGT, 5, True),
        (JGT, 6, False),
        (JGE, 6, True),
        (JGE, 7, False),
        (JSET, 2, True),
        (JSET, 9, False),
    ],
)
def test_jumps(code: int, k: int, holds: bool) -> None:
    assert returns((LOAD, 0, 0, 0), (code, 1, 0, k), (RET, 0, 0, 0), (RET, 0, 0, 1), nr=6) == holds


def test_and_ja_and_steps() -> None:
    program = [
        (LOAD, 0, 0, 0),
        (AND, 0, 0, 0xF0),
        (JA, 0, 0, 1),
        (RET, 0, 0, 9),
        (JEQ, 0, 1, 0x20),
        (RET, 0, 0, 1),
    ]
    assert run([Instruction(*one) for one in program], 0x2F, X86_64) == (1, 5)


@pytest.mark.parametrize(
    "program",
    [
        [],
        [(LOAD, 0, 0, 0)],
        [(LOAD, 0, 0, 2), (RET, 0, 0, 0)],
        [(LOAD, 0, 0, 64), (RET, 0, 0, 0)],
        [(JA, 0, 0, 5), (RET, 0, 0, 0)],
        [(0x99, 0, 0, 0), (RET, 0, 0, 0)],
    ],
)
def test_programs_that_the_kernel_refuses(program: list[tuple[int, int, int, int]]) -> None:
    with pytest.raises(ValueError, match=r"program|load|opcode"):
        returns(*program)


def test_bytes_are_a_program_too() -> None:
    program = compile_filter(Profile(default_action=Action.ALLOW))
    assert run(program.to_bytes(), 0, X86_64) == run(program.instructions, 0, X86_64)
    with pytest.raises(ValueError, match="multiple of 8"):
        run(b"123", 0, X86_64)


def test_the_bitmap_takes_only_what_is_decided_without_arguments() -> None:
    look = Arg(index=0, value=1, op=Operator.EQ)
    program = compile_filter(
        Profile(
            default_action=Action.LOG,
            syscalls=(
                Rule(action=Action.ALLOW, names=("read",)),
                Rule(action=Action.ALLOW, names=("write",), args=(look,)),
            ),
        )
    ).instructions
    assert [constant_allow(program, nr, X86_64) for nr in (0, 1, 2)] == [True, False, False]


def test_a_disassembly_names_what_it_compares() -> None:
    profile = Profile(
        default_action=Action.ERRNO,
        syscalls=(Rule(action=Action.ALLOW, names=("openat",), args=(Arg(index=2, value=64, op=Operator.LT),)),),
    )
    text = disassemble(compile_filter(profile).instructions)
    for part in ("; arch", "; x86_64", "; openat", "; arg2 high", "; arg2 low", "; ALLOW", "; ERRNO ENOSYS"):
        assert part in text


class _Condition(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


# `enum scmp_compare` of seccomp.h.
SCMP = {op: number for number, op in enumerate(Operator, 1)}


def libseccomp() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp.so.2 is not installed")


def libseccomp_program(profile: Profile) -> bytes:
    library = libseccomp()
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(encode(profile.default_action, profile.default_data)))
    for rule in profile.rules:
        args = rule.args or ()
        conditions = (_Condition * len(args))(
            *(_Condition(arg.index, SCMP[arg.op], arg.value, arg.value_two) for arg in args)
        )
        nr = numbers(ABIS["x86_64"])[rule.calls[0]]
        value = ctypes.c_uint32(encode(rule.action, rule.data))
        assert library.seccomp_rule_add_array(context, value, nr, len(args), conditions) == 0
    read, write = os.pipe()
    library.seccomp_export_bpf(context, write)
    os.close(write)
    with os.fdopen(read, "rb") as exported:
        return exported.read()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_libseccomp_agrees_where_it_is_exact(data: st.DataObject) -> None:
    """One rule per call, no argument looked at twice."""
    libseccomp()
    found: list[Rule] = []
    for name in data.draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1)):
        rule = data.draw(rules())
        indexes = [arg.index for arg in rule.args or ()]
        usable = name in numbers(ABIS["x86_64"]) and len(set(indexes)) == len(indexes)
        if usable and encode(rule.action, rule.data) not in (ALLOW, encode(Action.ERRNO, 4095)):
            found.append(Rule(action=rule.action, errno_ret=rule.errno_ret, names=(name,), args=rule.args))
    profile = Profile(default_action=Action.ALLOW, syscalls=tuple(found))
    ours, theirs = compile_filter(profile).instructions, libseccomp_program(profile)
    seen = {value for rule in found for arg in rule.args or () for value in (arg.value, arg.value_two)}
    values = st.sampled_from(edge_values(seen))
    for name in NAMES:
        nr = numbers(ABIS["x86_64"]).get(name, 1)
        call = Call("x86_64", nr, (data.draw(values), data.draw(values), data.draw(values) & U64))
        assert run(ours, nr, X86_64, 0, call.args)[0] == run(theirs, nr, X86_64, 0, call.args)[0]
