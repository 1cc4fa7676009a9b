"""Findings and comparisons, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from immure.policy.seccomp import Changed, Comparison, Decision, Difference, Finding
from immure.policy.seccomp.actions import describe, encode

_MOST_NAMES = 12


def finding_lines(name: str, findings: Sequence[Finding]) -> Iterator[str]:
    """One line for each finding, and one with what to do."""
    if not findings:
        yield f"{name}: nothing found"
    for one in findings:
        yield f"{name}: {one.severity}: {one.where}: {one.message} [{one.code}]"
        if one.fix is not None:
            yield f"    to do: {one.fix}"


def comparison_lines(first: str, second: str, comparison: Comparison) -> Iterator[str]:
    """The relation, then each pair of answers with the calls that get it and one call that shows it."""
    relation = comparison.relation
    if relation == "equal":
        yield f"{second} is equal to {first}: every call gets the same answer"
        return
    said = "is incomparable to" if relation == "incomparable" else f"is {relation} than"
    yield f"{second} {said} {first}"
    groups: dict[tuple[str, str, str, str], list[Difference]] = {}
    for one in comparison.differences:
        groups.setdefault((one.kind, one.abi, one.first.answer, one.second.answer), []).append(one)
    order = ("looser", "stricter", "other")
    for (kind, abi, before, after), ones in sorted(groups.items(), key=lambda item: order.index(item[0][0])):
        yield f"  {kind}, {abi}: {before} → {after}: {_calls(ones)}"
        yield f"      e.g. {_shown(ones[0])}"


def difference_document(one: Difference) -> dict[str, object]:
    """One difference as JSON (DESIGN, public surface)."""
    return {
        "part": "syscalls",
        "kind": one.kind,
        "witness": {"abi": one.abi, "call": one.call, "number": one.number, "count": one.count, "args": one.args},
        "a": {"answer": one.first.answer, "rule": one.first.rule},
        "b": {"answer": one.second.answer, "rule": one.second.rule},
    }


def changed_lines(changed: Sequence[Changed]) -> Iterator[str]:
    """Each call of a trace that another profile changes the answer of: how often, and which rules decide."""
    if not changed:
        yield "every recorded call gets the same answer"
    for one in changed:
        args = ", ".join(f"{value:#x}" for value in one.call.args)
        yield f"{one.name}: {_answer(one.old)} → {_answer(one.new)}, {one.count} times"
        yield f"      e.g. {one.name}({args}) by {_by(one.old)}, then by {_by(one.new)}"


def changed_document(one: Changed) -> dict[str, object]:
    """The same as JSON."""
    return {
        "abi": one.call.arch,
        "call": one.name,
        "number": one.call.nr,
        "count": one.count,
        "witness": list(one.call.args),
        "a": {"answer": _answer(one.old), "rule": one.old.rule},
        "b": {"answer": _answer(one.new), "rule": one.new.rule},
    }


def _answer(one: Decision) -> str:
    return describe(encode(one.action, one.errno))


def _by(one: Decision) -> str:
    return f"$.syscalls[{one.rule}]" if one.rule is not None else one.reason


def _calls(ones: Sequence[Difference]) -> str:
    names = list(dict.fromkeys(one.call for one in ones if one.call is not None))
    nameless = sum(one.count for one in ones if one.call is None)
    parts = [
        ", ".join(names[:_MOST_NAMES]) + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")
    ]
    if nameless:
        parts.append(f"{nameless} numbers without a name")
    return "; ".join(part for part in parts if part)


def _shown(one: Difference) -> str:
    args = ", ".join(f"{value:#x}" for value in one.args)
    rules = [f"$.syscalls[{side.rule}]" if side.rule is not None else "no rule" for side in (one.first, one.second)]
    return f"{one.call or one.number}({args}) by {rules[0]}, then by {rules[1]}"
