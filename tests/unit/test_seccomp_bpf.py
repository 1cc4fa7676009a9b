"""The interpreter, against programs written by hand."""

from __future__ import annotations

import pytest

from immure.policy.seccomp import (
    ABIS,
    Action,
    Arg,
    Instruction,
    Operator,
    Profile,
    Rule,
    compile_filter,
    constant_allow,
    disassemble,
    run,
)

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
