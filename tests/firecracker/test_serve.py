"""The daemon's own life: where it listens, who may speak with it, and what is left when it ends."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from immure.daemon import sockets
from immure.errors import SetupFailed, SpecError

from . import jails
from .daemons import Daemon
from .vmms import SOON_S, until

pytestmark = pytest.mark.root
Make = Callable[..., Daemon]
TOKEN = "a-token-of-some-length"


@pytest.fixture
def daemon(place: Path, tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as stack:

        def made(*arguments: str) -> Daemon:
            return stack.enter_context(Daemon(place, tmp_path, *arguments))

        yield made
    assert jails.left(tmp_path / "vmms") == []


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_it_ends_its_machines_when_told_to(daemon: Make, kernels: Path) -> None:
    one = daemon()
    one.runs("one", kernels / "counts")
    one.runs("two", kernels / "rests")
    users = [vm["user"] for vm in one.curl("GET", "/vms").body["vms"]]
    assert all(map(jails.running, users))
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(SOON_S) == 0
    assert not any(map(jails.running, users))
    assert jails.left(one.vmms) == []
    assert not one.socket.exists()


def test_what_a_daemon_that_is_killed_leaves(daemon: Make, kernels: Path) -> None:
    tap = f"imk{os.getpid() % 100_000}"
    subprocess.run(["ip", "tuntap", "add", "dev", tap, "mode", "tap", "user", "0"], check=True)
    try:
        first = daemon()
        first.runs("one", kernels / "counts")
        assert first.curl("PUT", "/vms/two", {"vcpu_count": 1, "mem_size_mib": 32}).status == 201
        network = {"iface_id": "eth0", "host_dev_name": tap}
        assert first.curl("PUT", "/vms/two/networks/eth0", network).status == 204
        owner = Path(f"/sys/class/net/{tap}/owner")
        assert int(owner.read_text()) != 0
        users = [vm["user"] for vm in first.curl("GET", "/vms").body["vms"]]
        first.process.kill()
        first.process.wait()
        until("end of the machines", lambda: not any(map(jails.running, users)))
        assert len(list(first.vmms.glob("[0-9]*"))) == 2
        assert first.socket.exists()
        second = daemon()
        assert "what 2 machines" in second.words
        assert jails.left(second.vmms) == []
        assert int(owner.read_text()) == 0
        assert second.curl("GET", "/vms").body["vms"] == []
    finally:
        subprocess.run(["ip", "link", "delete", tap], check=True)


@pytest.mark.slow
def test_a_daemon_that_dies_at_any_moment(daemon: Make, kernels: Path, tmp_path: Path) -> None:
    chance = random.Random(11)
    kernel = json.dumps({"kernel_image_path": str(kernels / "counts")})
    for _ in range(10):
        one = daemon()
        curl = f"curl -sS --unix-socket {one.socket} -o /dev/null -X"
        calls = "".join(
            f"{curl} PUT {url} -d '{size}'; {curl} PUT {url}/boot-source -d '{kernel}';"
            f"{curl} PUT {url}/actions -d '{start}'; {curl} DELETE {url};"
            for url in ("http://x/vms/one", "http://x/vms/two")
            for size in ('{"vcpu_count": 1, "mem_size_mib": 32}',)
            for start in ('{"action_type": "InstanceStart"}',)
        )
        with subprocess.Popen(["/bin/sh", "-c", calls], stderr=subprocess.DEVNULL):
            time.sleep(chance.uniform(0, 0.4))
            one.process.kill()
            one.process.wait()
    last = daemon()
    assert last.curl("GET", "/vms").body["vms"] == []
    until("clean place", lambda: jails.left(last.vmms) == [])


def test_a_socket_that_is_used(daemon: Make, place: Path, tmp_path: Path) -> None:
    daemon()
    (tmp_path / "other").mkdir()
    other = Daemon(place, tmp_path / "other", "--socket", str(tmp_path / "s.sock"))
    assert other.process.wait(SOON_S) == 2
    assert "somebody listens at" in other.words
    assert daemon is not None


def test_something_else_where_the_socket_should_be(tmp_path: Path) -> None:
    (tmp_path / "s.sock").write_text("mine")
    with pytest.raises(SetupFailed, match="something else than a socket"):
        sockets.UnixListener(str(tmp_path / "s.sock"))
    assert (tmp_path / "s.sock").read_text() == "mine"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "o.sock"))
        other.listen()
        with pytest.raises(SetupFailed, match="somebody listens"):
            sockets.UnixListener(str(tmp_path / "o.sock"))
    for path in ("none/s.sock", "x" * 120):
        with pytest.raises(SetupFailed, match="can't be listened at"):
            sockets.UnixListener(str(tmp_path / path))


def test_tcp_needs_the_token(daemon: Make, token: Path) -> None:
    port = free_port()
    one = daemon("--listen", f"127.0.0.1:{port}", "--token-file", str(token))
    tcp = f"http://127.0.0.1:{port}"

    def said(*headers: str) -> int:
        arguments = [part for header in headers for part in ("-H", header)]
        return one.curl("GET", "/vms", None, *arguments, tcp=tcp).status

    assert said(f"Authorization: Bearer {TOKEN}") == 200
    for headers in (
        [],
        ["Authorization: Bearer"],
        ["Authorization: Bearer x"],
        [f"Authorization: Bearer {TOKEN}x"],
        [f"Authorization: Basic {TOKEN}"],
        [f"Authorization: {TOKEN}"],
        [f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x"],
    ):
        assert said(*headers) == 401, headers
    refused = one.curl("PUT", "/vms/one", {"vcpu_count": 1, "mem_size_mib": 32}, tcp=tcp)
    assert (refused.status, refused.error["code"]) == (401, "IMM-AUTH")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert TOKEN.encode() not in refused.content
    assert one.curl("GET", "/openapi/vms.json", tcp=tcp).status == 401
    # The Unix socket needs none.
    assert one.curl("GET", "/vms").body["vms"] == []


def test_a_token_that_is_none(token: Path) -> None:
    assert sockets.read_token(str(token)) == TOKEN.encode()
    with pytest.raises(SpecError, match="no --token-file"):
        sockets.read_token(None)
    token.chmod(0o640)
    with pytest.raises(SpecError, match="others may read"):
        sockets.read_token(str(token))
    token.chmod(0o600)
    for content in ("", "short", "with spaces in between it all", "ä" * 20):
        token.write_text(content)
        with pytest.raises(SpecError, match="holds no token"):
            sockets.read_token(str(token))
    with pytest.raises(SpecError, match="can't be read"):
        sockets.read_token(f"{token}x")


def test_only_loopback() -> None:
    for where in ("127.0.0.1:0", "127.3.2.1:0", "localhost:0", ":0", "0"):
        with sockets.listen_tcp(where) as made:
            assert made.getsockname()[0].startswith("127.")
    for where in ("0.0.0.0:0", "[::]:0", "192.0.2.1:80", "example.org:80"):
        with pytest.raises(SpecError, match="own address"):
            sockets.listen_tcp(where)
    for where in ("127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"):
        with pytest.raises(SpecError):
            sockets.listen_tcp(where)


def test_without_the_framework(place: Path) -> None:
    """As where only `pip install immure` was done."""
    code = (
        "import importlib.util as u, sys; found = u.find_spec;"
        "u.find_spec = lambda name, package=None: None if name == 'litestar' else found(name, package);"
        "from immure.cli.main import main; sys.exit(main(['serve']))"
    )
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths, "PATH": f"{place}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "pip install 'immure[daemon]'" in done.stderr


def test_no_kvm_while_it_runs(daemon: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from immure.daemon.machines import Machines
    from immure.errors import RuntimeUnavailable
    from immure.runtimes.firecracker import programs

    monkeypatch.setattr(programs, "KVM", "/nonexistent")
    machines = Machines(programs.Programs("", ""), "")
    with pytest.raises(RuntimeUnavailable, match="Firecracker needs KVM"), machines.made("one"):
        pass
    assert machines.all() == []
