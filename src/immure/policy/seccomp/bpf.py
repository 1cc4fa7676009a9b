"""Classic BPF as seccomp takes it: instructions, an interpreter, and the kernel's check for constant actions.

Semantics: `linux/filter.h`, and `seccomp_check_filter` and `seccomp_is_const_allow` of `kernel/seccomp.c`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .actions import ALLOW

LOAD = 0x20
"""BPF_LD | BPF_W | BPF_ABS: a word of `struct seccomp_data`."""
AND = 0x54
JA = 0x05
JEQ = 0x15
JGT = 0x25
JGE = 0x35
JSET = 0x45
RET = 0x06

NR_OFFSET = 0
ARCH_OFFSET = 4
DATA_SIZE = 64

FULL = 0xFFFF_FFFF
"""All bits of a word."""


class Instruction(NamedTuple):
    """`struct sock_filter`: opcode, jump if true, jump if false, constant."""

    code: int
    jt: int
    jf: int
    k: int


def pack(instructions: Sequence[Instruction], *, big_endian: bool = False) -> bytes:
    """The array of `struct sock_filter` that the kernel takes."""
    one = struct.Struct(">HBBI" if big_endian else "<HBBI").pack
    return b"".join([one(*instruction) for instruction in instructions])


def unpack(program: bytes, *, big_endian: bool = False) -> tuple[Instruction, ...]:
    """The inverse of `pack`. Raises ValueError for a length that is no multiple of 8."""
    if len(program) % 8:
        raise ValueError(f"a program is a multiple of 8 bytes, not {len(program)}")
    order = ">HBBI" if big_endian else "<HBBI"
    return tuple(Instruction(*fields) for fields in struct.iter_unpack(order, program))


def run(
    program: bytes | Sequence[Instruction],
    nr: int,
    arch: int,
    ip: int = 0,
    args: Sequence[int] = (),
    *,
    big_endian: bool = False,
) -> tuple[int, int]:
    """Run a filter on one call: its return value, and the number of instructions that it took.

    `arch` is an AUDIT_ARCH_*, `args` up to six numbers of 64 bits. Raises ValueError where the kernel would
    have refused to load the program: an opcode that seccomp has no use for, a jump or a fall out of it.
    """
    order = ">" if big_endian else "<"
    padded = [*args, *[0] * (6 - len(args))]
    words = struct.unpack(f"{order}16I", struct.pack(f"{order}IIQ6Q", nr, arch, ip, *padded))
    return _execute(_instructions(program, big_endian), lambda offset: words[offset // 4])


def constant_allow(program: bytes | Sequence[Instruction], nr: int, arch: int, *, big_endian: bool = False) -> bool:
    """Whether the kernel would put call `nr` into its bitmap of calls that it allows without the filter.

    It runs the filter with only `nr` and `arch` known, and gives up at the first look at anything else
    (`seccomp_is_const_allow`, Linux 5.11).
    """

    def load(offset: int) -> int:
        if offset not in (NR_OFFSET, ARCH_OFFSET):
            raise _NotConstant
        return nr if offset == NR_OFFSET else arch

    try:
        return _execute(_instructions(program, big_endian), load)[0] == ALLOW
    except _NotConstant:
        return False


def outcomes(
    program: bytes | Sequence[Instruction],
    nr: int,
    arch: int,
    args: Sequence[int | None] = (),
    *,
    big_endian: bool = False,
) -> frozenset[int]:
    """Every value that a filter may return for call `nr` with these arguments, None and what is left out being unknown.

    Never too few: a branch on something unknown goes both ways.
    """
    words: dict[int, int] = {NR_OFFSET: nr, ARCH_OFFSET: arch}
    for index, value in enumerate(args):
        if value is not None:
            low, high = 16 + 8 * index, 20 + 8 * index
            words[high if big_endian else low] = value & FULL
            words[low if big_endian else high] = value >> 32
    instructions = _instructions(program, big_endian)
    todo: list[tuple[int, int | None]] = [(0, 0)]
    seen: set[tuple[int, int | None]] = set()
    found: set[int] = set()
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        position, held = state
        if position >= len(instructions):
            raise ValueError(f"the program ends at {position} without a return")
        code, jt, jf, k = instructions[position]
        if code == RET:
            found.add(k)
        elif code == LOAD:
            todo.append((position + 1, words.get(_checked_offset(k))))
        elif code == AND:
            todo.append((position + 1, None if held is None else held & k))
        elif code == JA:
            todo.append((position + 1 + k, held))
        elif held is None:
            todo += [(position + 1 + jt, None), (position + 1 + jf, None)]
        else:
            todo.append((position + 1 + (jt if _holds(code, held, k) else jf), held))
    return frozenset(found)


class _NotConstant(Exception):
    pass


def _instructions(program: bytes | Sequence[Instruction], big_endian: bool) -> Sequence[Instruction]:
    return unpack(program, big_endian=big_endian) if isinstance(program, bytes) else program


def _execute(program: Sequence[Instruction], load: Callable[[int], int]) -> tuple[int, int]:
    position = steps = accumulator = 0
    while position < len(program):
        code, jt, jf, k = program[position]
        steps += 1
        position += 1
        if code == RET:
            return k, steps
        if code == LOAD:
            accumulator = load(_checked_offset(k))
        elif code == AND:
            accumulator &= k
        elif code == JA:
            position += k
        else:
            position += jt if _holds(code, accumulator, k) else jf
    raise ValueError(f"the program ends at {position} without a return")


def _holds(code: int, accumulator: int, k: int) -> bool:
    if code == JEQ:
        return accumulator == k
    if code == JGT:
        return accumulator > k
    if code == JGE:
        return accumulator >= k
    if code == JSET:
        return accumulator & k != 0
    raise ValueError(f"opcode {code:#04x} is not known here")


def _checked_offset(offset: int) -> int:
    if offset % 4 or offset >= DATA_SIZE:
        raise ValueError(f"a load at {offset}; seccomp_data is {DATA_SIZE} bytes of aligned words")
    return offset
