"""A real Firecracker without a jailer, for tests of its API."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType

from immure.runtimes.firecracker.client import Client, at

SOON_S = 20.0


def until(what: str, true: object, within_s: float = SOON_S) -> None:
    """Waits until `true()` is so."""
    assert callable(true)
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"in {within_s:g} s there was no {what}"
        time.sleep(0.005)


class Vmm:
    """One process of Firecracker: `client` speaks with it, `console` is what its guest has said."""

    def __init__(self, place: Path, folder: Path, *arguments: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.socket = folder / "api.sock"
        self._console = folder / "console"
        with self._console.open("wb") as console:
            self.process = subprocess.Popen(
                [place / "firecracker", "--api-sock", self.socket, "--level", "Error", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        until("API", self._listens)
        self.client = Client(at(str(self.socket)))

    def _listens(self) -> bool:
        try:
            at(str(self.socket))(1.0).close()
        except OSError:
            return False
        return True

    @property
    def console(self) -> bytes:
        return self._console.read_bytes()

    def says(self, words: bytes) -> None:
        """Waits until the guest has said so."""
        until(f"{words!r} on the console, but {self.console[-500:]!r}", lambda: words in self.console)

    def said_more(self) -> bool:
        """Whether the guest says something within a moment."""
        before = len(self.console)
        time.sleep(0.2)
        return len(self.console) > before

    def ended(self) -> int:
        return self.process.wait(SOON_S)

    def __enter__(self) -> Vmm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()
