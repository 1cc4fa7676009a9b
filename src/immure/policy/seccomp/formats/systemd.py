"""`Profile` → the lines of a systemd unit, for what systemd.exec(5) can say.

Two things differ in every unit, both to the stricter side: a call of an architecture that the profile doesn't
declare kills the process, where the profile gives ENOSYS; and a call newer than the profile gets the default
action, not ENOSYS. Needs systemd 247, the first with `SystemCallLog=` and with an error per call in allow lists.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Set
from textwrap import wrap

import msgspec

from immure.errors import ProfileError
from immure.policy.seccomp.abi import Abi
from immure.policy.seccomp.actions import ENOSYS, ENOSYS_RETURN, PERMISSIVE, Action, decode
from immure.policy.seccomp.findings import Finding
from immure.policy.seccomp.profile import Flag, Profile
from immure.policy.seccomp.resolve import Kernel, declared_abis
from immure.policy.seccomp.syscalls import known_names, numbers

from .settle import Compromise, Settled, settle

_ARCHES = {
    "x86_64": "x86-64",
    "i386": "x86",
    "x32": "x32",
    "aarch64": "arm64",
    "arm": "arm",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "s390": "s390",
    "ppc64le": "ppc64-le",
    "loongarch64": "loongarch64",
}

# Errors up to here have one number on every architecture (`asm-generic/errno-base.h`).
_LAST_COMMON_ERRNO = 34


class SystemdUnit(msgspec.Struct, frozen=True):
    """Lines for the section [Service], and what the unit does otherwise than the profile."""

    lines: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def text(self) -> str:
        """The lines as a drop-in file."""
        return "\n".join(("[Service]", *self.lines, ""))


def to_systemd(
    profile: Profile, *, arch: str, capabilities: Set[str], kernel: Kernel, best_effort: bool = False
) -> SystemdUnit:
    """The lines that make systemd filter as `profile` does on such a host. The keywords are those of `compile_filter`.

    Raises ProfileError for what systemd can't do: conditions on arguments, SCMP_ACT_KILL and SCMP_ACT_KILL_THREAD
    (it only kills the process), TRAP, TRACE, NOTIFY, a default of errno 0, flags but TSYNC, a listener. With
    `best_effort`, the stricter choice is taken instead and a finding names it. A profile that stops write(2) is
    refused in any case: systemd lets that call through on its own account. The lines begin with resets, so
    that nothing the unit said before them counts.
    """
    settled = settle(profile, arch, capabilities, kernel)
    _require_write(settled)
    compromises = (*settled.compromises, *_unused_keys(profile))
    if compromises and not best_effort:
        raise _refusal(compromises[0])
    abis = declared_abis(profile, arch)
    lines = (*_architecture_lines(abis), *_filter_lines(settled), *_log_lines(settled, abis))
    return SystemdUnit(lines, (*map(_finding, compromises), *_remarks(settled)))


def _require_write(settled: Settled) -> None:
    answer = settled.answer("write")
    if not answer.passes:
        raise ProfileError(
            "systemd always lets write through, to report that the service started",
            path=answer.where,
            need="a profile that allows write",
            hint="run the command with immure, which keeps to the profile",
        )


def _unused_keys(profile: Profile) -> Iterator[Compromise]:
    for index, flag in enumerate(profile.flags or ()):
        # systemd loads the filter while the process has one thread.
        if flag is not Flag.TSYNC:
            yield Compromise("flag", f"$.flags[{index}]", f"systemd can't be told to set {flag.value}", "no flag")
    if profile.listener_path is not None:
        yield Compromise("listener", "$.listenerPath", "systemd has no listeners", "no listener")


def _refusal(compromise: Compromise) -> ProfileError:
    return ProfileError(
        compromise.message,
        path=compromise.where,
        need="what SystemCallFilter= can say",
        hint=f"change the rule, or ask for best effort: {compromise.taken}",
    )


def _finding(compromise: Compromise) -> Finding:
    message = f"{compromise.message}; taken instead: {compromise.taken}"
    return Finding(f"systemd-{compromise.code}", "warning", compromise.where, message)


def _remarks(settled: Settled) -> Iterator[Finding]:
    if decode(settled.default.value)[0] not in PERMISSIVE and settled.default.value != ENOSYS_RETURN:
        message = "calls newer than the profile get the default action, not ENOSYS"
        yield Finding("systemd-newer-calls", "warning", settled.default.where, message)
    if settled.default.passes and any(not one.passes for one in settled.calls.values()):
        message = "a libseccomp that is older than a call skips its name in a list of calls to stop"
        yield Finding("systemd-deny-list", "warning", settled.default.where, message, "a list of calls to allow")
    if not settled.answer("execve").passes:
        message = "systemd starts the command with execve under the filter, so the service can't start"
        yield Finding("systemd-no-start", "warning", settled.answer("execve").where, message, "allow execve")


def _architecture_lines(abis: Iterable[Abi]) -> Iterator[str]:
    yield "SystemCallArchitectures="
    yield f"SystemCallArchitectures={' '.join(_ARCHES[abi.name] for abi in abis)}"


def _filter_lines(settled: Settled) -> Iterator[str]:
    yield "SystemCallFilter="
    if not settled.default.passes:
        # An allow list begins with all of @default in it, which the profile needn't allow.
        yield f"SystemCallErrorNumber={_word(settled.default.value)}"
        yield "SystemCallFilter=@default"
        yield "SystemCallFilter=~@default"
        yield from _listing("SystemCallFilter", "", [name for name, one in settled.calls.items() if one.passes])
    # Where the error is the default one, libseccomp refuses a rule that says so again.
    stopped = {name: one.value for name, one in settled.calls.items() if not one.passes}
    marked = [f"{name}:{_word(value)}" for name, value in stopped.items() if value != settled.default.value]
    yield from _listing("SystemCallFilter", "~", marked)


def _log_lines(settled: Settled, abis: Iterable[Abi]) -> Iterator[str]:
    yield "SystemCallLog="
    actions = {name: decode(one.value)[0] for name, one in settled.calls.items()}
    if decode(settled.default.value)[0] is Action.LOG:
        silent = [name for name, action in actions.items() if action is Action.ALLOW]
        yield from _listing("SystemCallLog", "~", silent or [_call_of_others(abis)])
    else:
        logged = [name for name, action in actions.items() if action is Action.LOG]
        yield from _listing("SystemCallLog", "", logged)


def _call_of_others(abis: Iterable[Abi]) -> str:
    """A call that none of `abis` has: to systemd, an empty list of exceptions is no list at all."""
    ours = {name for abi in abis for name in numbers(abi)}
    return min(known_names() - ours)


def _listing(key: str, sign: str, words: list[str]) -> Iterator[str]:
    for part in wrap(" ".join(sorted(words)), 100, break_long_words=False, break_on_hyphens=False):
        yield f"{key}={sign}{part}"


def _word(value: int) -> str:
    action, number = decode(value)
    if action is Action.KILL_PROCESS or number is None:
        return "kill"
    is_common = 0 < number <= _LAST_COMMON_ERRNO or number == ENOSYS
    return errno.errorcode[number] if is_common else str(number)
