"""Reading a profile: what is accepted, and what an error says."""

from __future__ import annotations

import json

import pytest

from immure.errors import ProfileError
from immure.policy.seccomp import Action, Architecture, Flag, Operator, check_profile, parse_profile

EQ = "SCMP_CMP_EQ"


def rule(**keys: object) -> dict[str, object]:
    return {"names": ["read"], "action": "SCMP_ACT_ERRNO", **keys}


def arg(**keys: object) -> dict[str, object]:
    return {"index": 0, "value": 1, "op": EQ, **keys}


def document(*rules: object, **keys: object) -> str:
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **keys})


def test_every_key_is_read() -> None:
    profile = parse_profile(
        document(
            rule(
                args=[arg(index=5, value=2**64 - 1, valueTwo=2**63, op="SCMP_CMP_MASKED_EQ")],
                errnoRet=38,
                comment="why",
                includes={"caps": ["CAP_BPF"], "arches": ["amd64"], "minKernel": "4.8"},
                excludes={"caps": ["CAP_SYS_ADMIN"]},
            ),
            defaultAction="SCMP_ACT_TRACE",
            defaultErrnoRet=7,
            archMap=[{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            flags=["SECCOMP_FILTER_FLAG_LOG"],
            listenerPath="/run/agent.sock",
            listenerMetadata="a box",
        )
    )
    read = profile.rules[0]
    assert (profile.default_action, profile.default_data) == (Action.TRACE, 7)
    assert profile.arch_map is not None
    assert profile.arch_map[0].sub_architectures == (Architecture.X86,)
    assert (profile.flags, profile.listener_path, profile.listener_metadata) == (
        (Flag.LOG,),
        "/run/agent.sock",
        "a box",
    )
    assert read.args is not None
    assert (read.args[0].op, read.args[0].value, read.args[0].value_two) == (
        Operator.MASKED_EQ,
        2**64 - 1,
        2**63,
    )
    assert read.includes is not None
    assert (read.data, read.comment, read.includes.min_kernel) == (38, "why", "4.8")


@pytest.mark.parametrize("action", [action.value for action in Action])
def test_every_action_is_read(action: str) -> None:
    assert parse_profile(document(defaultAction=action)).default_action.value == action


def test_nulls_of_docker_and_the_old_single_name() -> None:
    profile = parse_profile(
        document({"name": "read", "action": "SCMP_ACT_KILL", "args": None}, architectures=None, flags=None)
    )
    assert profile.rules[0].calls == ("read",)


def test_podmans_errno_names() -> None:
    profile = parse_profile(
        document(rule(errno="ENOSYS", errnoRet=38), defaultAction="SCMP_ACT_ERRNO", defaultErrno="EINVAL")
    )
    assert (profile.default_data, profile.rules[0].data) == (22, 38)


BAD = {
    "empty": ("", "$", "truncated"),
    "half": ('{"defaultAction":', "$", "truncated"),
    "not JSON": ("defaultAction: SCMP_ACT_ALLOW", "$", "line 1, column 1"),
    "place of a comma": ('{\n "defaultAction": "SCMP_ACT_ALLOW",\n}', "$", "line 3, column 1"),
    "trailing text": (document() + "x", "$", "trailing"),
    "not UTF-8": (b'{"defaultAction":"\xff"}', "$", "not JSON"),
    "lone surrogate": ('{"comment":"\ud800"}', "$", "not valid Unicode"),
    "array": ("[]", "$", "expected `object`"),
    "null": ("null", "$", "expected `object`"),
    "deep": ("[" * 100_000, "$", ""),
    "deep value": ('{"comment":' + "[" * 100_000, "$.comment", "expected"),
    "no default action": ("{}", "$", "defaultAction"),
    "unknown key": (document(defaultActoin="x"), "$", "did you mean `defaultAction`?"),
    "key of another case": (document(DefaultAction="x"), "$", "did you mean `defaultAction`?"),
    "unknown key without a neighbour": (document(zzz=1), "$", "unknown key `zzz`"),
    "unknown key of a rule": (document(rule(arg=[])), "$.syscalls[0]", "did you mean `args`?"),
    "unknown key of an argument": (
        document(rule(args=[arg(value2=1)])),
        "$.syscalls[0].args[0]",
        "did you mean `value`?",
    ),
    "unknown key of a scope": (
        document(rule(includes={"cap": []})),
        "$.syscalls[0].includes",
        "did you mean `caps`?",
    ),
    "unknown key of a map": (
        document(archMap=[{"architectures": "SCMP_ARCH_X86_64"}]),
        "$.archMap[0]",
        "did you mean `architecture`?",
    ),
    "unknown default action": (
        document(defaultAction="SCMP_ACT_ERNO"),
        "$.defaultAction",
        "did you mean `SCMP_ACT_ERRNO`?",
    ),
    "unknown action": (
        document(rule(), rule(action="SCMP_ACT_ALOW")),
        "$.syscalls[1].action",
        "did you mean `SCMP_ACT_ALLOW`?",
    ),
    "action of a wrong type": (document(rule(action=1)), "$.syscalls[0].action", "expected `str`"),
    "unknown operator": (
        document(rule(args=[arg(op="SCMP_CMP_EQUAL")])),
        "$.syscalls[0].args[0].op",
        "did you mean `SCMP_CMP_EQ`?",
    ),
    "unknown architecture": (
        document(architectures=["SCMP_ARCH_X8664"]),
        "$.architectures[0]",
        "did you mean `SCMP_ARCH_X86_64`?",
    ),
    "unknown flag": (
        document(flags=["SECCOMP_FILTER_FLAG_TSINC"]),
        "$.flags[0]",
        "did you mean `SECCOMP_FILTER_FLAG_TSYNC`?",
    ),
    "architectures twice": (
        document(architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "SCMP_ARCH_X86_64"}]),
        "$",
        "both `architectures` and `archMap`",
    ),
    "names twice": (document(rule(name="read")), "$.syscalls[0]", "both `name` and `names`"),
    "no names": (document(rule(names=[])), "$.syscalls[0]", "the name of at least one call"),
    "an empty name": (document(rule(names=["read", ""])), "$.syscalls[0]", "the name of at least one call"),
    "names of a wrong type": (document(rule(names="read")), "$.syscalls[0].names", "expected `array"),
    "a name of a wrong type": (document(rule(names=[1])), "$.syscalls[0].names[0]", "expected `str`"),
    "no action": (document({"names": ["read"]}), "$.syscalls[0]", "`action`"),
    "index too high": (document(rule(args=[arg(index=6)])), "$.syscalls[0].args[0]", "index is 6"),
    "index negative": (document(rule(args=[arg(index=-1)])), "$.syscalls[0].args[0]", "index is -1"),
    "no index": (
        document(rule(args=[{"value": 1, "op": "SCMP_CMP_EQ"}])),
        "$.syscalls[0].args[0]",
        "`index`",
    ),
    "no value": (
        document(rule(args=[{"index": 1, "op": "SCMP_CMP_EQ"}])),
        "$.syscalls[0].args[0]",
        "`value`",
    ),
    "no operator": (document(rule(args=[{"index": 1, "value": 1}])), "$.syscalls[0].args[0]", "`op`"),
    "value negative": (document(rule(args=[arg(value=-1)])), "$.syscalls[0].args[0]", "value is -1"),
    "value of 65 bits": (document(rule(args=[arg(value=2**64)])), "$.syscalls[0].args[0]", "64 bits"),
    "second value negative": (
        document(rule(args=[arg(valueTwo=-1)])),
        "$.syscalls[0].args[0]",
        "valueTwo is -1",
    ),
    "value with a fraction": (
        document(rule(args=[arg(value=1.5)])),
        "$.syscalls[0].args[0].value",
        "expected `int`",
    ),
    "value as text": (
        document(rule(args=[arg(value="0x1")])),
        "$.syscalls[0].args[0].value",
        "expected `int`",
    ),
    "args of a wrong type": (document(rule(args={})), "$.syscalls[0].args", "expected"),
    "errno negative": (document(rule(errnoRet=-1)), "$.syscalls[0]", "errnoRet is -1"),
    "errno of 17 bits": (document(rule(errnoRet=65536)), "$.syscalls[0]", "errnoRet is 65536"),
    "errno where none fits": (
        document(rule(action="SCMP_ACT_ALLOW", errnoRet=1)),
        "$.syscalls[0]",
        "SCMP_ACT_ALLOW can't carry an errno",
    ),
    "default errno where none fits": (
        document(defaultErrnoRet=1),
        "$",
        "SCMP_ACT_ALLOW can't carry an errno",
    ),
    "unknown errno": (document(rule(errno="ENOSIS")), "$.syscalls[0]", "did you mean `ENOSYS`?"),
    "errnos that differ": (document(rule(errno="ENOSYS", errnoRet=1)), "$.syscalls[0]", "ENOSYS is 38"),
    "kernel without a minor": (
        document(rule(includes={"minKernel": "5"})),
        "$.syscalls[0].includes",
        "minKernel is '5'",
    ),
    "kernel with a patch level": (
        document(rule(excludes={"minKernel": "5.4.1"})),
        "$.syscalls[0].excludes",
        "minKernel is '5.4.1'",
    ),
    "a key twice": ('{"defaultAction":"SCMP_ACT_ALLOW",\n"defaultAction":"SCMP_ACT_KILL"}', "$", "lines 1 and 2"),
    "a key twice in a rule": (
        document(rule(), comment='"{[,').replace('"action"', '"\\u0061ction": "SCMP_ACT_KILL", "action"'),
        "$.syscalls[0]",
        "the key `action` is there twice",
    ),
    "syscalls of a wrong type": (document(syscalls={}), "$.syscalls", "expected"),
}


