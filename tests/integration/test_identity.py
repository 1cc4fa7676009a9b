"""Who a command is in its box."""

from __future__ import annotations

import os

import pytest

from immure import Sandbox, run

from .command_line import CommandLine, python

#: Real, effective, saved and file system ids, groups, and every capability set.
SHOW = python(
    "import re; s=open('/proc/self/status').read();"
    "print(*(re.search(k+r':[ \\t]*(.*)', s).group(1).replace('\\t',',').strip() or '-' for k in"
    " ('Uid','Gid','Groups','CapInh','CapPrm','CapEff','CapBnd','CapAmb','NoNewPrivs','Seccomp')))"
)
NONE = " ".join(["0000000000000000"] * 5)


def lines(user: int, group: int | None = None, groups: str = "-") -> str:
    group = user if group is None else group
    return f"{','.join([str(user)] * 4)} {','.join([str(group)] * 4)} {groups} {NONE} 1 2"


@pytest.mark.rootless
def test_a_command_is_user_1000_without_any_power() -> None:
    seen = run(SHOW).stdout.text().strip()
    if os.geteuid() == 0:
        assert seen == lines(1000)
    words = seen.split()
    assert words[0] == "1000,1000,1000,1000"
    assert words[3:] == lines(1000).split()[3:]


@pytest.mark.rootless
@pytest.mark.parametrize("user", [0, 1, 1000, 65_535])
def test_other_users(user: int, cli: CommandLine) -> None:
    assert run(SHOW, user=user).stdout.text().split()[0] == ",".join([str(user)] * 4)
    assert cli.run("-u", str(user), "--", *SHOW).stdout.decode().split()[3:] == lines(user).split()[3:]


@pytest.mark.root
@pytest.mark.parametrize("user", [0, 1, 33, 65_534, 65_535])
def test_exec_takes_any_mapped_id(user: int) -> None:
    with Sandbox() as box:
        assert box.exec(SHOW, user=user).stdout.text().strip() == lines(user)
        assert box.exec(SHOW).stdout.text().strip() == lines(1000), "and only for that command"


@pytest.mark.root
def test_the_box_is_nobody_on_the_host() -> None:
    with Sandbox() as box:
        rows = [line.split() for line in box.evidence().host.uid_map.splitlines()]
    assert all(int(host) >= 0x7000_0000 for _, host, _ in rows)
    assert sum(int(count) for _, _, count in rows) == 65_536


@pytest.mark.rootless
def test_kept_capabilities_are_those_that_were_asked_for() -> None:
    result = run(SHOW, capabilities=["NET_BIND_SERVICE", "NET_RAW"])
    mask = f"{1 << 10 | 1 << 13:016x}"
    assert result.stdout.text().split()[3:8] == [mask] * 5
    assert result.level.awarded == "L2"


@pytest.mark.rootless
def test_names_of_the_users() -> None:
    script = "import pwd,grp; print(pwd.getpwuid(1000).pw_name, pwd.getpwuid(0).pw_name, grp.getgrgid(1000).gr_name)"
    assert run(python(script)).stdout == b"user root user\n"


@pytest.mark.rootless
def test_limits_and_masks_of_a_command() -> None:
    script = "ulimit -c; umask; ps -o pid= -o ppid= -o sid= -p $$ 2>/dev/null | tr -s ' '"
    seen = run(["sh", "-c", script]).stdout.text().splitlines()
    assert seen[:2] == ["0", "0022"]


@pytest.mark.rootless
def test_a_command_leads_a_session_of_its_own() -> None:
    program = "import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))"
    assert run(python(program)).stdout == b"True\n"
