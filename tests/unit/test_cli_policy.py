"""`immure policy`: what it prints, its JSON, and its exit statuses."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immure.cli.commands import dispatch
from immure.policy.seccomp import compile_filter, load_preset, parse_profile

PROFILE = """{
  "defaultAction": "SCMP_ACT_ERRNO",
  "syscalls": [
    {"names": ["read", "exit_group"], "action": "SCMP_ACT_ALLOW"},
    {
      "names": ["socket"],
      "action": "SCMP_ACT_ALLOW",
      "comment": "any family but vsock",
      "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]
    },
    {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}}
  ]
}
"""
Policy = Callable[..., tuple[int, str]]


@pytest.fixture
def policy(capsys: pytest.CaptureFixture[str]) -> Policy:
    def call(*words: str) -> tuple[int, str]:
        status = dispatch(["policy", *words])
        streams = capsys.readouterr()
        return status, streams.out + streams.err

    return call


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "profile.json"
    path.write_text(PROFILE)
    return str(path)


def json_of(said: str) -> dict[str, Any]:
    document = json.loads(said)
    assert document["error"] is None
    return document


def test_eval(policy: Policy, file: str) -> None:
    host = ("--arch", "x86_64")
    assert policy("eval", *host, file, "socket", "40")[0] == 1
    assert policy("eval", *host, file, "socket", "0x28")[1].startswith("ERRNO EPERM  (default)")
    assert policy("eval", *host, file, "41", "-1") == (0, "ALLOW  ($.syscalls[1])\n")
    assert policy("eval", *host, file, "mount")[0] == 1
    assert policy("eval", *host, "--caps", "sys_admin,CAP_CHOWN", file, "mount")[0] == 0
    status, said = policy("eval", *host, "--abi", "i386", file, "read")
    assert (status, said) == (1, "ERRNO ENOSYS  (foreign ABI)\n")


def test_an_answer_that_depends_on_what_was_not_given(policy: Policy, file: str) -> None:
    status, said = policy("eval", "--arch", "x86_64", file, "socket")
    assert status == 3
    assert "ALLOW  ($.syscalls[1])  e.g. socket(0x0)" in said
    assert "e.g. socket(0x28)" in said
    document = json_of(policy("eval", "--json", "--arch", "x86_64", file, "socket")[1])
    assert document["verdict"] == "depends"
    assert {tuple(one["witness"]): one["answer"] for one in document["outcomes"]} == {
        (0,): "ALLOW",
        (40,): "ERRNO EPERM",
    }


def test_explain_names_the_line(policy: Policy, file: str) -> None:
    status, said = policy("explain", "--arch", "x86_64", file, "socket", str((1 << 32) + 40))
    assert (status, said.splitlines()[0]) == (0, "ALLOW  socket(0x100000028)")
    assert f"by $.syscalls[1], line 5 of {file}" in said
    assert "any family but vsock" in said
    assert "argument 0 SCMP_CMP_NE 0x28" in said
    assert "no rule decides" in policy("explain", "--arch", "x86_64", file, "close")[1]
    document = json_of(policy("explain", "--json", "--arch", "x86_64", file, "socket", "1")[1])
    assert (document["verdict"], document["layer"]) == ("allowed", "seccomp")
    assert document["outcomes"] == [
        {"answer": "ALLOW", "rule": "$.syscalls[1]", "line": 5, "witness": [1], "fix": None}
    ]


def test_check_and_lint(policy: Policy, file: str, tmp_path: Path) -> None:
    assert policy("check", file, "default") == (0, f"{file}: nothing found\ndefault: nothing found\n")
    status, said = policy("lint", "--arch", "x86_64", file)
    assert status == 1
    assert "[truncated-argument]" in said
    assert "to do: compare with SCMP_CMP_MASKED_EQ" in said
    typo = tmp_path / "typo.json"
    typo.write_text(PROFILE.replace("exit_group", "exit_grup"))
    status, said = policy("check", "--json", str(typo))
    assert status == 1
    (finding,) = json_of(said)["findings"]
    assert (finding["file"], finding["code"], finding["fix"]) == (str(typo), "unknown-call", "exit_group")


def test_compile(policy: Policy, file: str, tmp_path: Path) -> None:
    output = tmp_path / "out.bpf"
    assert policy("compile", "--arch", "x86_64", file, "-o", str(output)) == (0, "")
    program = compile_filter(parse_profile(PROFILE))
    assert output.read_bytes() == program.to_bytes()
    told = json_of(policy("compile", "--json", "--arch", "x86_64", file)[1])
    assert (told["count"], told["max_steps"], told["sha256"]) == (
        len(program.instructions),
        program.max_steps,
        program.sha256,
    )
    # read and exit_group; the answer to socket depends on its argument.
    assert told["cacheable"] == 2
    assert "; socket" in policy("compile", "--disassemble", "--arch", "x86_64", file)[1]


def test_compare(policy: Policy, file: str, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(PROFILE.replace('"value": 40', '"value": 41').replace(', "exit_group"', ""))
    status, said = policy("compare", "--arch", "x86_64", file, str(other))
    assert status == 3
    assert said.startswith(f"{other} is incomparable to {file}\n")
    assert "looser, x86_64: ERRNO EPERM → ALLOW: socket" in said
    assert "e.g. socket(0x28) by no rule, then by $.syscalls[1]" in said
    assert policy("compare", file, file) == (0, f"{file} is equal to {file}: every call gets the same answer\n")
    other.write_text(PROFILE.replace(', "exit_group"', ""))
    assert policy("compare", "--arch", "x86_64", file, str(other))[0] == 0
    assert policy("compare", "--arch", "x86_64", str(other), file)[0] == 1
    document = json_of(policy("compare", "--json", "--arch", "x86_64", file, str(other))[1])
    assert document["relation"] == "stricter"
    assert {
        "part": "syscalls",
        "kind": "stricter",
        "witness": {"abi": "x86_64", "call": "exit_group", "number": 231, "count": 1, "args": []},
        "a": {"answer": "ALLOW", "rule": 0},
        "b": {"answer": "ERRNO ENOSYS", "rule": None},
    } in document["differences"]


def test_merge(policy: Policy, file: str, tmp_path: Path) -> None:
    output = tmp_path / "both.json"
    other = tmp_path / "other.json"
    other.write_text(
        '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["close"], "action": "SCMP_ACT_ALLOW"}]}'
    )
    assert policy("merge", file, str(other), "-o", str(output)) == (0, "")
    for call in ("read", "close"):
        assert policy("eval", "--arch", "x86_64", str(output), call)[0] == 0
    other.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert policy("merge", file, str(other))[0] == 2


def test_convert(policy: Policy, file: str, tmp_path: Path) -> None:
    output = tmp_path / "same.json"
    assert policy("convert", "--to", "oci", file, "-o", str(output)) == (0, "")
    assert policy("compare", file, str(output))[0] == 0
    path = tmp_path / "profile.json"
    assert policy("convert", "--to", "systemd", "--arch", "x86_64", file)[0] == 2
    path.write_text(PROFILE.replace('"read", ', '"read", "write", "execve", '))
    status, said = policy("convert", "--to", "systemd", "--arch", "x86_64", str(path))
    assert status == 2
    assert "$.syscalls[1]" in said
    status, said = policy("convert", "--to", "systemd", "--arch", "x86_64", "--best-effort", str(path))
    assert status == 0
    assert "[Service]\n" in said
    assert "SystemCallFilter=" in said
    assert "warning" in said, "what was taken more strictly is told"


KUBERNETES = """\
apiVersion: security-profiles-operator.x-k8s.io/v1beta1
kind: SeccompProfile
metadata:
  name: more
