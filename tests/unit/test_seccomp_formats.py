"""Profiles in the forms of others: what is read, and that writing loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seccomp_cases import CORPUS, CORPUS_PROFILES, needs_corpus, profiles

from immure.policy.seccomp import (
    Action,
    Architecture,
    ArchMap,
    Arg,
    Flag,
    Operator,
    Profile,
    Rule,
    Scope,
    load_preset,
    parse_profile,
)
from immure.policy.seccomp.formats import read_any, to_oci

OF_THE_SPECIFICATION = b"""{
  "defaultAction": "SCMP_ACT_ERRNO",
  "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
  "syscalls": [
    {
      "names": ["accept", "accept4", "access", "arch_prctl"],
      "action": "SCMP_ACT_ALLOW",
      "args": []
    },
    {
      "names": ["clone"],
      "action": "SCMP_ACT_ALLOW",
      "args": [
        {
          "index": 0,
          "value": 2114060288,
          "valueTwo": 0,
          "op": "SCMP_CMP_MASKED_EQ"
        }
      ]
    }
  ]
}
"""
OBJECT = """
apiVersion: security-profiles-operator.x-k8s.io/%s
kind: SeccompProfile
metadata: {name: web, labels: {a: b}, creationTimestamp: 2024-01-01T00:00:00Z}
spec: %s
"""
FULL = """
  state: Enabled
  defaultAction: SCMP_ACT_NOTIFY
  architectures: [SCMP_ARCH_NATIVE, SCMP_ARCH_X86]
  flags: [SECCOMP_FILTER_FLAG_LOG]
  listenerPath: /var/run/security-profiles-operator/agent.sock
  listenerMetadata: a box
  syscalls:
  - {names: [read, write], action: SCMP_ACT_ALLOW}
  - names: [socket]
    action: SCMP_ACT_ERRNO
    errnoRet: 97
    args: [{index: 0, value: 40, op: SCMP_CMP_EQ}, {index: 1, op: SCMP_CMP_NE}]
