"""The compiler: `Profile` → `Filter`.

    profile ─resolve→ clauses per call ─predicates→ graph per call ─search→ graph ─assemble→ instructions

Of the rules that match a call the one with the most restrictive action wins (seccomp(2)'s order), of equals
the first in the document; where none matches, the default action. `evaluate.py` is the definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from immure.errors import ProfileError

from .abi import X32_BIT
from .actions import ENOSYS_RETURN, RETURNS, Action, severity
from .assemble import assemble
from .bpf import ARCH_OFFSET, JEQ, NR_OFFSET, RET, Instruction
from .combine import stricter
from .filter import MAX_INSTRUCTIONS, Filter
from .graph import Graph
from .predicates import Predicates
from .profile import FLAG_BITS, Profile
from .resolve import AbiPolicy, Clause, Kernel, resolve
from .search import Interval, search

_ASKS = RETURNS[Action.NOTIFY]
_NEW_LISTENER = 8


def compile_filter(
    profile: Profile,
    *,
    arch: str = "x86_64",
    capabilities: Set[str] = frozenset(),
    kernel: Kernel = (6, 1),
    beside: Profile | None = None,
) -> Filter:
    """Compile `profile` for a host.

    `arch` is the kernel's architecture; the filter serves every ABI of it that the profile declares, and
    answers ENOSYS on the others. `capabilities` (`CAP_…`) and `kernel` decide `includes` and `excludes`.
    `beside` is a second profile, such as the guard: of both answers to a call the stricter counts.
    A program that asks a supervisor has SECCOMP_FILTER_FLAG_NEW_LISTENER among its flags.
    Raises ProfileError for more instructions than the kernel takes.
    """
    policies = resolve(profile, arch, capabilities, kernel)
    if beside is not None:
        others = {policy.abi: policy for policy in resolve(beside, arch, capabilities, kernel)}
        policies = tuple(stricter(one, others[one.abi]) if one.abi in others else one for one in policies)
    instructions = _compile(policies, one_by_one=False)
    if len(instructions) > MAX_INSTRUCTIONS:
        instructions = _compile(policies, one_by_one=True)
    if len(instructions) > MAX_INSTRUCTIONS:
        raise _too_large(profile, len(instructions))
    flags = sum({FLAG_BITS[flag] for flag in profile.flags or ()})
    if any(one.code == RET and one.k == _ASKS for one in instructions):
        flags |= _NEW_LISTENER
    native = policies[0].abi
    return Filter(instructions, native.name, flags, native.big_endian)


def _compile(policies: Sequence[AbiPolicy], *, one_by_one: bool) -> tuple[Instruction, ...]:
    graph = Graph()
    predicates = Predicates(graph, big_endian=policies[0].abi.big_endian, one_by_one=one_by_one)
    return assemble(graph, _by_arch(graph, predicates, policies))


def _by_arch(graph: Graph, predicates: Predicates, policies: Sequence[AbiPolicy]) -> int:
    """Tell the ABIs apart, the native one first. A foreign one gets ENOSYS: asking must not kill."""
    by_audit: dict[int, list[AbiPolicy]] = {}
    for policy in policies:
        by_audit.setdefault(policy.abi.audit, []).append(policy)
    native = policies[0].abi.audit
    node = graph.ret(ENOSYS_RETURN)
    for audit, group in reversed(by_audit.items()):
        calls = search(graph, _intervals(graph, predicates, group), load=NR_OFFSET)
        node = graph.test(JEQ, audit, calls, node, load=ARCH_OFFSET if audit == native else None)
    return node


def _intervals(graph: Graph, predicates: Predicates, group: Sequence[AbiPolicy]) -> list[Interval]:
    """All call numbers of one AUDIT_ARCH, in order: x86_64's, and above them x32's."""
    intervals = [interval for policy in group for interval in _calls(graph, predicates, policy)]
    if [policy.abi.name for policy in group] == ["x86_64"]:
        intervals.append((X32_BIT, graph.ret(ENOSYS_RETURN)))
    return intervals


def _calls(graph: Graph, predicates: Predicates, policy: AbiPolicy) -> Iterable[Interval]:
    default = graph.ret(policy.default)
    after = policy.abi.first
    for number, clauses in sorted(policy.clauses.items()):
        if number > after:
            yield after, default
        yield number, _call(graph, predicates, clauses, default)
        after = number + 1
    yield after, default if policy.newest is None else graph.ret(ENOSYS_RETURN)


def _call(graph: Graph, predicates: Predicates, clauses: Sequence[Clause], default: int) -> int:
    ordered = sorted(clauses, key=lambda clause: severity(clause.value))
    if not ordered[0].conditions:
        return graph.ret(ordered[0].value)
    return predicates.decide([(clause.conditions, graph.ret(clause.value)) for clause in ordered], default)


def _too_large(profile: Profile, size: int) -> ProfileError:
    sizes = [len(rule.calls) * (1 + len(rule.args or ())) for rule in profile.rules]
    index = sizes.index(max(sizes))
    return ProfileError(
        f"the filter has {size} instructions; this rule, for {profile.rules[index].calls[0]}, is the largest",
        path=f"$.syscalls[{index}]",
        need=f"at most {MAX_INSTRUCTIONS} instructions",
        hint="compare fewer argument values",
    )
