"""How a profile of Kubernetes builds on another: the union of both lists of rules.

This is security-profiles-operator's own merge, with its edges, so that a profile means here what it means in a
cluster: one rule per call; of two actions the less restrictive one; a rule without conditions wins over one
with them; the conditions of two rules end up in one rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from immure.policy.seccomp.actions import encode, severity
from immure.policy.seccomp.profile import Arg, Rule


def union_rules(base: Sequence[Rule], own: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules of both, one per call, sorted by its name. On a tie the base's errno stays.

    Rules must have no `includes` and `excludes`.
    """
    merged = _by_name(base)
    for name, rule in _by_name(own).items():
        merged[name] = _union(merged[name], rule) if name in merged else rule
    return tuple(merged[name] for name in sorted(merged))


def _by_name(rules: Sequence[Rule]) -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for rule in rules:
        for name in rule.calls:
            one = Rule(action=rule.action, names=(name,), errno_ret=rule.data, args=rule.args or None)
            found[name] = _union(found[name], one) if name in found else one
    return found


def _union(left: Rule, right: Rule) -> Rule:
    picked = max(left, right, key=lambda rule: severity(encode(rule.action, None)))
    return Rule(action=picked.action, names=left.names, errno_ret=picked.errno_ret, args=_union_args(left, right))


def _union_args(left: Rule, right: Rule) -> tuple[Arg, ...] | None:
    if not left.args or not right.args:
        return None
    return left.args + tuple(arg for arg in right.args if arg not in left.args)
