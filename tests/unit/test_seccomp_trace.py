"""Traces: read line by line, and replayed against two profiles."""

from __future__ import annotations

import pytest

from immure.errors import ProfileError
from immure.policy.seccomp import Call, changed_calls, load_preset, numbers, parse_profile, read_trace
from immure.policy.seccomp.abi import ABIS

NUMBERS = numbers(ABIS["x86_64"])
HEAD = b'{"schema": "immure.trace/v1", "arch": "x86_64"}\n'
READ = b'{"abi": "x86_64", "call": "read", "number": 0, "args": [1, 2, 3, 4, 5, 6], "answer": "ALLOW"}\n'


def test_a_trace_is_read() -> None:
    arch, calls = read_trace([HEAD, READ, b"\n", READ], name="t")
    assert arch == "x86_64"
    assert list(calls) == [Call("x86_64", 0, (1, 2, 3, 4, 5, 6))] * 2


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        ([], "t:1", "can't be read"),
        ([b"{}\n"], "t:1", "schema"),
        ([b'{"schema": "immure.result/v1", "arch": "x86_64"}\n'], "t:1", "not a trace"),
        ([b'{"schema": "immure.trace/v1", "arch": "pdp11"}\n'], "t:1", "pdp11"),
        ([HEAD, b"\xff\xfe\n"], "t:2", "can't be read"),
        ([HEAD, READ, READ[:20]], "t:3", "can't be read"),
        ([HEAD, READ.replace(b"x86_64", b"vax")], "t:2", "vax"),
        ([HEAD, READ.replace(b'"number": 0', b'"number": -1')], "t:2", "number is -1"),
        ([HEAD, READ.replace(b'"number": 0', b'"number": 4294967296')], "t:2", "32 bits"),
        ([HEAD, READ.replace(b"[1,", b"[18446744073709551616,")], "t:2", "args"),
        ([HEAD, READ.replace(b"[1,", b"[-1,")], "t:2", "args"),
        ([HEAD, READ.replace(b"[1,", b"[0, 1,")], "t:2", "args"),
        ([HEAD, READ.replace(b'"answer"', b'"other": 1, "answer"')], "t:2", "other"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(lines: list[bytes], where: str, what: str) -> None:
    with pytest.raises(ProfileError) as caught:
        list(read_trace(lines, name="t")[1])
    assert caught.value.path == where
    assert what in str(caught.value)


def call(name: str, *args: int) -> Call:
    return Call("x86_64", NUMBERS[name], args)


def test_recorded_calls_that_would_change_are_named_with_their_rules() -> None:
    old = load_preset("default")
    new = parse_profile(
        '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read", "socket"], "action": "SCMP_ACT_ALLOW"},'
        '{"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}, {"names": ["statx"],'
        '"action": "SCMP_ACT_ALLOW"}]}'
    )
    calls = [call("read"), call("write", 1), call("write", 2), call("getpid"), call("socket", 40), call("mount")]
    found = {one.name: one for one in changed_calls(old, new, calls, arch="x86_64")}
    assert set(found) == {"write", "getpid", "socket"}
    assert (found["write"].count, found["write"].call, found["write"].new.rule) == (2, call("write", 1), 1)
    assert found["write"].new.errno == 28
    # From refused to allowed is a change too.
    assert found["socket"].old.action.name == "ERRNO"
    assert found["socket"].new.action.name == "ALLOW"


def test_the_same_answer_by_other_rules_is_no_change() -> None:
    old = parse_profile('{"defaultAction": "SCMP_ACT_ALLOW"}')
    new = parse_profile(
        '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}'
    )
    assert not changed_calls(old, new, [call("read", 3)], arch="x86_64")
