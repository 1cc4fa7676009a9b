"""Twenty boxes that work, each in its own manner, and what they saw of anything else."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable

from immure import PIPE, AsyncSandbox, Sandbox, run


class Neighbours:
    """They work from `start` to `stop`, as fast as they can. Every answer is compared."""

    COUNT = 20

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.wrong: list[str] = []
        self._over = threading.Event()
        manners = (self._ask, self._talk, self._begin_anew, self._keep_files, self._await)
        self._threads = [
            threading.Thread(target=self._work, args=(manners[number % len(manners)], number), daemon=True)
            for number in range(self.COUNT)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[int]:
        """The numbers of those that don't come to an end."""
        self._over.set()
        for thread in self._threads:
            thread.join(40)
        return [number for number, thread in enumerate(self._threads) if thread.is_alive()]

    def _work(self, manner: Callable[[int], None], number: int) -> None:
        try:
            manner(number)
        except Exception as error:
            self.wrong.append(f"{number} {manner.__name__}: {error!r}")

    def _next(self, number: int) -> bytes:
        return f"box {number}, answer {self.answers[number]}\n".encode() * 50

    def _check(self, number: int, wanted: bytes, answer: bytes) -> None:
        if answer != wanted:
            self.wrong.append(f"{number}: {answer[:80]!r} in place of {wanted[:80]!r}")
        self.answers[number] += 1

    def _ask(self, number: int) -> None:
        with Sandbox() as box:
            while not self._over.is_set():
                wanted = self._next(number)
                self._check(number, wanted, box.exec(["cat"], stdin=wanted).stdout)

    def _talk(self, number: int) -> None:
        """With one command, for all the time."""
        with Sandbox() as box, box.start(["cat"], stdin=PIPE) as process:
            assert process.stdin is not None
            while not self._over.is_set():
                wanted = self._next(number)
                process.stdin.write(wanted)
                self._check(number, wanted, process.stdout.read(len(wanted)))
            process.stdin.close()
            self._check(number, b"0", b"%d" % (process.wait().exit.code or 0))

    def _begin_anew(self, number: int) -> None:
        while not self._over.is_set():
            wanted = self._next(number)
            self._check(number, wanted, run(["cat"], stdin=wanted).stdout)

    def _keep_files(self, number: int) -> None:
        with Sandbox() as box:
            while not self._over.is_set():
                wanted = self._next(number)
                box.files.write("/tmp/mine", wanted)
                self._check(number, wanted, box.files.read("/tmp/mine"))

    def _await(self, number: int) -> None:
        async def main() -> None:
            async with AsyncSandbox() as box:
                while not self._over.is_set():
                    wanted = self._next(number)
                    self._check(number, wanted, (await box.exec(["cat"], stdin=wanted)).stdout)

        asyncio.run(main())
