"""What a command used, as the smallest profile that lets it do the same again.

Nothing here sees a box: `Recorder` is told of each call, and answers as the profile does that the command runs under.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from .abi import Abi, abi_of_call, family
from .actions import ENOSYS, EPERM, MAX_ERRNO, PERMISSIVE, RETURNS, Action, decode, describe, encode
from .bpf import outcomes, run, unpack
from .minimise import minimise
from .profile import Architecture, Arg, Operator, Profile, Rule
from .selectors import SELECTORS
from .syscalls import name_of, numbers

MAX_VALUES = 8
"""How many combinations of values of a call are named before all are allowed."""

_KEPT = 64
#: A hostile command calls numbers that there are not; this many different calls are kept.
_MOST = 4096
_INT = 0xFFFF_FFFF
_ACTION = 0xFFFF_0000
_OPEN = frozenset({RETURNS[Action.ALLOW], RETURNS[Action.LOG]})
_SET_MODE_FILTER, _PR_SET_SECCOMP = 1, 22

#: Whether these are called depends on the moment and the host rather than on the program: signal handlers, the end of
#: threads, and the clocks that the vDSO can read on most hosts.
CIRCUMSTANTIAL = (
    *("clock_getres", "clock_gettime", "exit", "exit_group", "getcpu", "gettimeofday", "restart_syscall"),
    *("rt_sigreturn", "sigreturn", "time"),
)

Values = tuple[int, ...]


class Observed(msgspec.Struct):
    """One call with one answer: how often, and with which values of its selectors."""

    abi: Abi
    number: int
    value: int
    """The filter's return value."""
    count: int = 0
    values: set[Values] = msgspec.field(default_factory=set[Values])
    many: bool = False
    """There were more values than are kept."""

    @property
    def name(self) -> str:
        """The call's name, or its number where it has none."""
        return name_of(self.abi, self.number) or str(self.number)

    @property
    def allowed(self) -> bool:
        """Whether the kernel carried the call out."""
        return self.value & _ACTION in _OPEN

    @property
    def answer(self) -> str:
        """The answer in words, such as `ERRNO EPERM`."""
        return describe(self.value)


class Recorder:
    """Answers the calls of a command by `program`, a packed filter for `arch`, and keeps what it is asked."""

    def __init__(self, program: bytes, *, arch: str) -> None:
        self._abis = family(arch)
        self.native = self._abis[0]
        self._program = unpack(program, big_endian=self.native.big_endian)
        self._constant: dict[tuple[int, int], int | None] = {}
        self._observed: dict[tuple[int, int, int], Observed] = {}
        self.hidden = False
        """The command has installed a filter of its own: calls that it refuses are not seen."""
        self.crowded = False
        """There were more different calls than are kept."""

    def judge(self, number: int, audit: int, args: Values) -> Observed:
        """Notes a call, and gives what is now known of it: `value` is the filter's for this one.

        Raises ValueError for an architecture that this one's kernels do not serve.
        """
        value = self._value(number, audit, args)
        key = (audit, number, value)
        one = self._observed.get(key)
        if one is None:
            one = Observed(self._abi(audit, number), number, value)
            if len(self._observed) < _MOST:
                self._observed[key] = one
            else:
                self.crowded = True
        one.count += 1
        selectors = SELECTORS.get(one.name)
        if selectors is not None and not one.many:
            one.values.add(tuple(args[index] for index in selectors))
            one.many = len(one.values) > _KEPT
        if one.allowed and (one.name, args[0] & _INT) in (("seccomp", _SET_MODE_FILTER), ("prctl", _PR_SET_SECCOMP)):
            self.hidden = True
        return one

    def _value(self, number: int, audit: int, args: Values) -> int:
        key = (audit, number)
        if key in self._constant:
            constant = self._constant[key]
        else:
            answers = outcomes(self._program, number, audit, big_endian=self.native.big_endian)
            constant = next(iter(answers)) if len(answers) == 1 else None
            if len(self._constant) < _MOST:
                self._constant[key] = constant
        if constant is not None:
            return constant
        return run(self._program, number, audit, 0, args, big_endian=self.native.big_endian)[0]

    def allows(self, name: str) -> bool:
        """Whether the native ABI has a call of this name, and the filter allows it whatever its arguments."""
        number = numbers(self.native).get(name)
        if number is None:
            return False
        answers = outcomes(self._program, number, self.native.audit, big_endian=self.native.big_endian)
        return all(value & _ACTION in _OPEN for value in answers)

    def _abi(self, audit: int, number: int) -> Abi:
        known = next((abi for abi in self._abis if abi.audit == audit), None)
        if known is None:
            raise ValueError(f"{self.native.name} kernels have no calls of architecture {audit:#x}")
        return abi_of_call(known, number)

    def observed(self) -> tuple[Observed, ...]:
        """All of it, by name."""
        return tuple(sorted(self._observed.values(), key=lambda one: (one.name, one.abi.name, one.value)))


