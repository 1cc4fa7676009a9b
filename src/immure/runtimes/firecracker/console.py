"""The last that a machine has said on its serial line, however much it was."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Final

#: What is kept. A guest that floods costs its host no more than this.
KEPT_BYTES: Final = 256 * 1024
_READ_BYTES: Final = 65_536


class Console:
    """Reads a pipe to its end, in a thread of its own, and keeps the last of it."""

    def __init__(self, fd: int) -> None:
        """Takes the descriptor over."""
        self._fd = fd
        self._pieces: deque[bytes] = deque()
        self._kept = 0
        self._total = 0
        self._more = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="immure-console", daemon=True)
        self._thread.start()

    def read(self, start: int = 0, *, most: int = KEPT_BYTES) -> tuple[int, bytes, int]:
        """Bytes from a position on: where they begin, themselves, and how many there have been in all.

        Positions count from the first byte ever said; what is not kept any more is left out.
        """
        with self._more:
            oldest, total = self._total - self._kept, self._total
            kept = b"".join(self._pieces)
        begin = min(max(start, oldest), total)
        return begin, kept[begin - oldest : begin - oldest + most], total

    def wait_for(self, words: bytes, within_s: float) -> bool:
        """Whether it says this within a time, or has said it among what is kept."""
        with self._more:
            return self._more.wait_for(lambda: self._ended or self._said(words), within_s) and self._said(words)

    def wait_past(self, total: int, within_s: float) -> bool:
        """Whether more than so many bytes have been said, or are within a time."""
        with self._more:
            return self._more.wait_for(lambda: self._ended or self._total > total, within_s) and self._total > total

    def last_words(self) -> str:
        """Its last line that is not empty."""
        _, content, _ = self.read(max(0, self._total - 2000))
        lines = [line.strip() for line in content.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Waits for its end, which comes when the last process has gone that had the other end of the pipe."""
        self._thread.join()

    def _said(self, words: bytes) -> bool:
        return words in b"".join(self._pieces)

    def _read(self) -> None:
        try:
            while content := os.read(self._fd, _READ_BYTES):
                self._keep(content)
        finally:
            os.close(self._fd)
            with self._more:
                self._ended = True
                self._more.notify_all()

    def _keep(self, content: bytes) -> None:
        with self._more:
            # In pieces of some size: a guest may say a byte at a time.
            if self._pieces and len(self._pieces[-1]) + len(content) <= 4096:
                self._pieces[-1] += content
            else:
                self._pieces.append(content)
            self._kept += len(content)
            self._total += len(content)
            while self._kept - len(self._pieces[0]) >= KEPT_BYTES:
                self._kept -= len(self._pieces.popleft())
            self._more.notify_all()
