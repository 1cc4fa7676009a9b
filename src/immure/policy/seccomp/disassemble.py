"""A filter as text, each comparison with the name of what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .abi import ABIS, Abi, abi_of_call
from .actions import describe
from .bpf import AND, JA, JEQ, JGE, JGT, JSET, LOAD, RET, Instruction
from .syscalls import name_of

_MNEMONICS = {JEQ: "jeq", JGT: "jgt", JGE: "jge", JSET: "jset"}


class _Known(NamedTuple):
    """What is in the accumulator, and which AUDIT_ARCH the call has; None where paths disagree."""

    word: str | None = None
    audit: int | None = None


def disassemble(instructions: Sequence[Instruction], *, big_endian: bool = False) -> str:
    """One line per instruction: position, mnemonic, targets, and in a comment what it means.

    Jumps show the positions that they go to, true first.
    """
    known: dict[int, _Known] = {0: _Known()}
    lines: list[str] = []
    for position, instruction in enumerate(instructions):
        here = known.get(position, _Known())
        for target, then in _followers(position, instruction, here, big_endian):
            known[target] = _join(known[target], then) if target in known else then
        text, comment = _text(position, instruction, here, big_endian)
        lines.append(f"{position:4}  {text:<28}{f'; {comment}' if comment else ''}".rstrip())
    return "\n".join(lines) + "\n"


def _followers(position: int, instruction: Instruction, here: _Known, big_endian: bool) -> list[tuple[int, _Known]]:
    code, jt, jf, k = instruction
    after = position + 1
    if code == RET:
        return []
    if code == LOAD:
        return [(after, here._replace(word=_word(k, big_endian)))]
    if code == AND:
        return [(after, here._replace(word=f"{here.word} & {k:#x}"))]
    if code == JA:
        return [(after + k, here)]
    is_arch = code == JEQ and here.word == "arch"
    return [(after + jt, here._replace(audit=k) if is_arch else here), (after + jf, here)]


def _join(one: _Known, other: _Known) -> _Known:
    return _Known(one.word if one.word == other.word else None, one.audit if one.audit == other.audit else None)


def _word(offset: int, big_endian: bool) -> str:
    if offset < 8:
        return ("nr", "arch")[offset // 4]
    half = "high" if (offset % 8 == 4) != big_endian else "low"
    return f"ip {half}" if offset < 16 else f"arg{(offset - 16) // 8} {half}"


def _text(position: int, instruction: Instruction, here: _Known, big_endian: bool) -> tuple[str, str]:
    code, jt, jf, k = instruction
    if code == RET:
        return f"ret {k:#010x}", describe(k)
    if code == LOAD:
        return f"ld [{k}]", _word(k, big_endian)
    if code == AND:
        return f"and {k:#x}", ""
    if code == JA:
        return f"ja {position + 1 + k}", ""
    targets = f"{position + 1 + jt}, {position + 1 + jf}"
    return f"{_MNEMONICS.get(code, hex(code))} {k:#x}, {targets}", _meaning(code, k, here)


def _meaning(code: int, k: int, here: _Known) -> str:
    if here.word == "arch":
        return " or ".join(abi.name for abi in ABIS.values() if abi.audit == k)
    if here.word == "nr":
        abi = next((abi for abi in ABIS.values() if abi.audit == here.audit), None)
        return _call(code, k, abi) if abi else ""
    return here.word or ""


def _call(code: int, number: int, abi: Abi) -> str:
    named = abi_of_call(abi, number)
    name = name_of(named, number) or (f"{named.name} {number - named.first}")
    return f"from {name} on" if code == JGE else name