def refusal(value: int) -> int | None:
    """The errno that a filter's return value stands for; None where the call is carried out."""
    action, number = decode(value)
    return None if action in PERMISSIVE else min(number or 0, MAX_ERRNO)


def learned_profile(recorder: Recorder, base: Profile, *, max_values: int = MAX_VALUES) -> Profile:
    """The smallest profile under which the recorded calls get the answers that they got.

    `base` is the profile that gave them. Where a call was made with at most `max_values` combinations of its
    selectors, it is allowed with those alone. CIRCUMSTANTIAL calls are allowed too, where `base` allows them.
    """
    observed, native = recorder.observed(), recorder.native
    used = [one for one in observed if one.allowed and name_of(one.abi, one.number)]
    names = {one.name for one in used}
    more = tuple(name for name in CIRCUMSTANTIAL if name not in names and recorder.allows(name))
    rules = [*_allowing(used, max_values), *((Rule(action=Action.ALLOW, names=more),) if more else ())]
    # What lets calls through by default is nothing to learn from.
    closed = base.default_action not in PERMISSIVE
    action, data = (base.default_action, base.default_data) if closed else (Action.ERRNO, EPERM)
    given = refusal(encode(action, data))
    profile = Profile(
        default_action=action,
        default_errno_ret=data,
        architectures=tuple(Architecture(oci) for oci in dict.fromkeys([native.oci, *(one.abi.oci for one in used)])),
        syscalls=(*rules, *_refusing(observed, rules, given, native)) or None,
    )
    return minimise(profile)


def _allowing(used: list[Observed], max_values: int) -> Iterator[Rule]:
    by_name: dict[str, list[Observed]] = {}
    for one in used:
        by_name.setdefault(one.name, []).append(one)
    for name, several in by_name.items():
        values = {combination for one in several for combination in one.values}
        if name not in SELECTORS or any(one.many for one in several) or len(values) > max_values:
            yield Rule(action=Action.ALLOW, names=(name,))
        else:
            for combination in sorted(values):
                yield Rule(action=Action.ALLOW, names=(name,), args=_conditions(name, combination))


def _conditions(name: str, values: Values) -> tuple[Arg, ...]:
    return tuple(
        Arg(index=index, value=value, op=Operator.EQ) for index, value in zip(SELECTORS[name], values, strict=True)
    )


def _refusing(observed: tuple[Observed, ...], rules: list[Rule], default: int | None, native: Abi) -> Iterator[Rule]:
    """Rules for what was refused with another errno than the profile would give by itself: programs go by it."""
    table = numbers(native)
    open_names = {name for rule in rules for name in rule.calls}
    newest = max((table[name] for name in open_names if name in table), default=0)
    refused = [one for one in observed if not one.allowed and one.abi == native and name_of(native, one.number)]
    for one in sorted(refused, key=lambda one: one.number, reverse=True):
        # A call that is allowed with other arguments would be refused with those too: the stricter rule wins.
        given = default if one.number <= newest else ENOSYS
        if one.name not in open_names and refusal(one.value) != given:
            newest = max(newest, one.number)
            yield Rule(action=Action.ERRNO, errno_ret=refusal(one.value), names=(one.name,))
