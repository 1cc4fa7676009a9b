"""Where no limit can be had: a written one is refused, a default is best effort, and both say why."""

from __future__ import annotations

import pytest

from immure import ProtectionUnavailable, run
from immure.engine.prepare import host_facts
from integration.command_line import CommandLine

from .here import clauses


def check_all_are_refused(cli: CommandLine, why: str) -> None:
    """`why` is part of what the error has of the cause."""
    assert why in host_facts().no_cgroups
    for limits, protection, controller in (({"memory_mib": 64}, "memory", "memory"), ({"cpus": 1}, "cpus", "cpu")):
        with pytest.raises(ProtectionUnavailable) as caught:
            run(["true"], **limits)
        assert caught.value.need == f"a cgroup with the {controller} controller that this user can write"
        assert why in (caught.value.have or "")
        assert "systemd-run --user --scope -p Delegate=yes" in (caught.value.hint or "")
        assert f"--best-effort {protection}" in (caught.value.hint or "")
        done = run(["true"], protections={protection: "best_effort"}, **limits)
        got, said = clauses(done)[protection]
        assert got == "unenforceable"
        assert "best effort was asked for" in said
    refused = cli.run("--memory", "64", "--", "true")
    assert refused.returncode == 125
    assert b"limits.memory_mib can't be enforced here" in refused.stderr
    assert why.encode() in refused.stderr
    assert f"no cgroups of v2: {host_facts().no_cgroups}\n".encode() in cli.carry_out("doctor").stdout


def check_defaults_are_reported() -> None:
    done = run(["cat", "/proc/self/cgroup"])
    assert done.ok
    assert clauses(done)["memory"][0] == "unenforceable"
    assert "a default is best effort" in clauses(done)["memory"][1]
    assert clauses(done)["cpus"] == ("exact", "")
    assert clauses(done)["pids"][0] == "approximated"


def check_processes_are_bounded_all_the_same() -> None:
    script = "for i in $(seq 60); do sleep 3 & done; echo all"
    assert run(["sh", "-c", script], pids=20, timeout_s=10).stdout == b""