"""
READ_PROFILES = [
    *CORPUS_PROFILES,
    "spo/baseprofile-crun.yaml",
    "spo/baseprofile-runc.yaml",
    "spo/seccompprofile-allowed-syscalls-change.yaml",
]


def read_object(spec: str, version: str = "v1beta1", **bases: Profile) -> Profile:
    return read_any((OBJECT % (version, spec)).encode(), name="web.yaml", bases=bases)


def allow(*names: str, args: tuple[Arg, ...] | None = None) -> Rule:
    return Rule(action=Action.ALLOW, names=names, args=args)


def equal(index: int, value: int) -> Arg:
    return Arg(index=index, value=value, op=Operator.EQ)


def corpus_text(name: str) -> bytes:
    return (Path(CORPUS or "") / name).read_bytes()


def test_the_form_of_the_specification() -> None:
    profile = parse_profile(OF_THE_SPECIFICATION)
    assert profile == read_any(OF_THE_SPECIFICATION, name="a.json", bases={})
    assert profile.rules[0].calls == ("accept", "accept4", "access", "arch_prctl")
    assert profile.rules[1].args == (Arg(index=0, value=2114060288, op=Operator.MASKED_EQ),)


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.yml", "a", "a.profile"])
def test_json_is_read_under_any_name(name: str) -> None:
    assert read_any(OF_THE_SPECIFICATION, name=name, bases={}) == parse_profile(OF_THE_SPECIFICATION)


def test_yaml_means_what_json_means() -> None:
    text = b"""
    defaultAction: SCMP_ACT_ERRNO
    syscalls:
    - {names: [ioctl], action: SCMP_ACT_ALLOW, args: [{index: 1, value: 0x5401, op: SCMP_CMP_EQ}]}
    """
    expected = Profile(default_action=Action.ERRNO, syscalls=(allow("ioctl", args=(equal(1, 0x5401),)),))
    assert read_any(text, name="a", bases={}) == expected


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1"])
def test_an_object_of_kubernetes(version: str) -> None:
    profile = read_object(FULL, version)
    assert profile == Profile(
        default_action=Action.NOTIFY,
        architectures=(Architecture.X86,),
        flags=(Flag.LOG,),
        listener_path="/var/run/security-profiles-operator/agent.sock",
        listener_metadata="a box",
        syscalls=(
            allow("read", "write"),
            Rule(
                action=Action.ERRNO,
                names=("socket",),
                errno_ret=97,
                args=(equal(0, 40), Arg(index=1, value=0, op=Operator.NE)),
            ),
        ),
    )


def test_an_object_in_json() -> None:
    document = {
        "apiVersion": "security-profiles-operator.x-k8s.io/v1",
        "kind": "SeccompProfile",
        "spec": {"defaultAction": "SCMP_ACT_LOG", "disabled": False},
        "status": {"path": "x"},
    }
    profile = read_any(json.dumps(document).encode(), name="a.json", bases={})
    assert profile == Profile(default_action=Action.LOG, syscalls=())


def test_an_errno_of_0_is_none_as_the_operator_has_it() -> None:
    profile = read_object(
        "{defaultAction: SCMP_ACT_ALLOW, syscalls: [{names: [read], action: SCMP_ACT_ERRNO, errnoRet: 0}]}"
    )
    assert profile.rules[0].data is None


def test_an_object_among_others() -> None:
    text = "kind: ConfigMap\n---\n" + OBJECT % ("v1", "{defaultAction: SCMP_ACT_LOG}") + "---\n# the end\n"
    assert read_any(text.encode(), name="all.yaml", bases={}).default_action is Action.LOG


def test_a_base_adds_its_rules_alone() -> None:
    base = Profile(default_action=Action.ALLOW, architectures=(Architecture.ARM,), syscalls=(allow("read", "openat"),))
    spec = """
      baseProfileName: runc
      defaultAction: SCMP_ACT_ERRNO
      architectures: [SCMP_ARCH_X86_64]
      syscalls: [{names: [write, read], action: SCMP_ACT_ALLOW}]
    """
    assert read_object(spec, runc=base) == Profile(
        default_action=Action.ERRNO,
        architectures=(Architecture.X86_64,),
        syscalls=(allow("openat"), allow("read"), allow("write")),
    )


@pytest.mark.parametrize(
    ("base", "own", "expected"),
    [
        # The less restrictive action wins, with its errno; on a tie the base's.
        (
            Rule(action=Action.ERRNO, names=("read",), errno_ret=2),
            "{names: [read], action: SCMP_ACT_LOG}",
            Rule(action=Action.LOG, names=("read",)),
        ),
        (
            Rule(action=Action.ERRNO, names=("read",), errno_ret=2),
            "{names: [read], action: SCMP_ACT_KILL}",
            Rule(action=Action.ERRNO, names=("read",), errno_ret=2),
        ),
        (
            Rule(action=Action.ERRNO, names=("read",), errno_ret=2),
            "{names: [read], action: SCMP_ACT_ERRNO, errnoRet: 3}",
            Rule(action=Action.ERRNO, names=("read",), errno_ret=2),
        ),
        # A rule without conditions wins; else the conditions come together, each once.
        (
            allow("read", args=(equal(0, 1),)),
            "{names: [read], action: SCMP_ACT_ALLOW}",
            allow("read"),
        ),
        (
            allow("read", args=(equal(1, 2), equal(0, 1))),
            "{names: [read], action: SCMP_ACT_ALLOW, args: ["
            "{index: 2, value: 3, op: SCMP_CMP_EQ}, {index: 0, value: 1, op: SCMP_CMP_EQ}]}",
            allow("read", args=(equal(1, 2), equal(0, 1), equal(2, 3))),
        ),
    ],
)
def test_a_base_and_a_profile_that_name_the_same_call(base: Rule, own: str, expected: Rule) -> None:
    runc = Profile(default_action=Action.ERRNO, syscalls=(base,))
    spec = f"{{defaultAction: SCMP_ACT_ERRNO, baseProfileName: runc, syscalls: [{own}]}}"
    assert read_object(spec, runc=runc).rules == (expected,)


@needs_corpus
@pytest.mark.parametrize("name", READ_PROFILES)
def test_corpus_profiles_are_read_and_come_back(name: str) -> None:
    profile = read_any(corpus_text(name), name=name, bases={})
    assert parse_profile(to_oci(profile)) == profile


@needs_corpus
@pytest.mark.parametrize("name", [name for name in READ_PROFILES if name.endswith(".json")])
def test_corpus_profiles_mean_the_same_in_yaml(name: str) -> None:
    text = corpus_text(name)
    translated = msgspec.yaml.encode(msgspec.json.decode(text))
    assert read_any(translated, name="a.yaml", bases={}) == parse_profile(text)


_scopes = st.none() | st.builds(
    Scope,
    caps=st.none() | st.just(("CAP_BPF",)),
    arches=st.none() | st.just(("amd64", "arm64")),
    min_kernel=st.none() | st.just("4.8"),
)
_text = st.none() | st.text(st.characters(codec="utf-8"))


@given(profiles(), _scopes, _scopes, _text, st.booleans())
@settings(max_examples=200, deadline=None)
def test_random_profiles_come_back(
    profile: Profile, includes: Scope | None, excludes: Scope | None, comment: str | None, mapped: bool
) -> None:
    rules = (
        *(
            msgspec.structs.replace(rule, includes=includes, excludes=excludes, comment=comment)
            for rule in profile.rules
        ),
        Rule(action=Action.TRACE, name="old", errno="ENOSYS"),
    )
    arch_map = (ArchMap(architecture=Architecture.X86_64, sub_architectures=(Architecture.X86,)),)
    profile = msgspec.structs.replace(
        profile,
        syscalls=rules,
        comment=comment,
        flags=tuple(Flag),
        listener_path=comment,
        architectures=None if mapped else profile.architectures,
        arch_map=arch_map if mapped else None,
    )
    text = to_oci(profile)
    assert parse_profile(text) == profile
    assert to_oci(parse_profile(text)) == text


def test_what_is_written_is_for_people_too() -> None:
    profile = Profile(default_action=Action.ERRNO, default_errno_ret=38, syscalls=(allow("read"),))
    assert to_oci(profile).decode().splitlines() == [
        "{",
        '  "defaultAction": "SCMP_ACT_ERRNO",',
        '  "defaultErrnoRet": 38,',
        '  "syscalls": [',
        "    {",
        '      "action": "SCMP_ACT_ALLOW",',
        '      "names": [',
        '        "read"',
        "      ]",
        "    }",
        "  ]",
        "}",
    ]
    assert parse_profile(to_oci(load_preset("default"))) == load_preset("default")
