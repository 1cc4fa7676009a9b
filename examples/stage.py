"""What the demo sets up on the host: a home with a fake key, two copies of the folder, a listener and a resolver."""

from __future__ import annotations

import secrets
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

CONNECTION, QUERY = "connection", "query"
HERE = Path(__file__).parent / "untrusted_report"


@dataclass
class Stage:
    """`heard` counts connections and queries that arrived."""

    home: Path
    key: str
    outside: Path
    inside: Path
    space: Path
    listener: tuple[str, int]
    resolver: tuple[str, int]
    heard: list[str] = field(default_factory=list)

    def heard_within(self, seconds: float, wanted: set[str]) -> set[str]:
        """What has arrived, as soon as all of `wanted` has, or after so many seconds."""
        end = monotonic() + seconds
        while not wanted <= set(self.heard) and monotonic() < end:
            sleep(0.01)
        return set(self.heard)

    def changed(self, folder: Path) -> list[str]:
        """The names of files in `folder` that are not as they were."""
        found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        wanted = {path.name: path.read_bytes() for path in HERE.iterdir() if path.is_file()}
        return sorted(name for name in found | wanted if found.get(name) != wanted.get(name))


@contextmanager
def set_stage() -> Iterator[Stage]:
    with TemporaryDirectory(prefix="immure-demo-") as name, socket.socket() as tcp, _udp() as udp:
        place = Path(name)
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        stage = Stage(
            home=place / "home",
            key=secrets.token_hex(16),
            outside=_copy(place / "outside"),
            inside=_copy(place / "inside"),
            space=place / "space",
            listener=tcp.getsockname(),
            resolver=udp.getsockname(),
        )
        stage.space.mkdir()
        _make_key(stage)
        for serve, served in ((_accept, tcp), (_answer, udp)):
            threading.Thread(target=serve, args=(served, stage), daemon=True).start()
        yield stage


def _udp() -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    return udp


def _copy(place: Path) -> Path:
    shutil.copytree(HERE, place, ignore=shutil.ignore_patterns("__pycache__"))
    return place


def _make_key(stage: Stage) -> None:
    folder = stage.home / ".ssh"
    folder.mkdir(parents=True, mode=0o700)
    key = folder / "id_ed25519"
    key.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{stage.key}\n-----END OPENSSH PRIVATE KEY-----\n")
    key.chmod(0o600)


def _accept(tcp: socket.socket, stage: Stage) -> None:
    while True:
        try:
            connection, _ = tcp.accept()
        except OSError:
            return
        stage.heard.append(CONNECTION)
        connection.close()


def _answer(udp: socket.socket, stage: Stage) -> None:
    while True:
        try:
            query, sender = udp.recvfrom(512)
            if sender is None:
                # Closed under us.
                return
            stage.heard.append(QUERY)
            # The query as an answer: the bit that says so, and no records.
            udp.sendto(query[:2] + b"\x81\x80" + query[4:], sender)
        except OSError:
            return
