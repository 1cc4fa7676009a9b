"""A plan follows from what goes into it, and from nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hosts import SINGLE, V2, compiled, launched, make_facts, make_inputs, make_spec, mounts

from immure.plan.compile import compile_plan
from immure.policy.seccomp import load_preset

HERE = Path(__file__).parent
SPEC = make_spec(
    level="L1",
    env={"B": "b", "A": "a"},
    files=mounts({"source": "/srv/in", "target": "/in"}, {"source": "/srv/out", "target": "/tmp/out", "access": "rw"}),
    processes={"capabilities": {"add": ["NET_RAW", "NET_BIND_SERVICE", "CHOWN"]}},
    limits={"memory_mib": 64, "pids": 9, "cpus": 0.5},
    protections={"memory": "best_effort", "pids": "best_effort", "cpus": "best_effort"},
)
# Prints what was compiled, and fails where the compiler opens anything but the package's own tables.
CHILD = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import immure, test_plan_purity
package = immure.__file__.rpartition("/")[0]
def watch(event, arguments):
    if event.startswith(("open", "os.", "socket", "subprocess", "ctypes", "time")):
        if not (event == "open" and str(arguments[0]).startswith(package)):
            sys.exit(f"the compiler did {event} {arguments}")
sys.addaudithook(watch)
digest = test_plan_purity.digest()
print(digest)
"""


def digest() -> str:
    inputs = msgspec.structs.replace(make_inputs(SPEC), profile=load_preset("default"))
    plan = compile_plan(SPEC, make_facts(cgroups=V2), inputs)
    return hashlib.sha256(plan.wire() + msgspec.json.encode(plan.report)).hexdigest()


def test_the_same_inputs_give_the_same_bytes() -> None:
    assert digest() == digest()


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_neither_environment_nor_folder_nor_hash_seed_matter(seed: str, tmp_path: Path) -> None:
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONHASHSEED": seed,
        "HOME": f"/home/{seed}",
        "LANG": "tr_TR.UTF-8",
        "TZ": "Pacific/Chatham",
        "XDG_CACHE_HOME": str(tmp_path),
    }
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(HERE)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert child.stderr == ""
    assert child.stdout.strip() == digest()


def test_the_order_of_tables_in_the_document_does_not_matter() -> None:
    turned = make_spec(**dict(reversed(msgspec.to_builtins(SPEC).items())))
    assert compiled(turned).wire() == compiled(SPEC).wire()


CHANGES = {
    "level and network": {"level": "L1", "network": {"mode": "host"}},
    "user": {"processes": {"user": 7}},
    "capabilities": {"processes": {"capabilities": {"add": ["NET_RAW"]}}},
    "a mount": {"files": mounts({"source": "/a", "target": "/a"})},
    "a tmpfs": {"files": mounts({"tmpfs": "/a", "size_mib": 4})},
    "landlock": {"level": "L1", "files": {"landlock": "off"}},
    "disk": {"limits": {"disk_mib": 7}},
    "pids": {"limits": {"pids": 7}},
    "namespaces": {"level": "L1", "processes": {"namespaces": "none"}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_box_changes_the_bytes(name: str) -> None:
    assert compiled(make_spec(**CHANGES[name])).wire() != compiled(make_spec()).wire()


@pytest.mark.parametrize(
    "fields",
    [{"env": {"A": "b"}}, {"command": ["true"]}, {"workdir": "/usr"}, {"limits": {"timeout_s": 1, "output_mib": 1}}],
    ids=str,
)
def test_what_each_command_brings_is_not_in_the_plan(fields: dict[str, object]) -> None:
    assert launched(make_spec(**fields)).plan_sha256 == launched(make_spec()).plan_sha256


@pytest.mark.parametrize(
    "change",
    [{"landlock_abi": 6}, {"ids": SINGLE}, {"kernel": (6, 13)}, {"proc_frozen": ()}, {"last_capability": 39}],
    ids=str,
)
def test_another_host_has_another_name(change: dict[str, object]) -> None:
    assert compiled(make_spec(), make_facts(**change)).host_sha256 != compiled(make_spec()).host_sha256


def test_the_image_alone_decides_its_key() -> None:
    def key(**fields: object) -> bytes:
        return msgspec.msgpack.decode(compiled(make_spec(**fields)).wire())["template_key"]

    assert key() == key(limits={"disk_mib": 7, "pids": 7}) == key(processes={"capabilities": {"add": ["NET_RAW"]}})
    assert key() != key(processes={"user": 7})
    assert key() != key(files=mounts({"source": "/a", "target": "/a"}))
