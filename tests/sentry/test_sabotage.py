"""Each protection of a box in a Sentry, taken out behind the engine's back, is missed by the evidence.

What carries the plan out lacks something, while the engine goes on to expect what it had compiled.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from immure import BoxError, LevelNotReached, RuntimeUnavailable, SetupFailed
from immure.engine.prepare import prepare
from immure.engine.session import measure
from immure.engine.spawners import close_all, spawner_for
from immure.host.native import native_program
from immure.plan.launch import Launch
from immure.plan.model import NAMESPACES
from immure.policy.capabilities import known
from immure.policy.seccomp import compile_filter, guard_profile, load_preset
from immure.runtimes.process.spawner import Spawner
from immure.runtimes.registry import open_box
from immure.spec.keywords import spec_from_keywords
from runscs import runsc_of, using

pytestmark = pytest.mark.rootless

Plan = dict[str, Any]
#: One instruction: return SECCOMP_RET_ALLOW.
ALLOW_ALL = bytes([0x06, 0, 0, 0, 0, 0, 0xFF, 0x7F])


class Sabotaged:
    """What is changed of a launch: the outer box's plan, the guest's configuration, the bundle, what is started."""

    def __init__(self, launch: Launch) -> None:
        self.plan: Plan = msgspec.msgpack.decode(launch.wire)
        self.guest: Plan = msgspec.msgpack.decode(launch.guest)
        self.stage: Plan = self.guest["command"]
        self.carrier = list(launch.carrier)
        self._config = next(op for op in self.plan["template"] if op["path"] == "bundle/config.json")
        self.bundle: Plan = json.loads(self._config["data"])

    def into(self, launch: Launch) -> None:
        self._config["data"] = json.dumps(self.bundle).encode()
        # Templates are known by this, and plans by the digest of all.
        self.plan["template_key"] = hashlib.sha256(msgspec.msgpack.encode(self.plan["template"])).digest()
        launch.wire = msgspec.msgpack.encode(self.plan)
        launch.plan_sha256 = hashlib.sha256(launch.wire).hexdigest()
        launch.guest = msgspec.msgpack.encode(self.guest)
        launch.carrier = tuple(self.carrier)


Change = Callable[[Sabotaged], None]


def tampered(change: Change, **keywords: Any) -> Launch:
    spec = spec_from_keywords({"level": "L3", **keywords})
    launch = Launch.from_tuple(prepare(spec, base=Path.cwd()).to_tuple())
    found = Sabotaged(launch)
    change(found)
    found.into(launch)
    return launch


def refusal(launch: Launch, spawner: Spawner | None = None) -> BoxError | LevelNotReached:
    with pytest.raises((BoxError, LevelNotReached)) as caught:
        box = open_box(spawner or spawner_for(launch), launch)
        try:
            measure(box)
        finally:
            box.close()
    return caught.value


def no_filters(it: Sabotaged) -> None:
    it.stage["filters"] = []


def an_open_filter(it: Sabotaged) -> None:
    it.stage["filters"] = [ALLOW_ALL]


def the_guard_alone(it: Sabotaged) -> None:
    it.stage["filters"] = [compile_filter(guard_profile()).to_bytes()]


def the_profile_alone(it: Sabotaged) -> None:
    it.stage["filters"] = [compile_filter(load_preset("default")).to_bytes()]


def a_capability(it: Sabotaged) -> None:
    it.bundle["process"]["capabilities"]["bounding"].append("CAP_SYS_PTRACE")
    it.bundle["process"]["capabilities"]["permitted"].append("CAP_SYS_PTRACE")
    it.bundle["process"]["capabilities"]["effective"].append("CAP_SYS_PTRACE")
    it.stage["keep_capabilities"] = 1 << 19
    it.guest["own_id"], it.stage["known_capabilities"] = None, it.stage["known_capabilities"] & ~(1 << 19)


def the_bounding_set(it: Sabotaged) -> None:
    it.stage["known_capabilities"] = 0


def more_around_it(it: Sabotaged) -> None:
    it.plan["command"]["keep_capabilities"] = known(40)


def the_hosts_network(it: Sabotaged) -> None:
    it.plan["spare_network"] = False
    it.plan["namespaces"] &= ~NAMESPACES["net"]


def the_hosts_network_in_the_sentry(it: Sabotaged) -> None:
    """runsc takes the stack of the network namespace that it is in, which is the host's."""
    the_hosts_network(it)
    it.carrier = [word.replace("--network=none", "--network=host") for word in it.carrier]


def share(name: str) -> Change:
    def change(it: Sabotaged) -> None:
        it.plan["namespaces"] &= ~NAMESPACES[name]

    return change


def a_file_of_the_box_around_it(it: Sabotaged) -> None:
    it.plan["template"].append({"op": "file", "path": "rootfs/outside", "mode": 0o644, "data": b""})
    it.bundle["mounts"].append(
        {"destination": "/outside", "type": "bind", "source": "/outside", "options": ["bind", "ro"]}
    )


