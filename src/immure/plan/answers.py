"""What filters answer to the attempts that a box's attestation makes within. Pure.

A kernel without them says ENOSYS to the first call and ENOENT to the second, and lets the third through.
"""

from __future__ import annotations

import stat

from immure.host.facts import HostFacts
from immure.plan.model import NAMESPACES
from immure.policy.seccomp import bpf
from immure.policy.seccomp.abi import find_abi
from immure.policy.seccomp.actions import RETURNS, Action
from immure.policy.seccomp.syscalls import numbers

#: A call that no kernel has: a filter answers it before the kernel does.
UNKNOWN_CALL = 1_000_000
#: As attest asks for a socket: with SOCK_CLOEXEC. socket(2).
_AF_INET, _SOCK_DGRAM = 2, 0x80002


def answers_within(facts: HostFacts, programs: tuple[bytes, ...]) -> dict[str, object]:
    """The errors by name, None where the filters let it through. `denied_controls` are those of controls."""
    known = numbers(find_abi(facts.arch))
    return {
        "unknown_call": _answer(programs, facts.arch, UNKNOWN_CALL),
        "setuid_mode": _answer(programs, facts.arch, known["fchmodat"], 0, 0, stat.S_ISUID),
        "user_namespace": _answer(programs, facts.arch, known["unshare"], NAMESPACES["user"]),
        "denied_controls": _denied_controls(programs, facts.arch),
    }


def _denied_controls(programs: tuple[bytes, ...], arch: str) -> dict[str, int]:
    """The controls that the filters themselves deny, and by which error: then nobody can make the attempt either."""
    known = numbers(find_abi(arch))
    found = {"network": _answer(programs, arch, known["socket"], _AF_INET, _SOCK_DGRAM)}
    return {name: answer for name, answer in found.items() if answer is not None}


def _answer(programs: tuple[bytes, ...], arch: str, number: int, *arguments: int) -> int | None:
    """The error that the filters give to a call; None where they let it through."""
    audit = find_abi(arch).audit
    # Of several filters the most restrictive action wins: the smallest number, read as signed.
    answers = [bpf.run(program, number, audit, args=arguments)[0] for program in programs]
    worst = min(answers, key=lambda action: (action & 0xFFFF_0000) ^ 0x8000_0000, default=0x7FFF_0000)
    return worst & 0xFFFF if worst & 0xFFFF_0000 == RETURNS[Action.ERRNO] else None
