"""One box of the process runtime, from the request to its end. Blocking; safe to use from several threads.

Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

import os

from immure.errors import BoxError, BoxLost, SetupFailed
from immure.plan.launch import Launch
from immure.runtimes.process import frames
from immure.runtimes.process.cgroups import sweep
from immure.runtimes.process.faults import explain, explain_last
from immure.runtimes.process.spawner import Spawner, hang_up, receive, send
from immure.runtimes.process.stem import Ended, Stem


class Box(Stem):
    """`ready()` comes first, then `release()` lets the first command run; `close()` ends it all."""

    ended: Ended | None
    failure: BoxError | None

    def __init__(self, spawner: Spawner, launch: Launch, *, one_shot: bool, sources: list[int] | None = None) -> None:
        """`sources` are descriptors of the mounts' sources, which stay the caller's; else their paths are opened."""
        self._spawner = spawner
        opened = open_sources(launch.sources) if sources is None else []
        try:
            self.owner, stem = spawner.request_box(launch, opened if sources is None else sources, one_shot=one_shot)
        finally:
            for fd in opened:
                os.close(fd)
        super().__init__(launch, stem)
        self._pidfd = -1

    def ready(self) -> dict[str, bytes]:
        """Waits for the witness and gives what the kernel says of it.

        Raises SetupFailed for a step that failed and BoxLost where the spawner is gone.
        """
        message, fds = receive(self.owner)
        kind = frames.kind_of(message) if message else 0
        if kind == frames.READY:
            self.pid = frames.u32(message, 8)
            self._pidfd = fds[0]
            try:
                return frames.items(message, 12)
            except ValueError as error:
                raise BoxLost("the spawner said something unreadable", have=str(error)) from error
        if kind == frames.FAILED:
            raise explain(message)
        if kind == frames.ENDED:
            self.ended = Ended(message)
            raise BoxLost("the box ended before it was ready", have=f"pid 1 ended with status {self.ended.status:#x}")
        said = self._spawner.last_word()
        if frames.kind_of(said) == frames.FAILED:
            raise explain_last(said)
        raise _no_spawner()

    def release(self) -> None:
        """Lets the inspected process go on. One that could not be started has taken its box along already."""
        self._say(frames.RELEASE)

    def alive(self) -> bool:
        """Whether its stem and its spawner are there."""
        import select

        poll = select.poll()
        # Its end is told here, or the spawner's is seen.
        poll.register(self.owner.fileno(), select.POLLIN)
        poll.register(self.stem.fileno(), 0)
        return not poll.poll(0)

    def check_spawner(self) -> None:
        """Raises BoxLost where its spawner is gone: whatever else is said of the box's end came of that."""
        if self._spawner.gone(within_ms=0):
            raise _no_spawner()

    def kill(self) -> None:
        """Ends the box at once; `wait_end` tells when it is gone."""
        self._say(frames.KILL)

    def _say(self, kind: int) -> None:
        """To the spawner, which may be gone."""
        try:
            with self._using:
                send(self.owner, frames.header(kind), [])
        except BoxLost:
            pass

    def hear_owner(self) -> None:
        """Takes one message from the owner's socket, which is readable: the end of the box, or of the spawner."""
        message, fds = receive(self.owner)
        for fd in fds:
            os.close(fd)
        kind = frames.kind_of(message) if message else 0
        if kind == frames.ENDED:
            self.ended = Ended(message)
        elif kind == frames.FAILED:
            self.failure = explain(message)
        elif not message:
            raise BoxLost("the spawner is gone", have="its socket was closed", hint="try again")

    def wait_end(self) -> Ended:
        """Waits until pid 1, and so every process of the box, is gone."""
        while self.ended is None:
            self.hear_owner()
        return self.ended

    def close(self) -> None:
        """Ends the box and waits until it is gone. Harmless when it is gone already."""
        if self.owner.fileno() < 0:
            return
        try:
            if self.ended is None:
                self.kill()
                self.wait_end()
        except BoxLost:
            # The spawner is gone, and what it made goes with it; see that it does.
            self._wait_pidfd()
            sweep(self.launch)
        finally:
            with self._using:
                self.owner.close()
            self.leave()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1

    def __del__(self) -> None:
        # A box that nobody holds ends; in a forked child it is the parent's. This descriptor does not close itself.
        if getattr(self, "_pidfd", -1) >= 0:
            os.close(self._pidfd)
            if self._spawner.owner == os.getpid():
                hang_up(self.owner)

    def _wait_pidfd(self) -> None:
        if self._pidfd < 0:
            return
        import select
        import signal

        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return
        select.select([self._pidfd], [], [], 5.0)


def _no_spawner() -> BoxLost:
    return BoxLost("the spawner is gone", have="it ended while the box was made", hint="try again")


def open_sources(sources: tuple[tuple[str, str], ...]) -> list[int]:
    """A descriptor for each mount source. Raises SetupFailed where one is gone or is not what it was."""
    import stat

    opened: list[int] = []
    try:
        for path, kind in sources:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            opened.append(fd)
            if stat.S_ISDIR(os.fstat(fd).st_mode) != (kind == "folder"):
                raise SetupFailed(
                    f"the mount source {path} has changed",
                    step="mount source",
                    need=f"a {kind}",
                    have="another kind",
                )
    except OSError as error:
        for fd in opened:
            os.close(fd)
        raise SetupFailed(
            f"the mount source {error.filename} can't be opened",
            step="mount source",
            errno=error.errno or 0,
            have=error.strerror,
            hint="create it, or mount another path",
        ) from error
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    return opened
