"""The object `SeccompProfile` of Kubernetes → `Profile`.

Source of the semantics: security-profiles-operator, api/seccompprofile and internal/pkg/daemon/seccompprofile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from immure.errors import ProfileError
from immure.policy.seccomp.actions import Action
from immure.policy.seccomp.faults import Models, explain, nearest
from immure.policy.seccomp.profile import Architecture, Arg, Flag, Operator, Profile, Rule

from .union import union_rules

KIND = "SeccompProfile"

_GROUP = "security-profiles-operator.x-k8s.io"
_VERSIONS = tuple(f"{_GROUP}/{version}" for version in ("v1", "v1beta1", "v1alpha1"))

# What that operator adds to the runtime-spec's names. The native one is always among ours.
_NATIVE = "SCMP_ARCH_NATIVE"


class _Strict(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Base of the models: immutable, camelCase in the document, an unknown key is an error."""


class _Arg(_Strict, frozen=True):
    index: int
    op: Operator
    value: int | None = None
    value_two: int | None = None

    def __post_init__(self) -> None:
        self.read()

    def read(self) -> Arg:
        return Arg(index=self.index, value=self.value or 0, op=self.op, value_two=self.value_two or 0)


class _Syscall(_Strict, frozen=True):
    names: tuple[str, ...]
    action: Action
    errno_ret: int | None = None
    args: tuple[_Arg, ...] | None = None

    def __post_init__(self) -> None:
        self.read()

    def read(self) -> Rule:
        # The operator leaves an errno of 0 out of what it installs: EPERM then, not a call that seems to succeed.
        args = tuple(arg.read() for arg in self.args or ())
        return Rule(action=self.action, names=self.names, errno_ret=self.errno_ret or None, args=args or None)


class _Spec(_Strict, frozen=True):
    default_action: Action
    state: Literal["Enabled", "Disabled"] | None = None
    # What `state` was called before.
    disabled: bool | None = None
    base_profile_name: str | None = None
    architectures: tuple[str, ...] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None
    syscalls: tuple[_Syscall, ...] | None = None
    flags: tuple[Flag, ...] | None = None


class _Object(_Strict, frozen=True):
    api_version: str
    kind: str
    spec: _Spec
    metadata: dict[str, Any] | None = None
    status: Any = None


_MODELS: Models = (
    (r"\.args\[\d+\]$", _Arg),
    (r"\.syscalls\[\d+\]$", _Syscall),
    (r"\.spec$", _Spec),
    (r"", _Object),
)


def read_object(document: object, bases: Mapping[str, Profile]) -> Profile:
    """The profile that the object holds, merged with the one of `bases` that it builds on.

    Raises ProfileError for another kind or version, a disabled profile, a base that isn't in `bases`, and for
    all that `parse_profile` refuses.
    """
    _check_kind(document)
    try:
        spec = msgspec.convert(document, _Object).spec
    except msgspec.ValidationError as fault:
        raise explain(str(fault), "$", _MODELS) from fault
    _check_enabled(spec)
    rules = tuple(call.read() for call in spec.syscalls or ())
    if spec.base_profile_name:
        rules = union_rules(_base(spec.base_profile_name, bases).rules, rules)
    return Profile(
        default_action=spec.default_action,
        architectures=_architectures(spec.architectures),
        syscalls=rules,
        flags=spec.flags,
        listener_path=spec.listener_path,
        listener_metadata=spec.listener_metadata,
    )


def _check_kind(document: object) -> None:
    head = cast("dict[str, Any]", document)
    for key, known in (("apiVersion", _VERSIONS), ("kind", (KIND,))):
        have = head.get(key)
        if have not in known:
            raise ProfileError(
                "not a profile of Kubernetes",
                path=f"$.{key}",
                need=f"one of {', '.join(known)}",
                have="nothing" if have is None else repr(have),
                hint=nearest(have, known) if isinstance(have, str) else None,
            )


def _check_enabled(spec: _Spec) -> None:
    for key, is_off in (("state", spec.state == "Disabled"), ("disabled", spec.disabled)):
        if is_off:
            raise ProfileError(
                "the profile is disabled", path=f"$.spec.{key}", need="a profile that is in use", hint="remove the key"
            )


def _architectures(words: tuple[str, ...] | None) -> tuple[Architecture, ...] | None:
    if words is None:
        return None
    known = {member.value: member for member in Architecture}
    for index, word in enumerate(words):
        if word != _NATIVE and word not in known:
            path = f"$.spec.architectures[{index}]"
            raise ProfileError(f"unknown name {word!r}", path=path, hint=nearest(word, [*known, _NATIVE]))
    return tuple(known[word] for word in words if word != _NATIVE)


def _base(name: str, bases: Mapping[str, Profile]) -> Profile:
    path = "$.spec.baseProfileName"
    if "://" in name:
        raise ProfileError(
            f"the base profile {name} is kept elsewhere, and nothing is fetched here",
            path=path,
            need="the name of a profile that is given",
            hint="fetch it, give it under a name, and write that name here",
        )
    if name not in bases:
        raise ProfileError(
            f"unknown base profile {name!r}",
            path=path,
            need="a profile that is given",
            have=", ".join(sorted(bases)) or "none",
            hint=nearest(name, list(bases)),
        )
    base = bases[name]
    if any(rule.includes or rule.excludes for rule in base.rules):
        raise ProfileError(
            f"the base profile {name!r} has rules with `includes` or `excludes`",
            path=path,
            need="rules that apply everywhere",
            hint="take the scopes out of the base",
        )
    return base
