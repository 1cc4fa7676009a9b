"""The engine's end of a spawner: starts one and asks it for boxes.

Standard library only, and little of that: this is on the hot path. `_socket` is the C module below `socket`, whose
import alone costs as much as starting Python.
"""

from __future__ import annotations

import _socket
import _thread
import os

from immure.errors import BoxLost, SetupFailed
from immure.plan.launch import Launch
from immure.runtimes.process import frames
from immure.runtimes.process.faults import explain_last

Socket = _socket.socket
_MOMENT_MS = 200
#: Ending many boxes on a busy machine takes a while; past this it is stopped or stuck.
_PATIENCE_MS = 10_000
_SCM_RIGHTS = _socket.SCM_RIGHTS
_SOL_SOCKET = _socket.SOL_SOCKET


def pair() -> tuple[Socket, Socket]:
    """Two connected sockets that keep message bounds and show the other's end."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)


def disconnect(socket: Socket) -> None:
    """Ends the connection, which both ends notice; the descriptor stays."""
    try:
        socket.shutdown(_socket.SHUT_RDWR)
    except OSError:
        # There is none any more.
        pass


def hang_up(socket: Socket) -> None:
    """Closes it, and with it the connection: a process that was forked from this one may hold a copy."""
    disconnect(socket)
    socket.close()


def send(socket: Socket, message: bytes, fds: list[int]) -> None:
    """One message with descriptors. Raises BoxLost where nobody is there any more."""
    try:
        if fds:
            numbers = 0
            for fd in reversed(fds):
                numbers = numbers << 32 | fd
            rights = numbers.to_bytes(4 * len(fds), "little")
            socket.sendmsg([message], [(_SOL_SOCKET, _SCM_RIGHTS, rights)], _socket.MSG_NOSIGNAL)
        else:
            socket.send(message, _socket.MSG_NOSIGNAL)
    except OSError as error:
        raise BoxLost("the other end is gone", have=str(error)) from error


def receive(socket: Socket) -> tuple[bytes, list[int]]:
    """One message; empty at the end."""
    for _ in range(2):
        # A peer that ended with messages of ours unread makes that known once, before what it had sent is read.
        try:
            data, ancillary, _, _ = socket.recvmsg(
                frames.MESSAGE_LIMIT, _socket.CMSG_SPACE(16), _socket.MSG_CMSG_CLOEXEC
            )
            break
        except ConnectionResetError:
            continue
    else:
        return b"", []
    return data, rights_of(ancillary)


def hear(socket: Socket) -> bytes:
    """A short message; empty at the end. Descriptors that somebody sends with it are closed by the kernel."""
    for _ in range(2):
        # What `receive` says of a peer that ended.
        try:
            return socket.recv(frames.SHORT_LIMIT)
        except ConnectionResetError:
            continue
    return b""


def rights_of(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a message."""
    return [
        frames.i32(content, offset)
        for level, kind, content in ancillary
        if (level, kind) == (_SOL_SOCKET, _SCM_RIGHTS)
        for offset in range(0, len(content) - 3, 4)
    ]


