"""What the native program reports, in sentences."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from hosts import launched, make_spec
from hypothesis import given
from hypothesis import strategies as st

from immure.errors import BoxLost, ExecFailed, SetupFailed
from immure.runtimes.process import frames
from immure.runtimes.process.faults import exec_failed, explain, explain_last
from immure.runtimes.process.request import Request


def failed(step: str, thing: str, number: int) -> SetupFailed:
    return explain(message(step, thing, number))


def message(step: str, thing: str, number: int) -> bytes:
    body = struct.pack("<i", number) + step.encode() + b"\0" + thing.encode() + b"\0"
    return frames.header(frames.FAILED) + body


def request(*argv: str) -> Request:
    return Request(launched(make_spec(workdir="/work")), [os.fsencode(one) for one in argv])


def test_a_fault_names_its_step_and_object() -> None:
    error = failed("mount", "/a", errno.EACCES)
    assert (error.step, error.errno) == ("mount", errno.EACCES)
    assert error.message == "the box could not be made: mount /a"
    assert error.have == os.strerror(errno.EACCES)
    assert error.code == "IMM-SETUP"


def test_a_fault_without_an_object() -> None:
    assert failed("stem", "", errno.EPERM).message == "the box could not be made: stem"


@pytest.mark.parametrize(
    ("step", "number", "hint"),
    [
        ("idmap", errno.EINVAL, "another file system"),
        ("mount", errno.ENOENT, "create it"),
        ("box", errno.ENOSPC, "max_user_namespaces"),
        ("id range", errno.EUSERS, "/etc/subuid"),
        ("witness", errno.EPERM, "ptrace_scope"),
        ("landlock", errno.EOPNOTSUPP, "lsm="),
    ],
)
def test_what_to_do_is_said(step: str, number: int, hint: str) -> None:
    error = failed(step, "x", number)
    assert error.need
    assert hint in (error.hint or "")


def test_a_spawner_that_could_not_start_is_no_lasting_obstacle() -> None:
    error = explain_last(message("config", "8 bytes, [02]", errno.EBADMSG))
    assert isinstance(error, BoxLost)
    assert (error.have, bool(error.hint)) == ("8 bytes, [02]", True)
    assert isinstance(explain_last(message("config", "", errno.EPIPE)), SetupFailed), "the control"


@given(st.binary(max_size=200))
def test_any_message_is_explained(body: bytes) -> None:
    error = explain(frames.header(frames.FAILED) + body)
    assert isinstance(error, SetupFailed)
    assert str(error)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOENT, 127),
        (errno.ENOTDIR, 127),
        (errno.EACCES, 126),
        (errno.ENOEXEC, 126),
        (errno.EPERM, 126),
        (errno.ELIBBAD, 126),
    ],
)
def test_a_command_that_never_started(number: int, status: int) -> None:
    error = exec_failed(request("no-such-thing"), number, "exec")
    assert isinstance(error, ExecFailed)
    assert error.exit_status == status
    assert "no-such-thing" in error.message
    assert error.have == os.strerror(number)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EACCES])
def test_a_bad_working_directory_is_126_and_named(number: int) -> None:
    error = exec_failed(request("true"), number, "workdir")
    assert error.exit_status == 126
    assert "/work" in error.message
    assert "-w" in (error.hint or "")


def test_another_step_is_named() -> None:
    error = exec_failed(request("true"), errno.EPERM, "rlimit")
    assert (error.exit_status, error.message) == (126, "true was not started: rlimit")


def test_a_user_that_is_not_mapped_is_named() -> None:
    error = exec_failed(request("true"), errno.EINVAL, "identity")
    assert error.exit_status == 126
    assert "user 1000 is not mapped" in error.message


def test_a_command_that_the_host_has_comes_with_its_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prefix = tmp_path.resolve() / "tool"
    program = prefix / "bin/frobnicate"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert f"-v {prefix}:{prefix}" in (exec_failed(request("frobnicate"), errno.ENOENT, "exec").hint or "")
    assert exec_failed(request("frobnicat"), errno.ENOENT, "exec").hint is None


def test_the_name_of_a_command_may_be_any_bytes() -> None:
    error = exec_failed(Request(launched(make_spec()), [b"\xff\x1b[31m"]), errno.ENOENT, "exec")
    assert error.exit_status == 127
