"""What is odd about a profile that can still be compiled. None of it is an error; each may be a mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from immure.policy.capabilities import NAMES

from .abi import ABIS
from .actions import MAX_ERRNO, Action
from .profile import Profile, Rule, Scope
from .syscalls import known_names, linux_version


class Finding(msgspec.Struct, frozen=True):
    """`where` is a path such as `$.syscalls[3].names[0]`, `fix` what to write instead, if that is known."""

    code: str
    severity: str
    where: str
    message: str
    fix: str | None = None


# Docker's names of architectures; those that we have a table for, and the others that runc knows.
_ARCHES = frozenset({abi.docker for abi in ABIS.values()}) | {
    "mips",
    "mips64",
    "mips64n32",
    "mipsel",
    "mipsel64",
    "mipsel64n32",
    "ppc",
    "ppc64",
    "parisc",
    "parisc64",
}

_CAPABILITIES = frozenset(f"CAP_{name}" for name in NAMES)


def check_profile(profile: Profile) -> tuple[Finding, ...]:
    """All findings, in the document's order."""
    return tuple(_check(profile))


def _check(profile: Profile) -> Iterator[Finding]:
    yield from _errno("$.defaultErrnoRet", profile.default_action, profile.default_data)
    yield from _listener(profile)
    for index, rule in enumerate(profile.rules):
        where = f"$.syscalls[{index}]"
        yield from _unknown_calls(where, rule)
        yield from _repeated_index(where, rule)
        yield from _errno(f"{where}.errnoRet", rule.action, rule.data)
        yield from _scope(f"{where}.includes", rule.includes)
        yield from _scope(f"{where}.excludes", rule.excludes)


def _listener(profile: Profile) -> Iterator[Finding]:
    """What runc refuses of SCMP_ACT_NOTIFY."""
    asking = [(index, rule) for index, rule in enumerate(profile.rules) if rule.action is Action.NOTIFY]
    if profile.default_action is Action.NOTIFY:
        yield Finding("listener", "error", "$.defaultAction", "runtimes refuse SCMP_ACT_NOTIFY as default action")
    elif asking and profile.listener_path is None:
        where = f"$.syscalls[{asking[0][0]}].action"
        message = "SCMP_ACT_NOTIFY without a listener: runtimes refuse it"
        yield Finding("listener", "error", where, message, "name the listener's socket in `listenerPath`")
    for index, rule in asking:
        if "write" in rule.calls:
            message = "runtimes refuse SCMP_ACT_NOTIFY for write, which they need to pass the listener on"
            yield Finding("listener", "error", f"$.syscalls[{index}].names", message)


def _unknown_calls(where: str, rule: Rule) -> Iterator[Finding]:
    for position, name in enumerate(rule.calls):
        if name not in known_names():
            place = f"{where}.name" if rule.name is not None else f"{where}.names[{position}]"
            message = f"no architecture has a call {name!r} (Linux {linux_version()}); it is skipped"
            yield Finding("unknown-call", "warning", place, message, _nearest(name, known_names()))


def _repeated_index(where: str, rule: Rule) -> Iterator[Finding]:
    counts = Counter(arg.index for arg in rule.args or ())
    repeated = sorted(index for index, count in counts.items() if count > 1)
    if repeated:
        message = (
            f"argument {repeated[0]} has several conditions: then any one condition of the rule is enough, "
            "also one on another argument"
        )
        yield Finding("repeated-index", "warning", f"{where}.args", message, "write one rule per alternative")


def _errno(where: str, action: Action, data: int | None) -> Iterator[Finding]:
    if action is Action.ERRNO and data is not None and data > MAX_ERRNO:
        message = f"the kernel returns {MAX_ERRNO} in place of {data}"
        yield Finding("errno-too-large", "warning", where, message, str(MAX_ERRNO))


def _scope(where: str, scope: Scope | None) -> Iterator[Finding]:
    if scope is None:
        return
    for key, words, known in (("caps", scope.caps, _CAPABILITIES), ("arches", scope.arches, _ARCHES)):
        for position, word in enumerate(words or ()):
            if word not in known:
                message = f"{word!r} is not known, so the condition is never met"
                place = f"{where}.{key}[{position}]"
                yield Finding(f"unknown-{key}", "warning", place, message, _nearest(word, known))


def _nearest(word: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(word, sorted(known), n=1, cutoff=0.8)
    return near[0] if near else None
