"""The two faces of a box under one, whatever carries it: every verb blocks here, so that one test serves all."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from immure import AsyncSandbox, Process, Result, Sandbox
from immure.engine.aio_process import AsyncProcess
from immure.engine.kvm import kvm_facts
from runscs import runsc_of, using
from vmm_programs import named_vmm

from .hosted import HostedAsyncSandbox, HostedSandbox

T = TypeVar("T")

#: Boxes of the process runtime, boxes behind a channel, boxes in a Sentry, and boxes in virtual machines.
EVERY = (
    *("sync", "async", "sync guest", "async guest", "sync gvisor", "async gvisor"),
    *("sync qemu", "async qemu", "sync firecracker", "async firecracker"),
)
#: A command takes seconds where KVM interprets a guest's kernel; then tests/firecracker_box is what tests these, unless
#: IMMURE_TEST_SLOW_FACES is set.
ALL = bool(os.environ.get("IMMURE_TEST_SLOW_FACES"))
INTERPRETED = kvm_facts().kind != "hardware"
_QUICK = EVERY if ALL or not INTERPRETED else EVERY[:8]
#: How long a test may take.
PATIENCE_S = 600 if ALL else 30
#: What each of the two plain users takes of them; anybody else takes all.
_SHARES = {"immure-single": EVERY[2:6], "immure-ranges": EVERY[:2]}
FACES = _SHARES.get(os.environ.get("IMMURE_TEST_USER", ""), _QUICK)
#: Each version of runsc has one of the two.
_RUNSC = {"sync gvisor": "newest", "async gvisor": "debian"}
#: What the Sentry of 2024 does not do: /dev/tty, and keeping processes of one user out of each other's /proc.
OLD_SENTRY = "async gvisor"


def has_sentry(face: str) -> bool:
    return face in _RUNSC


def is_machine(face: str) -> bool:
    return face.endswith(("qemu", "firecracker"))


def is_interpreted(face: str) -> bool:
    """Whether KVM interprets what its kernel does: each command takes seconds."""
    return INTERPRETED and face.endswith("firecracker")


def has_kernel(face: str) -> bool:
    """Whether the box has one of its own, whose processes nobody sees from without."""
    return has_sentry(face) or is_machine(face)


_HOSTED: dict[str, type[Sandbox | AsyncSandbox]] = {"sync guest": HostedSandbox, "async guest": HostedAsyncSandbox}


class Loop:
    """An event loop on a thread of its own, for whoever blocks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def call(self, function: Any, *args: Any) -> Any:
        async def called() -> Any:
            return function(*args)

        return self.do(called())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingProcess:
    """A `Process`, or an `AsyncProcess` in a loop."""

    def __init__(self, process: Process | AsyncProcess, loop: Loop | None) -> None:
        self.process, self.loop = process, loop

    def read(self, stream: str = "stdout", size: int = -1) -> bytes:
        if self.loop is None:
            file = getattr(self.process, stream)
            return file.read() if size < 0 else file.read1(size)
        return self.loop.do(self.loop.call(getattr, self.process, stream).read(size))

    def readline(self, stream: str = "stdout") -> bytes:
        if self.loop is None:
            return getattr(self.process, stream).readline()
        return self.loop.do(self.loop.call(getattr, self.process, stream).readline())

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        if self.loop is None:
            view = memoryview(data)
            while view:
                view = view[self.process.stdin.write(view) :]
        else:
            self.loop.do(self.process.stdin.write(data))  # type: ignore[arg-type]

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> Result:
        if self.loop is None:
            return self.process.wait()  # type: ignore[return-value]
        return self.loop.do(self.process.wait())  # type: ignore[arg-type]

    def signal(self, number: int, *, group: bool = False) -> None:
        self.process.signal(number, group=group)

    def kill(self) -> None:
        self.process.kill()

    def resize(self, columns: int, rows: int) -> None:
        self.process.resize(columns, rows)

    def close(self) -> None:
        if self.loop is None:
            self.process.close()
        else:
            self.loop.call(self.process.close)


class BlockingFiles:
    """`Files`, or `AsyncFiles` in a loop: every method of theirs."""

    def __init__(self, files: object, loop: Loop | None) -> None:
        self._files, self._loop = files, loop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._files, name)
        if self._loop is None:
            return method
        loop = self._loop
        return lambda *args, **keywords: loop.do(method(*args, **keywords))

    @contextmanager
    def watching(self, path: str, **keywords: Any) -> Iterator[Any]:
        """A call that gives the next change."""
        watch = self.watch(path, **keywords)
        loop = self._loop
        try:
            yield (lambda: next(watch)) if loop is None else (lambda: loop.do(watch.__anext__()))
        finally:
            watch.close()


class BlockingBox:
    """A `Sandbox`, or an `AsyncSandbox` in a loop."""

    def __init__(self, face: str, box: Sandbox | AsyncSandbox, loop: Loop | None) -> None:
        self.face, self.box, self.loop = face, box, loop

    def exec(self, *args: Any, **keywords: Any) -> Result:
        called = self.box.exec(*args, **keywords)
        return called if self.loop is None else self.loop.do(called)  # type: ignore[return-value,arg-type]

    def start(self, *args: Any, **keywords: Any) -> BlockingProcess:
        called = self.box.start(*args, **keywords)
        started = called if self.loop is None else self.loop.do(called)  # type: ignore[arg-type]
        return BlockingProcess(started, self.loop)  # type: ignore[arg-type]

    def pause(self) -> None:
        paused = self.box.pause()
        if self.loop is not None:
            self.loop.do(paused)  # type: ignore[arg-type]

    def resume(self) -> None:
        resumed = self.box.resume()
        if self.loop is not None:
            self.loop.do(resumed)  # type: ignore[arg-type]

    def close(self) -> None:
        closed = self.box.close()
        if self.loop is not None:
            self.loop.do(closed)  # type: ignore[arg-type]

    @property
    def files(self) -> BlockingFiles:
        return BlockingFiles(self.box.files, self.loop)

    @property
    def pid(self) -> int:
        return self.box._box.pid


@contextmanager
def blocking(face: str, **keywords: Any) -> Iterator[BlockingBox]:
    """A box of one of the FACES."""
    if has_kernel(face):
        keywords.setdefault("level", "L3")
    if has_sentry(face):
        with using(runsc_of(_RUNSC[face])):
            yield from _blocking(face, **keywords)
    elif is_machine(face):
        with named_vmm(face.split()[1]):
            yield from _blocking(face, runtime=face.split()[1], **keywords)
    else:
        yield from _blocking(face, **keywords)


def _blocking(face: str, **keywords: Any) -> Iterator[BlockingBox]:
    if face.startswith("sync"):
        with _HOSTED.get(face, Sandbox)(**keywords) as box:
            yield BlockingBox(face, box, None)
        return
    loop = Loop()
    try:
        box = BlockingBox(face, loop.do(_HOSTED.get(face, AsyncSandbox)(**keywords).open()), loop)
        try:
            yield box
        finally:
            box.close()
    finally:
        loop.close()
