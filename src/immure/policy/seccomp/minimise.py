"""The same profile in fewer words."""

from __future__ import annotations

import msgspec

from .actions import encode, severity
from .profile import Profile, Rule
from .syscalls import known_names

_Key = tuple[object, ...]


class _Group:
    """Rules that become one, in the place of the first."""

    def __init__(self, rule: Rule, key: _Key) -> None:
        self.rule = rule
        self.key = key
        self.names: set[str] = set()


def minimise(profile: Profile) -> Profile:
    """A profile that answers every call as `profile` does, on every host, with fewer rules and names.

    Rules that differ in their names alone become one; names that no architecture has, that are there twice, or that
    another rule for all hosts and arguments makes void are left out. The first comment of a group stays, and names are
    in alphabetical order.
    """
    groups: list[_Group] = []
    for rule in _without_void(profile):
        for name in rule.calls:
            _group_for(groups, rule, name).names.add(name)
    rules = tuple(msgspec.structs.replace(group.rule, names=tuple(sorted(group.names)), name=None) for group in groups)
    return msgspec.structs.replace(profile, syscalls=rules or None)


def _group_for(groups: list[_Group], rule: Rule, name: str) -> _Group:
    """The first group that a name of a rule may join: none that stands before a rule for it that is as strict, but
    answers otherwise, since of those the first counts."""
    key = _key(rule)
    strictness = severity(encode(rule.action, rule.data))
    found: _Group | None = None
    for group in reversed(groups):
        if group.key == key:
            found = group
        elif name in group.names and severity(encode(group.rule.action, group.rule.data)) == strictness:
            break
    if found is None:
        found = _Group(rule, key)
        groups.append(found)
    elif found.rule.comment is None and rule.comment is not None:
        found.rule = msgspec.structs.replace(found.rule, comment=rule.comment)
    return found


def _key(rule: Rule) -> _Key:
    """Equal for rules that differ in their names alone, and have the same answer."""
    return (encode(rule.action, rule.data), rule.action, rule.args or (), rule.includes, rule.excludes)


def _without_void(profile: Profile) -> list[Rule]:
    """Rules with the names for which they can decide."""
    always: dict[str, int] = {}
    for rule in profile.rules:
        if not rule.args and rule.includes is None and rule.excludes is None:
            strictness = severity(encode(rule.action, rule.data))
            for name in rule.calls:
                always[name] = min(always.get(name, strictness), strictness)
    seen: set[str] = set()
    left: list[Rule] = []
    for rule in profile.rules:
        strictness = severity(encode(rule.action, rule.data))
        plain = not rule.args and rule.includes is None and rule.excludes is None
        names: list[str] = []
        for name in dict.fromkeys(rule.calls):
            void = name not in known_names() or strictness > always.get(name, strictness)
            # Of equally strict rules the first counts.
            if void or (name in seen and strictness == always.get(name)):
                continue
            names.append(name)
            if plain and strictness == always[name]:
                seen.add(name)
        if names:
            left.append(msgspec.structs.replace(rule, names=tuple(names), name=None))
    return left
