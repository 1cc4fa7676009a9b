"""Where tests run in the guest, and which: as what user, in which cgroup, and with what of /sys/fs/cgroup in sight.

The tree is one as systemd makes it (docs/CGROUP_DELEGATION.md there). Both sides read this: the guest runs what is
listed, and outside there is a test for each that fails where the guest has no result of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TESTS = Path(__file__).parents[1]
_SYSTEM, _USERS = "system.slice", "user.slice/user-1000.slice"
_OWN = f"{_USERS}/user@1000.service"


#: Those that a cgroup has a part in. What measures time is for processors that are none of an emulator's.
_OF_LIMITS = (
    "test_memory",
    "test_a_child_that_runs_out_of_memory_is_its_parents_business",
    "test_private_space_counts_as_memory",
    "test_the_host_shows_the_limit",
    "test_commands_are_in_the_cgroup",
    "test_pids",
    "test_there_is_a_limit_of_processes_where_none_is_written",
    "test_a_box_that_is_full_says_so_and_recovers",
)


@dataclass(frozen=True)
class Group:
    """A cgroup of the guest: what it passes on, whose it is, and whether systemd would mark it as delegated."""

    path: str
    passes: str = ""
    owner: int = 0
    delegated: bool = False
    #: Somebody else stands in it.
    lived_in: bool = False


#: Those above come first.
GROUPS = (
    Group("", "cpu memory pids"),
    # No unit of it needs more.
    Group(_SYSTEM, "memory pids"),
    Group(f"{_SYSTEM}/root.service", lived_in=True),
    Group(f"{_SYSTEM}/delegated.service", owner=1000, delegated=True),
    Group(f"{_SYSTEM}/split.service", owner=1001, delegated=True),
    Group(f"{_SYSTEM}/split.service/main", owner=1001),
    *(Group(f"{_SYSTEM}/{name}.scope") for name in ("sealed", "writable", "roomy", "elsewhere", "hidden")),
    Group("user.slice", "cpu memory pids"),
    Group(_USERS, "cpu memory pids"),
    Group(f"{_USERS}/session-3.scope"),
    # Its manager is the user's own systemd, which leaves to `app.slice` what something in it needs.
    Group(_OWN, "cpu memory pids", owner=1000, delegated=True),
    Group(f"{_OWN}/init.scope", owner=1000, lived_in=True),
    Group(f"{_OWN}/app.slice", "memory pids", owner=1000),
    Group(f"{_OWN}/app.slice/run-1.scope", owner=1000, delegated=True),
    # Here it is a systemd that makes the rest.
    Group("user.slice/user-1001.slice", "cpu memory pids"),
    Group("user.slice/user-1001.slice/user@1001.service", owner=1001, delegated=True),
)


@dataclass(frozen=True)
class Scene:
    """`tests` are files below tests/, or single tests of them."""

    name: str
    place: str
    tests: tuple[str, ...]
    user: int = 0
    #: What a container has changed: a function of inside/scenery.py.
    container: str = ""
    #: In a scope that a systemd of the user's makes in `place`.
    scope: bool = False


SCENES = (
    Scene(
        "root in a service",
        f"{_SYSTEM}/root.service",
        (
            "cgroup2/inside/as_root.py",
            "cgroup2/inside/endings.py",
            "cgroup2/inside/sentry.py",
            "cgroup2/inside/vmm.py",
            *(f"integration/test_limits.py::{name}" for name in _OF_LIMITS),
            "integration/test_lost_spawner.py::test_no_cgroup_is_left",
            "integration/test_lost_spawner.py::test_while_a_command_runs_in_a_box",
            "security/test_limits.py::test_memory_is_bounded",
            "security/test_limits.py::test_memory_of_children_is_bounded_together",
            "security/test_limits.py::test_fork_bomb_leaves_the_host_alone",
        ),
    ),
    Scene(
        "a user's delegated scope",
        f"{_OWN}/app.slice/run-1.scope",
        (
            "cgroup2/inside/delegated.py",
            "cgroup2/inside/endings.py",
            "cgroup2/inside/sentry.py",
            "cgroup2/inside/vmm.py",
        ),
        user=1000,
    ),
    Scene(
        "a scope of a user's systemd",
        "user.slice/user-1001.slice/user@1001.service",
        ("cgroup2/inside/scope.py", "cgroup2/inside/endings.py"),
        user=1001,
        scope=True,
    ),
    Scene("a service with a subgroup", f"{_SYSTEM}/split.service/main", ("cgroup2/inside/subgroup.py",), user=1001),
    Scene("a user's session", f"{_USERS}/session-3.scope", ("cgroup2/inside/session.py",), user=1000),
    Scene("a delegated service", f"{_SYSTEM}/delegated.service", ("cgroup2/inside/service.py",), user=1000),
    Scene("a container", f"{_SYSTEM}/sealed.scope", ("cgroup2/inside/sealed.py",), container="sealed"),
    Scene(
        "a container that may write",
        f"{_SYSTEM}/writable.scope",
        ("cgroup2/inside/writable.py",),
        container="writable",
    ),
    Scene("a container that has made room", f"{_SYSTEM}/roomy.scope", ("cgroup2/inside/roomy.py",), container="roomy"),
    Scene(
        "a cgroup out of sight", f"{_SYSTEM}/elsewhere.scope", ("cgroup2/inside/elsewhere.py",), container="elsewhere"
    ),
    Scene("no cgroups in sight", f"{_SYSTEM}/hidden.scope", ("cgroup2/inside/hidden.py",), container="hidden"),
)


def shown(scene: Scene) -> Iterator[str]:
    """Each test of a scene, as FILE::NAME. One with parameters is one."""
    for one in scene.tests:
        file, _, name = one.partition("::")
        names = [name] if name else _tests_of(_TESTS / file)
        assert names, one
        yield from (f"{file}::{name}" for name in names)


def _tests_of(file: Path) -> list[str]:
    parsed = ast.parse(file.read_text())
    return [one.name for one in parsed.body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")]