def memory_file(content: bytes, *, sealable: bool = False) -> int:
    """A descriptor of a file in memory, at its beginning."""
    fd = os.memfd_create("immure", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealable else 0))
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Spawner:
    """One spawner process, owned by this process. Its boxes end with it, and it ends with us."""

    def __init__(self, program: str, config: bytes, lock: int | None) -> None:
        ours, theirs = pair()
        self._socket = ours
        self._plans: dict[str, int] = {}
        self._loading = _thread.allocate_lock()
        #: Held while the socket is used: one that another thread closes meanwhile may be somebody else's number. In the
        #: same thread the handler of a signal may come in between.
        self._using = _thread.RLock()
        self.owner = os.getpid()
        #: Its number may be another process's by now.
        self._reaped = False
        try:
            self.pid = self._start(program, theirs.fileno())
        finally:
            theirs.close()
        send(ours, config, [] if lock is None else [lock])

    @staticmethod
    def _start(program: str, fd: int) -> int:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        # A copy under the number that is announced: posix_spawn's dup2 clears close-on-exec, which a dup2 of a
        # descriptor on itself would not. Nor may it be that of the null device, which is copied after it.
        number = next(one for one in (3, 4, 5) if one not in (fd, null))
        actions: list[tuple[int, int, int]] = [
            (os.POSIX_SPAWN_DUP2, fd, number),
            *((os.POSIX_SPAWN_DUP2, null, target) for target in (0, 1, 2)),
        ]
        try:
            return os.posix_spawn(
                program, ["immure-init", "spawner", str(number)], {}, file_actions=actions, setsid=True
            )
        except OSError as error:
            raise SetupFailed(
                "the native program can't be started", step="spawner", errno=error.errno or 0, have=str(error)
            ) from error
        finally:
            os.close(null)

    def load(self, launch: Launch) -> int:
        """The number of a plan, which goes over once."""
        with self._loading:
            number = self._plans.get(launch.plan_sha256)
            if number is None:
                number = len(self._plans) + 1
                fd = memory_file(launch.wire)
                try:
                    self._ask(frames.header(frames.PLAN, 0, number), [fd])
                finally:
                    os.close(fd)
                self._plans[launch.plan_sha256] = number
            return number

    def request_box(self, launch: Launch, sources: list[int], *, one_shot: bool) -> tuple[Socket, Socket]:
        """Asks for a box: its owner's socket and its stem's."""
        number = self.load(launch)
        owner, theirs = pair()
        stem, its = pair()
        message = frames.header(frames.BOX, frames.ONE_SHOT if one_shot else 0, number)
        try:
            self._ask(message, [theirs.fileno(), its.fileno(), *sources])
        finally:
            theirs.close()
            its.close()
        return owner, stem

    def _ask(self, message: bytes, fds: list[int]) -> None:
        """Sends it. Where the spawner has given up already, raises what it said of that."""
        try:
            with self._using:
                send(self._socket, message, fds)
        except BoxLost as error:
            said = self.last_word()
            if frames.kind_of(said) == frames.FAILED:
                raise explain_last(said) from None
            raise BoxLost("the spawner is gone", have=error.have, hint="try again") from error

    def last_word(self) -> bytes:
        """What a spawner that gave up said before it ended, or nothing."""
        with self._using:
            for _ in range(2):
                try:
                    return self._socket.recv(frames.MESSAGE_LIMIT, _socket.MSG_DONTWAIT)
                except ConnectionResetError:
                    continue
                except OSError:
                    break
        return b""

    def gone(self, within_ms: int = _MOMENT_MS) -> bool:
        """Whether its end of our socket is closed, or is so in a moment: a killed process takes one to go."""
        import select

        poll = select.poll()
        fd = self._socket.fileno()
        if fd < 0:
            return True
        poll.register(fd, 0)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(within_ms))

    def alive(self) -> bool:
        """Whether the process runs, and is ours rather than that of the process we were forked from."""
        if self.owner != os.getpid() or self._reaped:
            return False
        try:
            self._reaped = os.waitpid(self.pid, os.WNOHANG) != (0, 0)
        except ChildProcessError:
            self._reaped = True
        return not self._reaped

    def forget(self) -> None:
        """Lets go of it, in a forked child. The lock may be held by a thread that only the parent has."""
        self._socket.close()

    def close(self) -> None:
        """Ends it, and with it its boxes, and waits until it is gone. One that is stopped or stuck is killed."""
        if self.owner != os.getpid():
            return
        with self._using:
            hang_up(self._socket)
        if self._reaped:
            return
        import select

        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        try:
            if not poll.poll(_PATIENCE_MS):
                import signal

                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        finally:
            os.close(pidfd)
