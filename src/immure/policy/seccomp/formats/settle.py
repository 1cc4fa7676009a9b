"""What each call gets by its number alone, for filters that can't look at arguments.

Where a profile decides by arguments, or by an action that the target lacks, the stricter answer is taken and a
`Compromise` says so: what comes out is never looser than the profile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

import msgspec

from immure.policy.seccomp.actions import ENOSYS, EPERM, RETURNS, Action, decode, describe, encode, severity
from immure.policy.seccomp.profile import Profile
from immure.policy.seccomp.resolve import Kernel, applying_rules, declared_abis
from immure.policy.seccomp.syscalls import numbers

# Calls that libseccomp also lets through, or stops, as the first argument of a call of an older kind.
_MULTIPLEXED: Mapping[str, tuple[str, ...]] = {
    "socketcall": (
        *("socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv"),
        *("sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4"),
        *("recvmmsg", "sendmmsg"),
    ),
    "ipc": (
        *("semop", "semget", "semctl", "semtimedop", "msgsnd", "msgrcv", "msgget", "msgctl"),
        *("shmat", "shmdt", "shmget", "shmctl"),
    ),
}

_KILL = RETURNS[Action.KILL_PROCESS]
_NO_SUCH_CALL = encode(Action.ERRNO, ENOSYS)

# The nearest action of systemd that isn't looser. Without a tracer or a listener, the kernel says ENOSYS itself.
_STAND_INS = {
    Action.KILL_THREAD: _KILL,
    Action.TRAP: _KILL,
    Action.TRACE: _NO_SUCH_CALL,
    Action.NOTIFY: _NO_SUCH_CALL,
}


class Compromise(msgspec.Struct, frozen=True):
    """Where the profile says more than the target can: `where` is the place in it, `taken` what is done instead."""

    code: str
    where: str
    message: str
    taken: str


class Answer(msgspec.Struct, frozen=True):
    """A filter's return value, and the place in the profile that decides on it."""

    value: int
    where: str

    @property
    def passes(self) -> bool:
        """Whether the call reaches the kernel."""
        return decode(self.value)[0] in (Action.ALLOW, Action.LOG)


class Settled(msgspec.Struct, frozen=True):
    """The answers by name, for the calls of the declared ABIs that a rule names, and the one for all others."""

    default: Answer
    calls: Mapping[str, Answer]
    compromises: tuple[Compromise, ...]

    def answer(self, name: str) -> Answer:
        """What call `name` gets."""
        return self.calls.get(name, self.default)


class _Clause(msgspec.Struct, frozen=True):
    value: int
    index: int
    conditional: bool


def settle(profile: Profile, arch: str, capabilities: Set[str], kernel: Kernel) -> Settled:
    """The answers on a host of architecture `arch`."""
    compromises: list[Compromise] = []
    default = _settle_default(profile, compromises)
    named = _clauses(profile, arch, capabilities, kernel)
    before = Answer(encode(profile.default_action, profile.default_data), "$.defaultAction")
    calls = {name: _settle_call(name, clauses, before, default, compromises) for name, clauses in named.items()}
    settled = Settled(default, calls, ())
    compromises += _settle_multiplexed(profile, arch, settled, calls)
    return Settled(default, calls, tuple({(one.code, one.where): one for one in reversed(compromises)}.values())[::-1])


def _clauses(profile: Profile, arch: str, capabilities: Set[str], kernel: Kernel) -> dict[str, list[_Clause]]:
    served = {name for abi in declared_abis(profile, arch) for name in numbers(abi)}
    found: dict[str, list[_Clause]] = {}
    for index, rule in applying_rules(profile, arch, capabilities, kernel):
        clause = _Clause(encode(rule.action, rule.data), index, bool(rule.args))
        for name in dict.fromkeys(rule.calls):
            if name in served:
                found.setdefault(name, []).append(clause)
    return found


def _settle_default(profile: Profile, compromises: list[Compromise]) -> Answer:
    value = encode(profile.default_action, profile.default_data)
    answer = _translate(Answer(value, "$.defaultAction"), compromises)
    if answer.value != encode(Action.ERRNO, 0):
        return answer
    where = "$.defaultErrnoRet" if profile.default_errno_ret is not None else "$.defaultErrno"
    message = "calls that fail with the error 0 seem to succeed, and systemd has no such default"
    compromises.append(Compromise("errno-zero", where, message, "ERRNO EPERM"))
    return Answer(encode(Action.ERRNO, EPERM), where)


def _settle_call(
    name: str, clauses: list[_Clause], before: Answer, default: Answer, compromises: list[Compromise]
) -> Answer:
    """`before` is the default as the profile has it, `default` as it was settled."""
    fixed = min((one for one in clauses if not one.conditional), key=lambda one: severity(one.value), default=None)
    sure = Answer(fixed.value, f"$.syscalls[{fixed.index}]") if fixed else before
    reach = severity(sure.value) if fixed else severity(RETURNS[Action.ALLOW])
    deciding = [one for one in clauses if one.conditional and one.value != sure.value and severity(one.value) <= reach]
    choices = [sure, *(Answer(one.value, f"$.syscalls[{one.index}]") for one in deciding)]
    strictest = min(choices, key=lambda choice: severity(choice.value))
    for one in deciding:
        message = f"what happens to {name} depends on its arguments, and systemd does not look at them"
        compromises.append(Compromise("arguments", f"$.syscalls[{one.index}].args", message, describe(strictest.value)))
    return default if strictest is before else _translate(strictest, compromises)


def _translate(answer: Answer, compromises: list[Compromise]) -> Answer:
    action, _ = decode(answer.value)
    stand_in = _STAND_INS.get(action)
    if stand_in is None:
        return answer
    where = answer.where if answer.where == "$.defaultAction" else f"{answer.where}.action"
    message = f"systemd has no {Action[action.name].value}"
    compromises.append(Compromise("action", where, message, describe(stand_in)))
    return Answer(stand_in, answer.where)


def _settle_multiplexed(
    profile: Profile, arch: str, settled: Settled, calls: dict[str, Answer]
) -> Iterator[Compromise]:
    """Give calls the answer of the call that they also go through, where that one's is stricter."""
    for abi in declared_abis(profile, arch):
        table = numbers(abi)
        for old, members in _MULTIPLEXED.items():
            behind = [name for name in members if name in table] if old in table else []
            for name in behind:
                answer, limit = settled.answer(name), settled.answer(old)
                if severity(answer.value) > severity(limit.value):
                    message = f"on {abi.name}, a rule for {name} also opens {old}, which the profile does not"
                    yield Compromise("multiplexed", answer.where, message, describe(limit.value))
                    calls[name] = limit
