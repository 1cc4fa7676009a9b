"""The clause report: for each thing that the spec asks for, what the box really gets."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Got = Literal["exact", "stronger", "approximated", "unenforceable"]


class Clause(Struct, frozen=True, omit_defaults=False):
    """One clause of the spec: what was wanted, how far it is met, by which mechanism, and why it is not exact."""

    clause: str
    wanted: str
    got: Got
    by: str
    why: str = ""
