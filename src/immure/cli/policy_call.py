"""One call under a profile: `immure policy eval` and `explain`."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from immure.errors import SpecError
from immure.policy.seccomp import Abi, Outcome, Profile, name_of, numbers, outcomes_of, rule_lines
from immure.policy.seccomp.abi import family, find_abi
from immure.policy.seccomp.actions import describe
from immure.policy.seccomp.profile import parse_kernel

ALLOWED, DENIED, DEPENDS = 0, 1, 3


class Asked(msgspec.Struct, frozen=True):
    """A call, with what a profile says to it. `lines` are where the rules of the file begin, as far as is known."""

    profile: Profile
    abi: Abi
    number: int
    known: Mapping[int, int]
    outcomes: tuple[Outcome, ...]
    rule_lines: list[int]

    @property
    def status(self) -> int:
        """The exit status: allowed, denied, or that it depends on arguments that were not given."""
        allowed = {one.allowed for one in self.outcomes}
        return DEPENDS if len(allowed) > 1 else ALLOWED if True in allowed else DENIED

    def short_lines(self) -> Iterator[str]:
        """Each answer, with the rule that gives it and, where there are several, arguments that get it."""
        for one in self.outcomes:
            shown = f"  e.g. {self._shown(one)}" if len(self.outcomes) > 1 else ""
            yield f"{describe(one.value)}  ({self._place(one)}){shown}"

    def lines(self, file: str) -> Iterator[str]:
        """The same at length."""
        if len(self.outcomes) > 1:
            yield "it depends on the arguments:"
        for one in self.outcomes:
            yield f"{describe(one.value)}  {self._shown(one)}"
            yield from (f"  {line}" for line in self._reasons(one, file))

    def _reasons(self, one: Outcome, file: str) -> Iterator[str]:
        if one.rule is None:
            yield f"no rule decides: {self._place(one)}"
            return
        rule, line = self.profile.rules[one.rule], self._line(one)
        yield f"by {self._place(one)}" + (f", line {line} of {file}" if line is not None else "")
        if rule.comment:
            yield rule.comment
        for condition in rule.args or ():
            two = f" {condition.value_two:#x}" if condition.op.value.endswith("MASKED_EQ") else ""
            yield f"argument {condition.index} {condition.op.value} {condition.value:#x}{two}"

    def _shown(self, one: Outcome) -> str:
        args = ", ".join(f"{one.args.get(index, 0):#x}" for index in range(max(one.args, default=-1) + 1))
        return f"{self._name}({args})"

    @property
    def _name(self) -> str:
        return name_of(self.abi, self.number) or str(self.number)

    def _place(self, one: Outcome) -> str:
        return f"$.syscalls[{one.rule}]" if one.rule is not None else one.reason

    def _line(self, one: Outcome) -> int | None:
        # Rules that a base brought are in another file.
        known = len(self.rule_lines) == len(self.profile.rules) and one.rule is not None
        return self.rule_lines[one.rule] if known and one.rule is not None else None

    def to_dict(self) -> dict[str, Any]:
        """The fields of the JSON document (DESIGN, public surface)."""
        return {
            "verdict": {ALLOWED: "allowed", DENIED: "denied", DEPENDS: "depends"}[self.status],
            "layer": "seccomp",
            "abi": self.abi.name,
            "call": name_of(self.abi, self.number),
            "number": self.number,
            "outcomes": [
                {
                    "answer": describe(one.value),
                    "rule": self._place(one) if one.rule is not None else None,
                    "line": self._line(one),
                    "witness": [one.args.get(index, 0) for index in range(max(one.args, default=-1) + 1)],
                    "fix": None if one.allowed else f"a rule that allows {self._name}",
                }
                for one in self.outcomes
            ],
        }


def ask(profile: Profile, text: bytes, options: Namespace) -> Asked:
    """What `profile` says to the call that the options name. `text` is where it was read from."""
    abi, number = _call(options)
    known = {index: _argument(word) for index, word in enumerate(options.args)}
    if len(known) > 6:
        raise SpecError("too many arguments", path="ARG", need="at most 6", have=str(len(known)))
    found = outcomes_of(profile, abi.name, number, known, arch=options.arch, **host_of(options))
    return Asked(profile, abi, number, known, found, rule_lines(text))


def host_of(options: Namespace) -> dict[str, Any]:
    """`capabilities` and `kernel`, on which `includes` and `excludes` look."""
    names = [one.strip().upper() for one in options.caps.split(",") if one.strip()]
    try:
        kernel = parse_kernel(options.kernel) if options.kernel else _running_kernel()
    except ValueError as error:
        raise SpecError(str(error), path="--kernel", need="a version such as 6.1") from error
    return {
        "capabilities": frozenset(one if one.startswith("CAP_") else f"CAP_{one}" for one in names),
        "kernel": kernel,
    }


def _running_kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)


def _call(options: Namespace) -> tuple[Abi, int]:
    abi = find_abi(options.abi or options.arch)
    if abi not in family(options.arch):
        raise SpecError(f"a {options.arch} kernel does not serve {abi.name}", path="--abi")
    table = numbers(abi)
    number = table.get(options.call)
    if number is None and options.call.isdecimal() and int(options.call) < 1 << 32:
        number = int(options.call)
    if number is None:
        raise SpecError(
            f"{abi.name} has no call {options.call!r}",
            path="CALL",
            need="a name or number",
            hint=_near(options.call, table),
        )
    return abi, number


def _near(word: str, table: Mapping[str, int]) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(word, list(table), n=1)
    return f"did you mean {near[0]!r}?" if near else None


def _argument(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = 1 << 65
    if not -(1 << 63) <= value < 1 << 64:
        raise SpecError(
            f"{text!r} is no argument", path="ARG", need="a number of 64 bits, decimal or with 0x, 0o or 0b"
        )
    return value & (1 << 64) - 1
