"""Guests of a few instructions, as ELF64 files: even KVM that emulates a guest's kernel runs them in milliseconds."""

from __future__ import annotations

import struct
from pathlib import Path

ENTRY = 0x100000
#: What every one of them says first.
HELLO = b"hello from a guest\r\n"

_SERIAL = bytes.fromhex("66ba f803")  # mov dx, 0x3f8
_SAY = bytes.fromhex("ac 84c0 7403 ee ebf8")  # next: lodsb; test al, al; jz end; out dx, al; jmp next
_RESET = bytes.fromhex("b0fe e664")  # mov al, 0xfe; out 0x64, al
_REST = bytes.fromhex("f4 ebfd")  # again: hlt; jmp again
_COUNT = (
    bytes.fromhex("48ff042500002000")  # again: inc qword [0x200000]
    + bytes.fromhex("8a042500002000 240f 0461 ee")  # mov al, [0x200000]; and al, 15; add al, 'a'; out dx, al
    + bytes.fromhex("b900200000 ffc9 75fc")  # mov ecx, 0x2000; wait: dec ecx; jnz wait
    + bytes.fromhex("ebe1")  # jmp again
)


def ends(folder: Path) -> Path:
    """Says hello and resets, which ends the VMM."""
    return _written(folder / "ends", _RESET + _REST)


def rests(folder: Path) -> Path:
    """Says hello and sleeps."""
    return _written(folder / "rests", _REST)


def counts(folder: Path) -> Path:
    """Says hello, and then a to p over and over, slowly; how far it is stands in its memory at 2 MiB."""
    return _written(folder / "counts", _COUNT)


def _written(path: Path, then: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(elf(HELLO, then))
    path.chmod(0o644)
    return path


def elf(says: bytes, then: bytes) -> bytes:
    """An ELF64 file of one segment. elf(5)."""
    after = _SERIAL + _SAY + then
    code = b"\x48\x8d\x35" + struct.pack("<i", len(after)) + after  # lea rsi, [rip + what follows the code]
    body = code + says + b"\0"
    offset = 64 + 56
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, ENTRY, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, offset, ENTRY, ENTRY, len(body), len(body), 0x1000)
    return header + segment + body
