"""A filter that asks a supervisor where another one would have decided by itself."""

from __future__ import annotations

from collections.abc import Sequence

from .actions import RETURNS, Action
from .bpf import RET, Instruction

_ACTION = 0xFFFF_0000
#: What a supervisor can do in the kernel's place: let the call be carried out, or give an errno.
_ANSWERABLE = {RETURNS[action] for action in (Action.ALLOW, Action.LOG, Action.ERRNO)}
_ASK = RETURNS[Action.NOTIFY]


def asking(program: Sequence[Instruction]) -> tuple[Instruction, ...]:
    """`program` with SECCOMP_RET_USER_NOTIF for each answer that a supervisor can give in its place.

    What it kills, traps or traces it still does itself: a supervisor has no such answer. seccomp_unotify(2).
    """
    return tuple(_asking(one) for one in program)


def _asking(one: Instruction) -> Instruction:
    return one._replace(k=_ASK) if one.code == RET and one.k & _ACTION in _ANSWERABLE else one
