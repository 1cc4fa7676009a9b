"""Requests of all kinds have an answer that is foreseen: never an error of the daemon itself, and nothing stays."""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import jails
from .daemons import Daemon

pytestmark = pytest.mark.root
ROUNDS = 1500
NAMES = ["one", "two", "-", "..", "a_b", "%2f", "a" * 70]
PATHS = [
    "", "/actions", "/boot-source", "/drives/d", "/networks/eth0", "/vsock", "/snapshot/create", "/snapshot/load",
    "/console", "/console?from=1", "/console?from=-1", "/console?from=x", "/metrics", "/nothing",
]  # fmt: skip
KEYS = [
    "vcpu_count", "mem_size_mib", "smt", "ht_enabled", "cpu_template", "state", "action_type", "kernel_image_path",
    "boot_args", "drive_id", "is_root_device", "path_on_host", "is_read_only", "iface_id", "host_dev_name", "guest_mac",
    "guest_cid", "uds_path", "snapshot_path", "mem_file_path", "mem_backend", "rate_limiter", "drives", "other",
]  # fmt: skip


@pytest.fixture
def daemon(place: Path, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(place, tmp_path) as one:
        yield one
        assert "Traceback" not in one.words
    assert jails.left(one.vmms) == []


def value(chance: random.Random, folder: Path) -> Any:
    return chance.choice(
        [
            0, 1, 2, 32, -1, 1 << 70, 0.5, True, False, None, "", "d", "eth0", "lo", "x" * 5000, "\0", "\ud800",
            str(folder / "file"), str(folder), "/dev/null", "../file", "InstanceStart", "Paused", "T2", "v.sock",
            "AA:FC:00:00:00:01", [], [[]], {}, {"size": 1, "refill_time": 1}, {"bandwidth": {"size": -1}},
            {"backend_type": "File", "backend_path": str(folder / "file")},
        ]
    )  # fmt: skip


def body(chance: random.Random, folder: Path) -> bytes:
    if chance.random() < 0.1:
        return chance.choice([b"", b"{", b"null", b"[]", b"\xff", b'{"a":' * 500, b"x" * 100_000])
    if chance.random() < 0.3:
        return b'{"vcpu_count": 1, "mem_size_mib": 32}'
    found = {chance.choice(KEYS): value(chance, folder) for _ in range(chance.randint(0, 4))}
    return json.dumps(found).encode()


def test_each_has_an_answer(daemon: Daemon, kernels: Path, tmp_path: Path) -> None:
    chance = random.Random(23)
    (tmp_path / "file").write_bytes((kernels / "rests").read_bytes())
    seen: set[int] = set()
    connection = http.client.HTTPConnection("localhost", timeout=60)
    for _ in range(ROUNDS):
        if connection.sock is None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(daemon.socket))
        method = chance.choice(["GET", "PUT", "PUT", "PUT", "PATCH", "DELETE", "POST", "HEAD"])
        path = f"/vms/{chance.choice(NAMES[:2] if chance.random() < 0.8 else NAMES)}{chance.choice(PATHS)}"
        sent = None if method in ("GET", "HEAD", "DELETE") else body(chance, tmp_path)
        connection.request(method, path, sent)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status in (200, 201, 204, 400, 404, 405, 409, 413), (method, path, sent, answer.status, content)
        if answer.status >= 400 and method != "HEAD":
            assert set(json.loads(content)["error"]) == {"code", "message", "need", "have", "hint"}
        seen.add(answer.status)
    assert {200, 201, 204, 400, 404, 405, 409} <= seen
    connection.close()
