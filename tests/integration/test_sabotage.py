"""Each protection, taken out of the plan in turn behind the engine's back, is missed by the evidence.

The native program is given a plan that lacks something, while the engine goes on to expect what it had compiled. The
box must be refused, the missing part named, and the command never started.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from immure import BoxError, LevelNotReached, SetupFailed
from immure.engine.prepare import prepare
from immure.engine.session import Once, measure
from immure.engine.spawners import close_all, spawner_for
from immure.engine.stdio import captured
from immure.host.native import native_program
from immure.plan.launch import Launch
from immure.plan.model import NAMESPACES
from immure.policy.capabilities import securebits
from immure.policy.seccomp import compile_filter, guard_profile, load_preset
from immure.runtimes.process.box import Box
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Spawner
from immure.spec.keywords import spec_from_keywords

Plan = dict[str, Any]
Change = Callable[[Plan], None]

#: One instruction: return SECCOMP_RET_ALLOW.
ALLOW_ALL = bytes([0x06, 0, 0, 0, 0, 0, 0xFF, 0x7F])
#: And SECCOMP_RET_KILL_PROCESS.
KILL_ALL = bytes([0x06, 0, 0, 0, 0, 0, 0, 0x80])


@pytest.fixture(autouse=True)
def spawners_of_their_own() -> Iterator[None]:
    """A spawner that has carried a bad plan out is not used again."""
    close_all()
    yield
    close_all()


def tampered(change: Change, folder: Path) -> Launch:
    """A launch whose plan is changed and whose expectations are not."""
    spec = spec_from_keywords({"mounts": [(folder, "/work", "rw")]})
    original = prepare(spec, base=Path.cwd())
    launch = Launch.from_tuple(original.to_tuple())
    plan = msgspec.msgpack.decode(launch.wire)
    change(plan)
    launch.wire = msgspec.msgpack.encode(plan)
    # Plans are known to a spawner by this.
    launch.plan_sha256 = hashlib.sha256(launch.wire).hexdigest()
    return launch


def refusal(launch: Launch) -> BoxError | LevelNotReached:
    """Of a box that stays."""
    box = Box(spawner_for(launch), launch, one_shot=False)
    try:
        with pytest.raises((BoxError, LevelNotReached)) as caught:
            measure(box)
    finally:
        box.close()
    return caught.value


def refusal_of_one_command(launch: Launch) -> BoxError | LevelNotReached:
    request = Request(launch, [b"touch", b"/work/ran"])
    with pytest.raises((BoxError, LevelNotReached)) as caught:
        Once().run(spawner_for(launch), request, lambda _: captured(None))
    return caught.value


def guard_alone(plan: Plan) -> None:
    plan["command"]["filters"] = [compile_filter(guard_profile()).to_bytes()]


def profile_alone(plan: Plan) -> None:
    plan["command"]["filters"] = [compile_filter(load_preset("default")).to_bytes()]


def drop_filters(plan: Plan) -> None:
    plan["command"]["filters"] = []


def open_filter(plan: Plan) -> None:
    plan["command"]["filters"] = [ALLOW_ALL]


def change_one_instruction(plan: Plan) -> None:
    program = bytearray(plan["command"]["filters"][-1])
    # The last one returns; a constant that it returns is changed.
    program[-4] ^= 1
    plan["command"]["filters"][-1] = bytes(program)


def add_a_filter(plan: Plan) -> None:
    plan["command"]["filters"].append(ALLOW_ALL)


def drop_landlock(plan: Plan) -> None:
    plan["landlock"] = None


def allow_everything_in_landlock(plan: Plan) -> None:
    plan["landlock"]["rules"].append({"path": "/", "access": plan["landlock"]["handled_fs"]})


def handle_nothing_in_landlock(plan: Plan) -> None:
    plan["landlock"].update(handled_fs=1 << 3, rules=[])


def allow_the_sentinel(plan: Plan) -> None:
    plan["landlock"]["rules"].append({"path": "/.immure/sentinel", "access": 1 << 2})


def hide_the_sentinel(plan: Plan) -> None:
    plan["landlock"]["sentinel"] = "/no/such/sentinel"


def keep_a_capability(plan: Plan) -> None:
    plan["command"].update(keep_capabilities=1 << 21, securebits=securebits(1 << 21))


def keep_the_bounding_set(plan: Plan) -> None:
    plan["command"]["known_capabilities"] = 0


def share_the_network(plan: Plan) -> None:
    plan["spare_network"] = False
    plan["namespaces"] &= ~NAMESPACES["net"]


def share(name: str) -> Change:
    def change(plan: Plan) -> None:
        plan["namespaces"] &= ~NAMESPACES[name]

    return change


#: What is done, and the part that the refusal has to name.
SABOTAGE: dict[str, tuple[Change, str]] = {
    "no filters": (drop_filters, "syscalls.default_deny"),
    "the guard alone": (guard_alone, "syscalls.default_deny"),
    "the profile alone": (profile_alone, "syscalls.default_deny"),
    "an open filter": (open_filter, "syscalls.default_deny"),
    "one other instruction": (change_one_instruction, "syscalls.default_deny"),
    "one filter more": (add_a_filter, "syscalls.default_deny"),
    "no landlock": (drop_landlock, "files.mac"),
    "landlock allows all": (allow_everything_in_landlock, "files.mac"),
    "landlock handles nothing": (handle_nothing_in_landlock, "files.mac"),
    "landlock allows the sentinel": (allow_the_sentinel, "files.mac"),
    "no sentinel": (hide_the_sentinel, "files.mac"),
    "a capability": (keep_a_capability, "identity.capabilities"),
    "the bounding set": (keep_the_bounding_set, "identity.capabilities"),
    "the host's network": (share_the_network, "network.namespace"),
    "the host's processes": (share("pid"), "processes.pid_namespace"),
    "the host's ipc": (share("ipc"), "processes.ipc_namespace"),
    "the host's uts": (share("uts"), "processes.uts_namespace"),
    "the host's mounts": (share("mount"), "files.mount_namespace"),
    "the host's users": (share("user"), "identity.user_namespace"),
}
#: Without these the box can't even be made; the refusal is then that of the step.
MAY_FAIL_TO_SET_UP = {
    "the host's processes",
    "the host's ipc",
    "the host's uts",
    "the host's mounts",
    "the host's users",
}
#: A plain user can't read filters back.
ROOT_ALONE = {"the guard alone", "the profile alone", "an open filter", "one other instruction"}


def check(name: str, part: str, error: BoxError | LevelNotReached) -> None:
    if isinstance(error, SetupFailed) and name in MAY_FAIL_TO_SET_UP:
        return
    assert isinstance(error, LevelNotReached), repr(error)
    assert part in str(error)
    assert error.need == "L2"
    assert str(error.have).startswith(("L0", "L1"))


@pytest.mark.root
@pytest.mark.parametrize("name", SABOTAGE)
def test_a_box_is_refused(name: str, tmp_path: Path) -> None:
    change, part = SABOTAGE[name]
    check(name, part, refusal(tampered(change, tmp_path)))


@pytest.mark.root
@pytest.mark.parametrize("name", SABOTAGE)
def test_one_command_is_refused_and_never_runs(name: str, tmp_path: Path) -> None:
    change, part = SABOTAGE[name]
    tmp_path.chmod(0o777)
    check(name, part, refusal_of_one_command(tampered(change, tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("kind", ["base_uid", "base_gid"])
def test_host_root_in_the_map(kind: str, tmp_path: Path) -> None:
    launch = tampered(lambda plan: None, tmp_path)
    config = msgspec.msgpack.decode(launch.config)
    # The first of all ranges begins at host root, and it is the only one.
    config["ids"].update({kind: 0, "slots": 1})
    launch.config = msgspec.msgpack.encode(config)
    with (tmp_path / "ids.lock").open("w") as lock:
        spawner = Spawner(native_program(), launch.config, lock.fileno())
    box = Box(spawner, launch, one_shot=False)
    try:
        with pytest.raises(LevelNotReached) as caught:
            measure(box)
        assert "identity.no_host_root" in str(caught.value)
    finally:
        box.close()
        spawner.close()


def keep_a_capability_without_the_means(plan: Plan) -> None:
    plan["command"]["keep_capabilities"] = 1 << 21


def break_the_filter(plan: Plan) -> None:
    plan["command"]["filters"][-1] = b"\xff" * 64


def break_a_limit(plan: Plan) -> None:
    plan["command"]["rlimits"].append([9999, 0, 0])


def kill_at_the_next_call(plan: Plan) -> None:
    """By the first filter, which a command installs itself: the second one can't be installed."""
    plan["command"]["inherited_filters"] = 0
    plan["command"]["filters"].insert(0, KILL_ALL)


