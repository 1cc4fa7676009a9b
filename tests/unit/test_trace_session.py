"""What a Sentry is asked to report, from the names of points. The texts are what two versions of runsc print, cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from immure.errors import RuntimeUnavailable, SpecError
from immure.runtimes.gvisor.trace import (
    CHOSEN_CONTEXT,
    DEFAULT_CONTEXT,
    DEFAULT_POINTS,
    Offer,
    choose_points,
    default_points,
    init_config,
    make_session,
    read_dropped,
    read_metadata,
)

FRAMES = Path(__file__).parent / "trace_frames"


def offer(version: str) -> Offer:
    return read_metadata((FRAMES / f"metadata-{version}.txt").read_text())


NEW, OLD = offer("2026-09"), offer("2024-07")


def test_what_a_version_offers() -> None:
    assert NEW.points["syscall/openat/exit"].optional_fields == ("fd_path",)
    assert NEW.points["sentry/clone"].optional_fields == ()
    assert {*DEFAULT_CONTEXT, *CHOSEN_CONTEXT, "credentials"} <= {*OLD.points["sentry/clone"].context_fields}
    assert "cwd" not in NEW.points["sentry/exit_notify_parent"].context_fields
    assert {*NEW.points} - {*OLD.points} == {
        "sentry/mmap",
        *(f"syscall/{name}/{phase}" for name in ("ptrace", "mmap", "listen") for phase in ("enter", "exit")),
    }
    assert {*default_points(NEW)} == {*DEFAULT_POINTS} & {*NEW.points}
    assert "syscall/ptrace/exit" not in default_points(OLD)


@pytest.mark.parametrize(
    "text", ["", "no such command", "POINTS (0)\n\nSINKS (1)\nName: remote\n", "SINKS\nName: null"]
)
def test_what_offers_nothing(text: str) -> None:
    with pytest.raises(RuntimeUnavailable, match="reports no events"):
        read_metadata(text)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (["sentry/execve"], {"sentry/execve"}),
        (["sentry/e*"], {"sentry/execve", "sentry/exit_notify_parent"}),
        (["syscall/open*/exit", "syscall/open/exit"], {"syscall/open/exit", "syscall/openat/exit"}),
        (["syscall/open/e????"], {"syscall/open/enter"}),
        # Of one part alone: bare calls are meant where they are named.
        (["syscall/*/exit"], {name for name in NEW.points if name.endswith("/exit") and "sysno" not in name}),
        (["syscall/sysno/[18]*/enter"], {"syscall/sysno/110/enter", "syscall/sysno/87/enter"}),
    ],
)
def test_patterns(wanted: list[str], chosen: set[str]) -> None:
    found = choose_points(wanted, NEW)
    assert {*found} == chosen
    assert len(found) == len(chosen)


def test_what_there_is_not_is_named() -> None:
    with pytest.raises(SpecError, match=r"points\[1\]: this gVisor has no trace point 'syscall/ptrace/exit'"):
        choose_points(["sentry/clone", "syscall/ptrace/exit"], OLD)
    with pytest.raises(SpecError, match="did you mean 'sentry/execve'"):
        choose_points(["sentry/exec"], NEW)
    with pytest.raises(SpecError, match=r"no trace point fits 'syscall/\*'"):
        choose_points(["syscall/*"], NEW)
    with pytest.raises(SpecError, match="'syscall/sysno/87/enter' shows the call's bare arguments"):
        choose_points(["syscall/unlink/enter"], NEW, numbers={"unlink": 87})
    with pytest.raises(SpecError, match="no trace point"):
        choose_points([], NEW)


def test_a_session() -> None:
    points = ("sentry/execve", "sentry/exit_notify_parent")
    session = make_session(points, NEW, "/x/s", context=("time", "cwd"), optional=["binary_info"], backoff_us=20_000)
    assert json.loads(session) == {
        "name": "Default",
        "points": [
            {"name": "sentry/execve", "optional_fields": ["binary_info"], "context_fields": ["time", "cwd"]},
            {"name": "sentry/exit_notify_parent", "optional_fields": [], "context_fields": ["time"]},
        ],
        "sinks": [
            {
                "name": "remote",
                "config": {"endpoint": "/x/s", "retries": 4, "backoff": "20000us", "backoff_max": "20000us"},
            }
        ],
    }
    assert json.loads(init_config(session)) == {"trace_session": json.loads(session)}


def test_what_commands_choose_is_in_no_event_unless_asked_for() -> None:
    for point in json.loads(make_session(tuple(NEW.points), NEW, "/x"))["points"]:
        assert {*point["context_fields"]} == {*DEFAULT_CONTEXT}
        assert point["optional_fields"] == []


def test_fields_that_no_point_has() -> None:
    with pytest.raises(SpecError, match=r"context\[1\].*'parent_thread_group_id'"):
        make_session(("sentry/execve",), OLD, "/x", context=("time", "parent_thread_group_id"))
    with pytest.raises(SpecError, match="did you mean 'fd_path'"):
        make_session(("syscall/read/exit",), NEW, "/x", optional=("fdpath",))
    with pytest.raises(SpecError, match="they have no such fields"):
        make_session(("sentry/clone",), NEW, "/x", optional=("fd_path",))


def test_how_many_were_dropped() -> None:
    text = 'SESSIONS (1)\n"Default"\n\tSink: "remote", dropped: 12\n\tSink: "null", dropped: 5\n'
    assert read_dropped(text) == 12
    assert read_dropped("SESSIONS (0)\n") == 0
