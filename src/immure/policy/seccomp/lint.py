"""What a profile lets through that its author can hardly have meant.

`check_profile` looks at the text alone; this looks at what the rules come to on one architecture. Every finding about
an argument names a call that shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import msgspec

from .actions import ENOSYS_RETURN, PERMISSIVE, RETURNS, describe, severity
from .classes import classes
from .decide import answer_to, clauses_at, deciding_rules
from .findings import Finding
from .int_arguments import INT_ARGUMENTS
from .profile import Arg, Profile
from .resolve import AbiPolicy, Clause, Kernel, applying_rules, resolve
from .syscalls import numbers

_OPEN = {RETURNS[action] for action in PERMISSIVE}
_GARBAGE = 1 << 32

#: Calls that a profile for untrusted code seldom means to allow, and what they give.
_DANGEROUS = {
    "acct": "process accounting of the whole host",
    "add_key": "the kernel's keyrings, which namespaces do not separate",
    "bpf": "programs in the kernel",
    "delete_module": "kernel modules",
    "finit_module": "kernel modules",
    "fsopen": "new mounts",
    "init_module": "kernel modules",
    "ioperm": "the machine's ports",
    "iopl": "the machine's ports",
    "kexec_file_load": "another kernel",
    "kexec_load": "another kernel",
    "keyctl": "the kernel's keyrings, which namespaces do not separate",
    "mount": "new mounts",
    "move_mount": "new mounts",
    "open_by_handle_at": "files outside the mount namespace, by handle",
    "perf_event_open": "a large interface of the kernel, and what other processes do",
    "pivot_root": "another root",
    "reboot": "the machine",
    "request_key": "the kernel's keyrings, which namespaces do not separate",
    "setns": "other namespaces",
    "swapon": "the host's memory",
    "unshare": "new namespaces, and in them most of the kernel",
    "userfaultfd": "a way to stop the kernel in the middle of a copy",
}


def lint_profile(
    profile: Profile,
    *,
    arch: str = "x86_64",
    capabilities: Set[str] = frozenset(),
    kernel: Kernel = (6, 1),
) -> tuple[Finding, ...]:
    """All findings on a host of this architecture. The keywords are those of `compile_filter`."""
    policies = resolve(profile, arch, capabilities, kernel)
    applying = {index for index, _ in applying_rules(profile, arch, capabilities, kernel)}
    found: dict[Finding, list[str]] = {}
    for policy in policies:
        for check in (_truncated, _clone3, _multiplexed, _io_uring, _dangerous):
            for finding in check(policy):
                found.setdefault(finding, []).append(policy.abi.name)
    told = (msgspec.structs.replace(one, message=f"{one.message} ({', '.join(abis)})") for one, abis in found.items())
    others = (finding for policy in policies[1:] for finding in _open_abi(profile, policy))
    return (*_dead_rules(profile, policies, applying), *told, *others)


def _dead_rules(profile: Profile, policies: Sequence[AbiPolicy], applying: set[int]) -> Iterator[Finding]:
    """Rules that never decide, whatever the arguments, though they apply and name calls of these ABIs."""
    alive: set[tuple[int, str]] = set()
    present: set[tuple[int, str]] = set()
    for policy in policies:
        names = {number: name for name, number in numbers(policy.abi).items()}
        for number, clauses in policy.clauses.items():
            present |= {(clause.rule, names[number]) for clause in clauses}
            alive |= {(rule, names[number]) for rule in deciding_rules(clauses_at(policy, number))}
    for index, rule in enumerate(profile.rules):
        dead = sorted({name for name in rule.calls if (index, name) in present - alive})
        if index in applying and dead:
            what = "the rule never decides" if len(dead) == len(set(rule.calls)) else f"never decides {', '.join(dead)}"
            yield Finding(
                "dead-rule",
                "warning",
                f"$.syscalls[{index}]",
                f"{what}: other rules that are as strict or stricter come first, or its conditions exclude each other",
                "remove it, or what stands in its way",
            )


def _truncated(policy: AbiPolicy) -> Iterator[Finding]:
    """The kernel looks at 32 bits of an int; a rule that looks at 64 can be got round by what it ignores."""
    for name, positions in INT_ARGUMENTS.items():
        number = numbers(policy.abi).get(name)
        clauses = clauses_at(policy, number) if number is not None else ()
        for position in positions:
            here = [one for clause in clauses for one in clause.conditions if one.index == position]
            witness = _way_round(policy, number or 0, position, here)
            if witness is not None:
                rule, honest, trick = witness
                yield Finding(
                    "truncated-argument",
                    "error",
                    f"$.syscalls[{rule}]" if rule is not None else "$.defaultAction",
                    f"{name}: the kernel takes argument {position} as 32 bits, so {trick:#x} is "
                    f"{honest:#x} to it, but gets a looser answer",
                    f"compare with SCMP_CMP_MASKED_EQ and the mask {0xFFFFFFFF:#x}",
                )


def _way_round(
    policy: AbiPolicy, number: int, position: int, conditions: Sequence[Arg]
) -> tuple[int | None, int, int] | None:
    for value in classes(list(dict.fromkeys(conditions))).values() if conditions else ():
        honest = value & 0xFFFF_FFFF
        for trick in (honest | _GARBAGE, value):
            if trick == honest:
                continue
            strict = answer_to(policy, number, {position: honest})
            loose = answer_to(policy, number, {position: trick})
            if severity(strict.value) < severity(loose.value):
                return loose.rule if loose.rule >= 0 else None, honest, trick
    return None


def _clone3(policy: AbiPolicy) -> Iterator[Finding]:
    table = numbers(policy.abi)
    if "clone3" not in table or not _limited(policy, "clone"):
        return
    clause = answer_to(policy, table["clone3"], {})
    if clause.value in _OPEN:
        yield Finding(
            "clone3-open",
            "error",
            _place(clause.rule),
            "clone is limited, but clone3 is open, and its flags are where no filter can look",
            "answer clone3 with ENOSYS (errnoRet 38): C libraries then use clone",
        )
    elif clause.value != ENOSYS_RETURN:
        yield Finding(
            "clone3-errno",
            "warning",
            _place(clause.rule),
            f"clone3 gets {describe(clause.value)}; C libraries fall back on clone only at ENOSYS",
            "errnoRet 38",
        )


def _multiplexed(policy: AbiPolicy) -> Iterator[Finding]:
    """One old call that does the work of many: socketcall(2)."""
    table = numbers(policy.abi)
    if "socketcall" not in table or not _limited(policy, "socket"):
        return
    clause = answer_to(policy, table["socketcall"], {})
    if clause.value in _OPEN:
        yield Finding(
            "socketcall-open",
            "error",
            _place(clause.rule),
            "socket is limited, but socketcall makes any socket, from arguments in memory",
            "refuse socketcall, or do not declare this architecture",
        )


def _io_uring(policy: AbiPolicy) -> Iterator[Finding]:
    number = numbers(policy.abi).get("io_uring_setup")
    clause = answer_to(policy, number, {}) if number is not None else None
    if clause is not None and clause.value in _OPEN:
        limited = [name for name in ("socket", "connect", "openat", "openat2", "unlinkat") if _limited(policy, name)]
        what = f"what {', '.join(limited)} may not" if limited else "what many calls do"
        yield Finding(
            "io-uring-open",
            "error" if limited else "warning",
            _place(clause.rule),
            f"io_uring does {what}, without a call that a filter sees",
            "refuse io_uring_setup",
        )


def _dangerous(policy: AbiPolicy) -> Iterator[Finding]:
    for name, gives in _DANGEROUS.items():
        number = numbers(policy.abi).get(name)
        clause = answer_to(policy, number, {}) if number is not None else None
        if clause is not None and clause.value in _OPEN:
            message = f"{name} is allowed: {gives}"
            yield Finding("dangerous-call", "warning", _place(clause.rule), message, f"refuse {name}")


def _open_abi(profile: Profile, policy: AbiPolicy) -> Iterator[Finding]:
    """Another ABI than the native one: x32, or the 32-bit entries of a 64-bit kernel."""
    yield Finding(
        "abi-open",
        "warning",
        "$.archMap" if profile.arch_map else "$.architectures",
        f"programs of {policy.abi.name} are served too, by entries of the kernel that few programs need",
        f"do not declare {policy.abi.oci}",
    )


def _limited(policy: AbiPolicy, name: str) -> bool:
    """Whether some arguments of the call are refused."""
    number = numbers(policy.abi).get(name)
    return number is not None and any(clause.value not in _OPEN for clause in _answers(policy, number))


def _answers(policy: AbiPolicy, number: int) -> Iterator[Clause]:
    clauses = clauses_at(policy, number)
    deciding = deciding_rules(clauses)
    return (clause for clause in clauses if clause.rule in deciding)


def _place(rule: int) -> str:
    return f"$.syscalls[{rule}]" if rule >= 0 else "$.defaultAction"