spec:
  baseProfileName: least
  defaultAction: SCMP_ACT_ERRNO
  syscalls:
  - action: SCMP_ACT_ALLOW
    names: [write]
"""


def test_an_object_of_kubernetes_with_its_base(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(KUBERNETES)
    status, said = policy("check", str(path))
    assert status == 2
    assert "least" in said
    base = tmp_path / "base.json"
    base.write_text(
        '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}'
    )
    for call in ("read", "write"):
        assert policy("eval", "--arch", "x86_64", "--base", f"least={base}", str(path), call)[0] == 0
    path.write_text(KUBERNETES.replace("  baseProfileName: least\n", ""))
    assert f"line 8 of {path}" in policy("explain", "--arch", "x86_64", str(path), "write")[1]
    assert policy("eval", "--arch", "x86_64", str(path), "read")[0] == 1


def test_minimise(policy: Policy, file: str, tmp_path: Path) -> None:
    output = tmp_path / "small.json"
    assert policy("minimise", file, "-o", str(output)) == (0, "")
    assert policy("compare", file, str(output))[0] == 0
    assert parse_profile(policy("minimise", "default")[1]).rules
    assert load_preset("default").rules


def test_standard_input(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PROFILE.encode())))
    assert policy("explain", "--arch", "x86_64", "-", "read")[0] == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("eval", "default", "sockett"), "did you mean 'socket'?"),
        (("eval", "default", "read", "many"), "'many' is no argument"),
        (("eval", "default", "read", str(1 << 64)), "64 bits"),
        (("eval", "--abi", "arm", "--arch", "x86_64", "default", "read"), "does not serve arm"),
        (("eval", "--arch", "vax", "default", "read"), "no such architecture: vax"),
        (("eval", "--kernel", "new", "default", "read"), "a version such as 6.1"),
        (("check", "/no/such/file"), "No such file"),
        (("compile", "default", "-o", "/no/such/folder/x"), "can't be written"),
        (("compare", "default", "nothing"), "one of default"),
    ],
)
def test_what_is_refused(policy: Policy, words: tuple[str, ...], complaint: str) -> None:
    status, said = policy(*words)
    assert status == 2
    assert complaint in said