#: What is done, and the part that the refusal has to name.
SABOTAGE: dict[str, tuple[Change, str]] = {
    "no filters": (no_filters, "syscalls.default_deny"),
    "an open filter": (an_open_filter, "syscalls.default_deny"),
    "the guard alone": (the_guard_alone, "syscalls.default_deny"),
    "the profile alone": (the_profile_alone, "syscalls.default_deny"),
    "a capability": (a_capability, "identity.capabilities"),
    "the bounding set": (the_bounding_set, "identity.capabilities"),
    "more rights around it": (more_around_it, "identity.capabilities"),
    "the host's network": (the_hosts_network, "network.namespace"),
    "the host's network in the Sentry": (the_hosts_network_in_the_sentry, "network.namespace"),
    "the host's processes": (share("pid"), "processes.pid_namespace"),
    "the host's ipc": (share("ipc"), "processes.ipc_namespace"),
    "the host's uts": (share("uts"), "processes.uts_namespace"),
    "the host's mounts": (share("mount"), "files.mount_namespace"),
    "the host's users": (share("user"), "identity.user_namespace"),
    "a file around it": (a_file_of_the_box_around_it, "files.mac"),
}
#: Without these the box can't even be made; the refusal is then that of the step.
MAY_FAIL_TO_SET_UP = {
    *(
        f"the host's {what}"
        for what in ("network", "network in the Sentry", "processes", "ipc", "uts", "mounts", "users")
    ),
    "a capability",
}


@pytest.fixture(autouse=True)
def spawners_of_their_own() -> Iterator[None]:
    """A spawner that has carried a bad plan out is not used again."""
    close_all()
    yield
    close_all()


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_box_is_refused(name: str, runsc: Path) -> None:
    change, part = SABOTAGE[name]
    error = refusal(tampered(change))
    if isinstance(error, BoxError) and name in MAY_FAIL_TO_SET_UP:
        return
    assert isinstance(error, LevelNotReached), repr(error)
    assert part in str(error)
    assert error.need == "L3"
    assert str(error.have).startswith(("L0", "L1"))


def test_the_control_an_unchanged_plan_is_accepted(runsc: Path) -> None:
    launch = tampered(lambda it: None)
    box = open_box(spawner_for(launch), launch)
    try:
        assert measure(box).awarded == "L3"
    finally:
        box.close()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["base_uid", "base_gid"])
def test_host_root_in_the_map(kind: str, tmp_path: Path) -> None:
    with using(runsc_of("newest")):
        launch = tampered(lambda it: None)
        config = msgspec.msgpack.decode(launch.config)
        # The first of all ranges begins at host root, and it is the only one.
        config["ids"].update({kind: 0, "slots": 1})
        launch.config = msgspec.msgpack.encode(config)
        with (tmp_path / "ids.lock").open("w") as lock:
            spawner = Spawner(native_program(), launch.config, lock.fileno())
        try:
            error = refusal(launch, spawner)
        finally:
            spawner.close()
    assert isinstance(error, LevelNotReached)
    assert "identity.no_host_root" in str(error)


# --- programs that call themselves runsc

_NATIVE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
/* Runs the box's init under this host's kernel, as a container does; DECOY leaves what looks like a Sentry. */
int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    if (!strcmp(argv[i], "--version")) return puts("runsc version release-20260914.0") < 0;
  if (argc > 1 && !strcmp(argv[1], "boot")) for (;;) pause();
  if (fork()) return 0;
#ifdef DECOY
  if (!fork()) { dup2(open("/dev/null", O_RDWR), 1); execl("/runsc", "runsc-sandbox", "boot", "box", (char *)0); }
#endif
  char *init[] = {"/.immure/init", "guest", "0", "1", 0}, *none[] = {0};
  mount("/dev", "/rootfs/dev", 0, MS_BIND | MS_REC, 0);
  mount("/proc", "/rootfs/proc", 0, MS_BIND | MS_REC, 0);
  mount("none", "/rootfs/tmp", "tmpfs", 0, 0);
  if (chdir("/rootfs") || chroot("/rootfs")) return 1;
  execve(init[0], init, none);
  return 1;
}
"""


@cache
def _built(folder: Path, *options: str) -> Path:
    source, program = folder / "native.c", folder / "runsc"
    source.write_text(_NATIVE)
    subprocess.run(["gcc", "-O1", "-static", *options, "-o", program, source], check=True)
    return program


@pytest.mark.parametrize("options", [(), ("-DDECOY",)], ids=["alone", "beside a decoy"])
def test_a_program_that_is_no_gvisor_earns_no_l3(options: tuple[str, ...], tmp_path: Path) -> None:
    """It says the name, and has the workload served by this host's kernel."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    with using(_built(tmp_path, *options)):
        error = refusal(tampered(lambda it: it.guest.update(own_id=None)))
    if isinstance(error, BoxError) and os.geteuid() != 0:
        # With one id it does not even come to a box: what its init needs the host's kernel does not give it.
        return
    assert isinstance(error, LevelNotReached), repr(error)
    assert str(error.have).startswith("L2: kernel.user_space")


def test_a_script_is_no_runsc(tmp_path: Path) -> None:
    script = tmp_path / "runsc"
    script.write_text("#!/bin/sh\necho runsc version release-20260914.0\n")
    script.chmod(0o755)
    with using(script), pytest.raises(RuntimeUnavailable):
        tampered(lambda it: None)


def test_a_runsc_that_does_not_come_up_is_an_error(tmp_path: Path) -> None:
    with using(runsc_of("newest")):
        error = refusal(tampered(lambda it: it.carrier.insert(1, "--no-such-option")))
    assert isinstance(error, SetupFailed)
