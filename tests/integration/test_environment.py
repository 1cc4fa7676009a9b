"""The environment starts empty: nothing of the caller's is inherited."""

from __future__ import annotations

import os

import pytest

from immure import Sandbox, run

from .command_line import CommandLine

pytestmark = pytest.mark.rootless

BASE = {
    b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    b"HOME": b"/tmp",
    b"LANG": b"C.UTF-8",
}
#: As execve was given it.
SHOW = ["cat", "/proc/self/environ"]


def parsed(environ: bytes) -> dict[bytes, bytes]:
    pairs = [entry.partition(b"=") for entry in environ.split(b"\0") if entry]
    assert len({name for name, _, _ in pairs}) == len(pairs), "no variable is there twice"
    return {name: value for name, _, value in pairs}


def test_nothing_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("LD_PRELOAD", "")
    assert parsed(run(SHOW).stdout) == BASE
    with Sandbox() as box:
        assert parsed(box.exec(SHOW).stdout) == BASE


def test_nothing_is_inherited_by_the_command_line(cli: CommandLine) -> None:
    for _ in range(2):
        ended = cli.run("--", *SHOW, env={"AWS_SECRET_ACCESS_KEY": "secret", "TERM": "xterm"})
        assert parsed(ended.stdout) == BASE


def test_variables_are_added_and_replaced() -> None:
    odd = {"A": "1", "EMPTY": "", "LINES": "a\nb", "LANG": "C", "_x": "=", "ü": "ü"}
    wanted = BASE | {os.fsencode(name): os.fsencode(value) for name, value in odd.items()}
    assert parsed(run(SHOW, env=odd).stdout) == wanted
    with Sandbox(env=odd) as box:
        assert parsed(box.exec(SHOW).stdout) == wanted
        assert parsed(box.exec(SHOW, env={"A": "2"}).stdout) == wanted | {b"A": b"2"}
        assert parsed(box.exec(SHOW).stdout) == wanted, "a command's own variables are not the next one's"


def test_forms_of_e(cli: CommandLine) -> None:
    words = ["-e", "A=1", "--env", "B=x=y", "-eC=3", "--env=D=", "-e", "TAKEN", "-e", "A=2"]
    for _ in range(2):
        ended = cli.run(*words, "--", *SHOW, env={"TAKEN": "from here", "LEFT": "no"})
        added = {b"A": b"2", b"B": b"x=y", b"C": b"3", b"D": b"", b"TAKEN": b"from here"}
        assert parsed(ended.stdout) == BASE | added


def test_values_that_are_no_text(cli: CommandLine) -> None:
    assert parsed(cli.run("-e", b"A=\xff\x80", "--", *SHOW).stdout)[b"A"] == b"\xff\x80"
    assert parsed(run(SHOW, env={"A": "\udcff"}).stdout)[b"A"] == b"\xff"


def test_commands_are_found_along_the_path_of_the_box() -> None:
    assert run(["sh", "-c", "echo $PATH"], env={"PATH": "/bin"}).stdout == b"/bin\n"
    with Sandbox() as box:
        box.exec(["sh", "-c", "mkdir /tmp/b && printf '#!/bin/sh\\necho mine' > /tmp/b/tool && chmod +x /tmp/b/tool"])
        assert box.exec(["tool"], env={"PATH": "/tmp/b"}).stdout == b"mine\n"
        assert box.exec(["tool"], env={"PATH": "/nope:/etc/passwd:/tmp/b"}).stdout == b"mine\n"
