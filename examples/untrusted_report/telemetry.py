"""What a poisoned dependency would try: read keys, phone home, change what it was given, fill the disk.

It is harmless: a key is counted and not kept, what it connects to is given by the caller, and what it fills it removes.
"""

import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_MIB = bytes(1 << 20)
_SECONDS = 3


def attempts(targets: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What came of each attempt: its name, whether it succeeded, the error's name, and what was seen."""
    for name, attempt in _planned(targets):
        try:
            seen = attempt()
        except OSError as error:
            yield {"attempt": name, "succeeded": False, "error": _name(error), "seen": str(error.strerror or error)}
        else:
            yield {"attempt": name, "succeeded": True, "error": "", "seen": seen}


def _planned(targets: dict[str, Any]) -> Iterator[tuple[str, Callable[[], str]]]:
    folder = Path.cwd()
    for number, home in enumerate(targets["homes"]):
        key = f"{home}/.ssh/id_ed25519"
        yield f"list {number}", lambda home=home: f"{len(list(Path(home, '.ssh').iterdir()))} names"
        yield f"key {number}", lambda key=key: _read(key)
        yield f"key by symlink {number}", lambda key=key: _read_by_symlink(key)
        yield f"key by .. {number}", lambda key=key: _read(f"{folder}/{'../' * 20}{key}")
        yield f"key by /proc {number}", lambda key=key: _read(f"/proc/{os.getppid()}/root{key}")
    for host, port in targets["tcp"]:
        yield f"tcp {host}:{port}", lambda host=host, port=port: _connect(host, port)
    for host, port in targets["resolvers"]:
        yield f"dns {host}:{port}", lambda host=host, port=port: _ask(host, port)
    for host in targets["names"]:
        yield f"resolve {host}", lambda host=host: str(socket.getaddrinfo(host, 443)[0][4][0])
    yield "create", lambda: _write(folder / "planted.sh", "x", "#!/bin/sh\n")
    yield "append", lambda: _write(folder / "orders.csv", "a", "SO-99999,2026-07-01,Nobody,XX,,,,1,0.00,,paid\n")
    yield "fill", lambda: _fill(targets["fill_mib"])


def _read(path: str) -> str:
    return f"{len(Path(path).read_bytes())} bytes"


def _read_by_symlink(path: str) -> str:
    with tempfile.TemporaryDirectory() as place:
        link = Path(place, "notes.txt")
        link.symlink_to(path)
        return _read(str(link))


def _write(path: Path, mode: str, text: str) -> str:
    with path.open(mode) as file:
        return f"{file.write(text)} bytes"


def _connect(host: str, port: int) -> str:
    with socket.create_connection((host, port), timeout=_SECONDS):
        return "connected"


def _ask(host: str, port: int) -> str:
    """A DNS query for an A record: what a stolen key would leave by, a label at a time."""
    question = b"\x0cc3RvbGVuLWtl\x07example\x00" + b"\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(_SECONDS)
        asker.connect((host, port))
        asker.send(b"\x13\x37\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + question)
        asker.recv(512)
        return "answered"


def _fill(most: int) -> str:
    """Writes until the disk is full, or `most` MiB: whoever tries this outside a box needs the disk afterwards."""
    with tempfile.TemporaryFile(buffering=0) as file:
        for done in range(most):
            try:
                file.write(_MIB)
            except OSError as error:
                raise OSError(error.errno, f"full after {done} MiB") from error
    return f"{most} MiB, no end"


def _name(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        names = {value: name for name, value in vars(socket).items() if name.startswith("EAI_")}
        return names.get(error.errno, "EAI")
    if isinstance(error, TimeoutError):
        return "ETIMEDOUT"
    return errno.errorcode.get(error.errno or 0, "UNKNOWN")
