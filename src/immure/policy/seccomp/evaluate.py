"""What a profile means: the reference that the compiler is tested against.

Read it as the definition. It knows nothing of BPF, intervals or words.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import msgspec

from .abi import Abi, abi_of_call, find_abi
from .actions import ENOSYS, EPERM, MAX_ERRNO, PERMISSIVE, Action
from .profile import Arg, Operator, Profile, Rule
from .resolve import Kernel, applying_rules, declared_abis
from .syscalls import numbers

# seccomp(2), "in order of precedence".
_PRECEDENCE = (
    Action.KILL_PROCESS,
    Action.KILL_THREAD,
    Action.TRAP,
    Action.ERRNO,
    Action.NOTIFY,
    Action.TRACE,
    Action.LOG,
    Action.ALLOW,
)


class Call(msgspec.Struct, frozen=True):
    """A system call: its ABI, its number there (x32's with bit 30), up to six arguments (else 0)."""

    arch: str
    nr: int
    args: tuple[int, ...] = ()


class Decision(msgspec.Struct, frozen=True):
    """What happens to a call. `errno` is the number that ERRNO and TRACE carry.

    `rule` is the index in `syscalls` of the rule that decided; None: the default action, a foreign ABI or a
    call newer than the profile, as `reason` says.
    """

    action: Action
    errno: int | None
    rule: int | None
    reason: str


class Reference:
    """What `profile` says on one host. The keywords are those of `compile_filter`."""

    def __init__(
        self,
        profile: Profile,
        *,
        arch: str = "x86_64",
        capabilities: Set[str] = frozenset(),
        kernel: Kernel = (6, 1),
    ) -> None:
        self._profile = profile
        self._abis = declared_abis(profile, arch)
        self._rules = applying_rules(profile, arch, capabilities, kernel)
        self._named = {abi: self._rules_by_number(abi) for abi in self._abis}

    def _rules_by_number(self, abi: Abi) -> dict[int, list[tuple[int, Rule]]]:
        """The rules that name each call, with their index, in the document's order."""
        table = numbers(abi)
        found: dict[int, list[tuple[int, Rule]]] = {}
        for index, rule in self._rules:
            for number in {table[name] for name in rule.calls if name in table}:
                found.setdefault(number, []).append((index, rule))
        return found

    def decide(self, call: Call) -> Decision:
        """What happens to `call`."""
        abi = abi_of_call(find_abi(call.arch), call.nr)
        if abi not in self._abis:
            return Decision(Action.ERRNO, ENOSYS, None, "foreign ABI")
        named = self._named[abi]
        matching = [
            _decision(rule.action, rule.data, index, "rule")
            for index, rule in named.get(call.nr, ())
            if _matches(rule, call.args)
        ]
        if matching:
            # min() keeps the first of equals: the document's order.
            return min(matching, key=lambda decision: _PRECEDENCE.index(decision.action))
        default = _decision(self._profile.default_action, self._profile.default_data, None, "default")
        newer = Decision(Action.ERRNO, ENOSYS, None, "newer than the profile")
        # Where the default says the same, it is that.
        is_default = (default.action, default.errno) == (newer.action, newer.errno)
        return newer if not is_default and _is_newer(self._profile, call.nr, named.keys()) else default


def evaluate(
    profile: Profile,
    call: Call,
    *,
    arch: str = "x86_64",
    capabilities: Set[str] = frozenset(),
    kernel: Kernel = (6, 1),
) -> Decision:
    """Decide `call` on a host of architecture `arch`. The keywords are those of `compile_filter`."""
    return Reference(profile, arch=arch, capabilities=capabilities, kernel=kernel).decide(call)


def _matches(rule: Rule, args: Sequence[int]) -> bool:
    """Every condition holds; or, where two of them look at the same argument, any does (runc)."""
    conditions = rule.args or ()
    held = [_holds(condition, args) for condition in conditions]
    looked_at = [condition.index for condition in conditions]
    return any(held) if len(set(looked_at)) < len(looked_at) else all(held)


def _holds(condition: Arg, args: Sequence[int]) -> bool:
    argument = args[condition.index] if condition.index < len(args) else 0
    value = condition.value
    return {
        Operator.NE: argument != value,
        Operator.LT: argument < value,
        Operator.LE: argument <= value,
        Operator.EQ: argument == value,
        Operator.GE: argument >= value,
        Operator.GT: argument > value,
        Operator.MASKED_EQ: argument & value == condition.value_two & value,
    }[condition.op]


def _is_newer(profile: Profile, nr: int, named: Set[int]) -> bool:
    """runc: a number above all that the profile names is a call that its author didn't know."""
    newest = max(named, default=0)
    return profile.default_action not in PERMISSIVE and 0 < newest < nr


def _decision(action: Action, data: int | None, rule: int | None, reason: str) -> Decision:
    if action is Action.KILL:
        action = Action.KILL_THREAD
    if action is Action.ERRNO:
        return Decision(action, min(EPERM if data is None else data, MAX_ERRNO), rule, reason)
    if action is Action.TRACE:
        return Decision(action, EPERM if data is None else data, rule, reason)
    return Decision(action, None, rule, reason)
