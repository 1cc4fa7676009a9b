"""Malformed profiles in every form: the error names the place, what is wrong there, and what may have been meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from immure.errors import ProfileError
from immure.policy.seccomp import Action, Profile, Rule, Scope
from immure.policy.seccomp.formats import read_any

DOCUMENTS = Path(__file__).parent / "bad_profiles"
BASES = {
    "runc-v1.4.2": Profile(default_action=Action.ERRNO),
    "scoped": Profile(
        default_action=Action.ERRNO,
        syscalls=(Rule(action=Action.ALLOW, names=("read",), includes=Scope(arches=("amd64",))),),
    ),
}

REFUSED = {
    "a-list.json": ("$", "expected `object`, got `array`"),
    "a-list.yaml": ("$", "expected `object`, got `array`"),
    "both-architectures.json": ("$", "both `architectures` and `archMap`"),
    "comma-too-many.json": ("$", "line 3, column 1: trailing comma"),
    "empty-name.json": ("$.syscalls[0]", "the name of at least one call"),
    "empty.json": ("$", "truncated"),
    "empty.yaml": ("$", "empty.yaml is empty"),
    "errno-negative.json": ("$.syscalls[0]", "errnoRet is -1"),
    "errno-on-allow.json": ("$.syscalls[0]", "SCMP_ACT_ALLOW can't carry an errno"),
    "errno-on-default-allow.json": ("$", "SCMP_ACT_ALLOW can't carry an errno"),
    "errno-too-large.json": ("$.syscalls[0]", "errnoRet is 65536"),
    "errnos-that-differ.json": ("$.syscalls[0]", "ENOSYS is 38"),
    "index-6.json": ("$.syscalls[0].args[0]", "index is 6"),
    "kernel-with-patch-level.json": ("$.syscalls[0].includes", "minKernel is '5.4.1'"),
    "key-as-number.yaml": ("$", "expected `str`"),
    "name-and-names.json": ("$.syscalls[0]", "both `name` and `names`"),
    "name-as-truth.yaml": ("$.syscalls[0].names[1]", "expected `str`, got `bool`"),
    "names-as-text.json": ("$.syscalls[0].names", "got `str`"),
    "no-default-action.json": ("$", "`defaultAction`"),
    "no-names.json": ("$.syscalls[0]", "the name of at least one call"),
    "not-utf-8.json": ("$", "not JSON"),
    "not-utf-8.yaml": ("$", "line 2 is not UTF-8"),
    "not-yaml.yaml": ("$", "line 2, column 1"),
    "nul-byte.json": ("$", "line 1, column 29"),
    "nul-byte.yaml": ("$", "control characters"),
    "object-among-others.yaml": ("$", "no SeccompProfile"),
    "object-base-over-http.yaml": ("$.spec.baseProfileName", "fetch it, give it under a name"),
    "object-disabled.yaml": ("$.spec.disabled", "the profile is disabled"),
    "object-errno-on-allow.yaml": ("$.spec.syscalls[0]", "SCMP_ACT_ALLOW can't carry an errno"),
    "object-index-6.yaml": ("$.spec.syscalls[0].args[0]", "index is 6"),
    "object-no-default-action.yaml": ("$.spec", "`defaultAction`"),
    "object-no-kind.yaml": ("$.kind", "have: nothing"),
    "object-no-names.yaml": ("$.spec.syscalls[0]", "the name of at least one call"),
    "object-no-spec.yaml": ("$", "`spec`"),
    "object-no-version.yaml": ("$.apiVersion", "x-k8s.io/v1beta1"),
    "object-other-kind.yaml": ("$.kind", "'AppArmorProfile'"),
    "object-other-version.yaml": ("$.apiVersion", "x-k8s.io/v1`?"),
    "object-remote-base.yaml": (
        "$.spec.baseProfileName",
        "oci://ghcr.io/security-profiles/runc:v1.4.2 is kept elsewhere",
    ),
    "object-repeated-key.json": ("$.spec", "lines 5 and 6"),
    "object-scoped-base.yaml": ("$.spec.baseProfileName", "`includes`"),
    "object-state-disabled.yaml": ("$.spec.state", "remove the key"),
    "object-two.yaml": ("$", "SeccompProfile web, SeccompProfile db"),
    "object-unknown-action.json": ("$.spec.syscalls[0].action", "'ALLOW'"),
    "object-unknown-action.yaml": ("$.spec.syscalls[0].action", "did you mean `SCMP_ACT_ALLOW`?"),
    "object-unknown-architecture.yaml": ("$.spec.architectures[1]", "did you mean `SCMP_ARCH_X86_64`?"),
    "object-unknown-base.yaml": (
        "$.spec.baseProfileName",
        "have: runc-v1.4.2, scoped; to do: did you mean `runc-v1.4.2`?",
    ),
    "object-unknown-flag.yaml": ("$.spec.flags[0]", "did you mean `SECCOMP_FILTER_FLAG_LOG`?"),
    "object-unknown-key-of-rule.yaml": ("$.spec.syscalls[0]", "did you mean `names`?"),
    "object-unknown-key.yaml": ("$.spec", "unknown key `defaultErrnoRet`"),
    "only-comments.yaml": ("$", "is empty"),
    "python-object.yaml": ("$", "line 2, column 10"),
    "repeated-key-of-rule.json": ("$.syscalls[1]", "the key `action` is there twice"),
    "repeated-key.json": ("$", "lines 2 and 3"),
    "repeated-key.yaml": ("$", "lines 1 and 3"),
    "syscalls-as-object.json": ("$.syscalls", "got `object`"),
    "tab.yaml": ("$", "line 2, column 1"),
    "trailing-text.json": ("$", "trailing"),
    "truncated.json": ("$", "truncated"),
    "two-profiles.yaml": ("$", "holds 2 documents"),
    "unknown-action.json": ("$.syscalls[1].action", "did you mean `SCMP_ACT_ALLOW`?"),
    "unknown-action.yaml": ("$.syscalls[0].action", "did you mean `SCMP_ACT_KILL`?"),
    "unknown-architecture.json": ("$.architectures[0]", "did you mean `SCMP_ARCH_X86_64`?"),
    "unknown-default-action.json": ("$.defaultAction", "did you mean `SCMP_ACT_ERRNO`?"),
    "unknown-errno.json": ("$.syscalls[0]", "did you mean `ENOSYS`?"),
    "unknown-flag.json": ("$.flags[0]", "did you mean `SECCOMP_FILTER_FLAG_TSYNC`?"),
    "unknown-key-of-rule.json": ("$.syscalls[0]", "did you mean `args`?"),
    "unknown-key.json": ("$", "did you mean `defaultAction`?"),
    "unknown-key.yaml": ("$", "did you mean `syscalls`?"),
    "unknown-operator.json": ("$.syscalls[0].args[0].op", "did you mean `SCMP_CMP_EQ`?"),
    "value-as-text.json": ("$.syscalls[0].args[0].value", "expected `int`, got `str`"),
    "value-as-truth.yaml": ("$.syscalls[0].args[0].value", "expected `int`, got `bool`"),
    "value-negative.json": ("$.syscalls[0].args[0]", "value is -1"),
    "value-too-large.json": ("$.syscalls[0].args[0]", "64 bits"),
    "value-with-fraction.json": ("$.syscalls[0].args[0].value", "got `float`"),
}

DEEP = {
    "deep.json": b"[" * 100_000,
    "deep-objects.json": b'{"a":' * 100_000,
    "deep-flow.yaml": b"[" * 100_000,
    "deep-blocks.yaml": b"- " * 100_000,
    "deep-but-whole.yaml": b"a: " + b"[" * 500 + b"]" * 500,
}


@pytest.mark.parametrize(("name", "expected"), REFUSED.items(), ids=REFUSED)
def test_refused_with_path_and_reason(name: str, expected: tuple[str, str]) -> None:
    path, says = expected
    with pytest.raises(ProfileError) as caught:
        read_any((DOCUMENTS / name).read_bytes(), name=name, bases=BASES)
    assert caught.value.path == path
    assert says in str(caught.value)


@pytest.mark.parametrize(("name", "text"), DEEP.items(), ids=DEEP)
def test_a_document_of_too_many_levels_is_refused(name: str, text: bytes) -> None:
    with pytest.raises(ProfileError, match="nest"):
        read_any(text, name=name, bases={})


def test_every_bad_profile_is_looked_at() -> None:
    assert {file.name for file in DOCUMENTS.iterdir()} == set(REFUSED)
