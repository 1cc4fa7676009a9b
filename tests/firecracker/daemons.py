"""A real daemon, and curl to speak with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from .vmms import SOON_S, until


class Said(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> dict[str, str]:
        return self.body["error"]


class Daemon:
    """`immure serve` on a socket in a folder, with machines in another."""

    def __init__(self, place: Path, folder: Path, *arguments: str, vmms: Path | None = None) -> None:
        self.vmms = vmms or folder / "vmms"
        self.socket = folder / "s.sock"
        self._words = (folder / "words").open("w+b")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "IMMURE_VMMS": str(self.vmms),
            "IMMURE_FIRECRACKER": str(place / "firecracker"),
            "IMMURE_JAILER": str(place / "jailer"),
        }
        command = [sys.executable, "-m", "immure", "serve", "--socket", str(self.socket), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self._words, env=environment)

    @property
    def words(self) -> str:
        """What it has said on standard error."""
        self._words.seek(0)
        return self._words.read().decode()

    def up(self) -> Daemon:
        until("daemon", lambda: "listening" in self.words or self.process.poll() is not None)
        assert self.process.poll() is None, self.words
        return self

    def curl(self, method: str, path: str, body: object = None, *arguments: str, tcp: str | None = None) -> Said:
        """What curl itself sends and hears."""
        command = ["curl", "-sS", "-i", "--path-as-is", "--max-time", "60", "-X", method, *arguments]
        if body is not None:
            command += ["--data-binary", "@-"]
        if tcp is None:
            command += ["--unix-socket", str(self.socket)]
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        command.append(f"{tcp or 'http://localhost'}{path}")
        answer = subprocess.run(command, input=content, capture_output=True, check=True).stdout
        while answer.startswith(b"HTTP/1.1 100"):
            answer = answer.partition(b"\r\n\r\n")[2]
        head, _, rest = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Said(int(first.split()[1]), headers, rest)

    def console_has(self, vm_id: str, words: bytes) -> None:
        until(f"{words!r} on the console", lambda: words in self.curl("GET", f"/vms/{vm_id}/console").content)

    def runs(self, vm_id: str, kernel: Path, **size: object) -> None:
        """Makes a machine and starts it."""
        body = {"vcpu_count": 1, "mem_size_mib": 32, **size}
        assert self.curl("PUT", f"/vms/{vm_id}", body).status == 201
        for path, said in (
            ("boot-source", {"kernel_image_path": str(kernel)}),
            ("actions", {"action_type": "InstanceStart"}),
        ):
            answer = self.curl("PUT", f"/vms/{vm_id}/{path}", said)
            assert answer.status == 204, answer
        self.console_has(vm_id, b"hello")

    def __enter__(self) -> Daemon:
        return self.up()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(SOON_S) in (0, -signal.SIGKILL), self.words
        finally:
            self.process.kill()
            self._words.close()