@pytest.mark.rootless
@pytest.mark.parametrize(
    "change", [keep_a_capability_without_the_means, break_the_filter, break_a_limit, kill_at_the_next_call]
)
@pytest.mark.parametrize("time", range(5))
def test_a_last_stage_that_fails_is_an_error_and_no_hang(change: Change, time: int, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    launch = tampered(change, tmp_path)
    box = Box(spawner_for(launch), launch, one_shot=False)
    outcome: list[object] = []

    def attempt() -> None:
        try:
            outcome.append(measure(box))
        except (BoxError, LevelNotReached) as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(5)
    hangs = thread.is_alive()
    close_all()
    box.close()
    thread.join(5)
    assert not hangs
    assert isinstance(outcome[0], BoxError)
    if change is kill_at_the_next_call:
        assert "witness" in str(outcome[0])
        assert "profile kills a call" in str(outcome[0].hint)
    assert isinstance(refusal_of_one_command(launch), BoxError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_the_control_an_unchanged_plan_is_accepted(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    launch = tampered(lambda plan: None, tmp_path)
    once = Once()
    once.run(spawner_for(launch), Request(launch, [b"touch", b"/work/ran"]), lambda _: captured(None))
    assert once.measured is not None
    assert once.measured.awarded == "L2"
    assert [path.name for path in tmp_path.iterdir()] == ["ran"]


@pytest.mark.rootless
@pytest.mark.parametrize("name", sorted(set(SABOTAGE) - ROOT_ALONE - MAY_FAIL_TO_SET_UP))
def test_a_plain_users_box_is_refused(name: str, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("rootless: for plain users")
    change, part = SABOTAGE[name]
    check(name, part, refusal(tampered(change, tmp_path)))


CLI_PROGRAM = """
import sys
from pathlib import Path
from integration.test_sabotage import SABOTAGE, tampered
from immure.cli.execute import Outcome, execute_into
from immure.runtimes.process.request import Request
launch = tampered(SABOTAGE["no landlock"][0], Path(sys.argv[1]))
outcome = Outcome(Request(launch, [b"touch", b"/work/ran"]))
status = execute_into(outcome, interactive=False, quiet=False)
print(outcome.error.code)
sys.exit(status)
"""


@pytest.mark.root
def test_the_command_line_ends_with_125_and_says_why(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    ended = subprocess.run(
        [sys.executable, "-c", CLI_PROGRAM, str(tmp_path)],
        cwd=Path(__file__).parent.parent, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 125, ended.stderr
    assert ended.stdout == b"IMM-LEVEL\n"
    assert b"files.mac" in ended.stderr
    assert list(tmp_path.iterdir()) == []
