"""Names and numbers of system calls, per ABI. `tools/generate_syscalls.py` writes the table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import msgspec

from .abi import Abi
from .packaged import read_packaged


class _Tables(msgspec.Struct, frozen=True):
    linux: str
    names: tuple[str, ...]
    numbers: dict[str, tuple[int | None, ...]]


@cache
def _tables() -> _Tables:
    return msgspec.json.decode(read_packaged("data/syscalls.json"), type=_Tables)


@cache
def numbers(abi: Abi) -> Mapping[str, int]:
    """Every call of `abi` that we know: name → number. Numbers of x32 carry its bit."""
    tables = _tables()
    pairs = zip(tables.names, tables.numbers[abi.name], strict=True)
    return {name: number for name, number in pairs if number is not None}


@cache
def _names(abi: Abi) -> Mapping[int, str]:
    return {number: name for name, number in numbers(abi).items()}


def name_of(abi: Abi, number: int) -> str | None:
    """The name of call `number`, or None where the table has a hole or ends before it."""
    return _names(abi).get(number)


@cache
def known_names() -> frozenset[str]:
    """Names that any ABI has. A name outside of it is unknown everywhere."""
    return frozenset(_tables().names)


def linux_version() -> str:
    """The kernel release that the tables were taken from."""
    return _tables().linux
