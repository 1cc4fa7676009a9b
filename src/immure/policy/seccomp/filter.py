"""A compiled filter: what is given to the kernel, and its measures."""

from __future__ import annotations

import msgspec

from .bpf import AND, JA, LOAD, RET, Instruction, pack

MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS of `linux/bpf_common.h`."""


class Filter(msgspec.Struct, frozen=True):
    """A program for seccomp(2)'s SECCOMP_SET_MODE_FILTER. `flags` are its SECCOMP_FILTER_FLAG_* bits."""

    instructions: tuple[Instruction, ...]
    arch: str
    flags: int = 0
    big_endian: bool = False

    def to_bytes(self) -> bytes:
        """The packed array of `struct sock_filter`, in the byte order of `arch`."""
        return pack(self.instructions, big_endian=self.big_endian)

    @property
    def sha256(self) -> str:
        """The hash of `to_bytes()`, in hexadecimal: what a read-back filter is compared with."""
        from hashlib import sha256

        return sha256(self.to_bytes()).hexdigest()

    @property
    def max_steps(self) -> int:
        """Instructions on the longest path from the first one to a return."""
        return self._paths()[2]

    @property
    def mean_steps(self) -> float:
        """Instructions on a path, averaged over all paths."""
        paths, total, _ = self._paths()
        return total / paths

    def _paths(self) -> tuple[int, int, int]:
        """Number of paths from the first instruction, the sum of their lengths and the longest."""
        size = len(self.instructions)
        known = [(0, 0, 0)] * size
        for position in range(size - 1, -1, -1):
            ways = [known[follower] for follower in _followers(position, self.instructions[position])]
            paths = sum(way[0] for way in ways) or 1
            longest = max((way[2] for way in ways), default=0)
            known[position] = (paths, sum(way[1] for way in ways) + paths, longest + 1)
        return known[0]


def _followers(position: int, instruction: Instruction) -> set[int]:
    after = position + 1
    if instruction.code == RET:
        return set()
    if instruction.code == JA:
        return {after + instruction.k}
    if instruction.code in (LOAD, AND):
        return {after}
    return {after + instruction.jt, after + instruction.jf}
