"""The command line with a keeper of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .command_line import CommandLine, Word
from .processes import eventually, every_process, running


class Kept(CommandLine):
    """Its keeper is found in a folder of its own."""

    def __init__(self, cache: Path, runtime: Path) -> None:
        super().__init__(cache)
        self.env["XDG_RUNTIME_DIR"] = str(runtime)
        self.folder = runtime / "immure"

    def ok(self, *words: Word, **keywords: Any) -> bytes:
        """What a command line that succeeds prints."""
        ended = self.carry_out(*words, **keywords)
        assert ended.returncode == 0, ended.stderr.decode()
        return ended.stdout

    def keep(self, name: str, *options: Word) -> None:
        """A box without a command."""
        assert self.ok("run", "--keep", "--name", name, *options) == f"{name}\n".encode()

    def boxes(self) -> dict[str, dict[str, Any]]:
        """What `ps` lists, by name."""
        return {one["name"]: one for one in json.loads(self.ok("ps", "--json"))["boxes"]}

    def keepers(self) -> list[int]:
        """The keepers of this folder."""
        return [one.pid for one in every_process() if self._is_keeper(one.pid)]

    def _is_keeper(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"immure.engine.keeper" in words and os.fsencode(self.folder) in words

    def kill_keeper(self, number: int = signal.SIGKILL) -> None:
        """Ends the one that there is, and waits for that."""
        (pid,) = self.keepers()
        os.kill(pid, number)
        assert eventually(lambda: not running(pid))


@contextmanager
def kept_boxes(cache: Path, runtime: Path) -> Iterator[Kept]:
    """Afterwards its boxes are ended, and with them the keeper."""
    kept = Kept(cache, runtime)
    try:
        yield kept
    finally:
        for pid in kept.keepers():
            os.kill(pid, signal.SIGTERM)
        assert eventually(lambda: not kept.keepers(), within=10)
        assert not (kept.folder / "keeper.sock").exists()