@pytest.mark.parametrize(("text", "path", "says"), BAD.values(), ids=BAD)
def test_an_error_names_the_place_and_the_nearest_word(text: str | bytes, path: str, says: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse_profile(text)
    assert caught.value.path == path or says == ""
    assert says in str(caught.value)


def test_paths_begin_with_the_source() -> None:
    with pytest.raises(ProfileError) as caught:
        parse_profile(document(rule(action="x")), source="$.spec.syscalls.profile")
    assert caught.value.path == "$.spec.syscalls.profile.syscalls[0].action"


def test_findings_are_not_errors() -> None:
    profile = parse_profile(
        document(
            rule(names=["read", "opennat"]),
            rule(args=[arg(), arg(value=2)]),
            rule(errnoRet=5000),
            rule(includes={"caps": ["CAP_SYS_ADMN"], "arches": ["x86_64"]}),
        )
    )
    found = {(finding.code, finding.where, finding.fix) for finding in check_profile(profile)}
    assert found == {
        ("unknown-call", "$.syscalls[0].names[1]", "openat"),
        ("repeated-index", "$.syscalls[1].args", "write one rule per alternative"),
        ("errno-too-large", "$.syscalls[2].errnoRet", "4095"),
        ("unknown-caps", "$.syscalls[3].includes.caps[0]", "CAP_SYS_ADMIN"),
        ("unknown-arches", "$.syscalls[3].includes.arches[0]", None),
    }


def asking(*names: str) -> dict[str, object]:
    return rule(names=list(names), action="SCMP_ACT_NOTIFY")


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (document(asking("mount"), listenerPath="/run/listener"), []),
        (document(asking("mount")), ["$.syscalls[0].action"]),
        (document(rule(), asking("write"), listenerPath="/run/listener"), ["$.syscalls[1].names"]),
        (document(defaultAction="SCMP_ACT_NOTIFY", listenerPath="/run/listener"), ["$.defaultAction"]),
    ],
)
def test_what_runtimes_refuse_of_a_listener_is_found(text: str, places: list[str]) -> None:
    assert [one.where for one in check_profile(parse_profile(text)) if one.code == "listener"] == places
