"""Commands of one box, each between its asker and the box's channel."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from immure.channel import frames as channel
from immure.channel.host import Host
from immure.channel.pump import Pump
from immure.errors import BoxError, BoxLost
from immure.runtimes.guest.adopted import Adopted, Adopts
from immure.runtimes.guest.direct import Direct
from immure.runtimes.guest.relay import Relay, exit_message
from immure.runtimes.guest.streams import Source, Target, own_copy
from immure.runtimes.guest.terminals import make_raw
from immure.runtimes.process import frames
from immure.runtimes.process.faults import explain_fault
from immure.runtimes.process.spawner import Socket, send

_OUTPUTS: tuple[channel.Output, ...] = (1, 2)
_E2BIG, _EAGAIN, _EBUSY, _EXEC_STEP = 7, 11, 16, 1


Told = Callable[[channel.Configured | BoxError], None]


class Bridge:
    """Starts commands over a channel and passes on what is said of them. Used under its pump's lock.

    `told` leads to who is called with what concerns the whole box, while it is there: `Configured`, and at the end why
    there is no more.
    """

    def __init__(
        self,
        receives: int,
        sends: int,
        first_word: Callable[[], bytes],
        told: Callable[[], Told | None],
        *,
        adopts: Adopts | None = None,
        greeted: bool = False,
        ahead: bool = False,
    ) -> None:
        """As for `Host`, but that `adopts` is what is known of a guest that somebody had before."""
        last_stream = adopts.last_stream if adopts is not None else None
        self.host = Host(first_word, adopts=last_stream, greeted=greeted, ahead=ahead)
        self._known = adopts.commands if adopts is not None else {}
        self.pump = Pump(self.host, receives, sends, self._hear, self._lost)
        self._told = told
        self._ready = False
        self._relays: dict[int, Relay | Direct] = {}
        #: What was under way in a guest that somebody else had before.
        self.adopted: list[Adopted] = []
        #: Set once the guest has said its first word, or while it says nothing more, and both once there is none.
        self.greeted, self.parked = threading.Event(), threading.Event()
        #: The last pause that everything has come to rest for.
        self.paused = 0
        #: From when a pause is asked for: nothing is started then, whoever asks.
        self._stands_still = False
        self.pump.flush()

    def start(self, asker: Socket, command: bytes, stdio: tuple[int | None, int, int], flags: int) -> None:
        """Asks for a command. `asker` is closed when nobody needs it any more; `stdio` stays the caller's.

        Raises BoxLost where nobody has its other end.
        """
        refused, step = self._refusal(command)
        if refused:
            send(asker, exit_message(channel.Exited(1, 0, refused, step, 0, 0, 0), draining=False), [])
            asker.close()
            return
        columns, rows = make_raw(stdio[1]) if flags & channel.TERMINAL else (0, 0)
        source, *targets = _own_copies(stdio, one_output=bool(flags & channel.TERMINAL))
        stream = self.host.exec(flags, command, columns=columns, rows=rows)
        made = [Target(self.pump, fd, stream, output) for fd, output in zip(targets, _OUTPUTS, strict=False)]
        relay = self._relays[stream] = Relay(self.pump, asker, stream, made, self._forget)
        relay.command = command
        if source >= 0:
            relay.source = Source(self.pump, source, stream)
        self.pump.flush()

    def start_direct(self, one: Direct) -> None:
        """Asks for a command without input, whose output is held until its exit."""
        refused, step = self._refusal(one.command)
        if refused:
            one.refuse(refused, step)
            return
        stream = self.host.exec(channel.NO_INPUT | channel.HOLD, one.command)
        self._relays[stream] = one
        one.begin(stream, self._forget)
        self.pump.flush()

    def _refusal(self, command: bytes) -> tuple[int, int]:
        """The errno and the step of a command that can't even be asked for."""
        if self._stands_still:
            return _EBUSY, frames.PAUSED
        if not self.host.takes_command(command):
            return _E2BIG, _EXEC_STEP
        return (0 if self.host.has_room_for_stream() and self.pump.takes_commands() else _EAGAIN), _EXEC_STEP

    def pause(self) -> int:
        """Has everything stop; `paused` becomes the number that this gives once it has."""
        self._stands_still = True
        number = self.host.pause()
        self.pump.flush()
        return number

    def resume(self) -> None:
        """Lets everything go on."""
        self._stands_still = False
        self.host.resume()
        self.pump.flush()

    def park(self) -> None:
        """Has the guest say nothing more, so that this moment can be copied. `parked` is set when it does not."""
        self.host.park()
        self.pump.flush()

    def unpark(self) -> None:
        """Lets it go on."""
        self.parked.clear()
        self.host.unpark()
        self.pump.flush()

    def under_way(self) -> dict[int, bytes]:
        """The commands that have not ended, by their streams, as they were asked for."""
        return {number: relay.command for number, relay in self._relays.items() if not relay.exited}

    def _adopt(self, standing: channel.Standing) -> None:
        if standing.exited:
            # Its end was told to somebody else, and what others write there is nobody's.
            for output in (1, 2):
                self.host.close_output(standing.stream, output)
            return
        made = Adopted(standing)
        targets = [Target(self.pump, fd, standing.stream, output) for output, fd in made.targets()]
        relay = Relay(self.pump, made.theirs, standing.stream, targets, self._forget)
        relay.command = self._known.get(standing.stream, b"")
        for output, target in zip(_OUTPUTS, targets, strict=False):
            if not standing.outputs & output:
                target.end()
        if made.source >= 0:
            relay.source = Source(self.pump, made.source, standing.stream)
        self._relays[standing.stream] = relay
        self.adopted.append(made)

    def shut_down(self) -> None:
        """Has the box end."""
        if self.host.is_ready:
            self.host.shut_down()
            self.pump.flush()
        else:
            # Nobody is there yet to be told.
            self.pump.end(BoxLost("the box was given up before it was ready", have="its channel was closed"))

    def _forget(self, stream: int) -> None:
        self._relays.pop(stream, None)

    def _hear(self, event: channel.FromGuest) -> None:
        match event:
            case channel.Configured():
                self._ready = True
                self._tell(event)
            case channel.Parked():
                self.parked.set()
            case channel.Standing():
                self._adopt(event)
            case channel.Paused(number):
                self.paused = number
            case channel.Fault(step, thing, errno):
                if self._ready:
                    self.pump.end(_given_up(step, thing, errno))
                else:
                    self.pump.end(explain_fault(step, thing, errno))
            case channel.Bye():
                self.pump.end(BoxLost("the box has ended", need="a box in use", have="it was told to end"))
            case channel.Hello():
                self.greeted.set()
            case channel.Pong():
                pass
            case _:
                relay = self._relays.get(event.stream)
                if relay is not None:
                    relay.hear(event)

    def _tell(self, what: channel.Configured | BoxError) -> None:
        told = self._told()
        if told is not None:
            told(what)

    def _lost(self, why: BoxError) -> None:
        # First, so that whoever learns of the end by its asker finds the reason there.
        self._tell(why)
        while self._relays:
            _, relay = self._relays.popitem()
            relay.close()
        # Nobody is to wait for a guest that is gone.
        self.greeted.set()
        self.parked.set()


def _given_up(step: str, thing: str, errno: int) -> BoxLost:
    """The error of a guest that can't go on."""
    return BoxLost(f"the box gave up: {step} {thing}".rstrip(), have=os.strerror(errno), hint="make a new Sandbox")


def _own_copies(stdio: tuple[int | None, int, int], *, one_output: bool) -> list[int]:
    """Descriptors of ours for what a command is to have: standard input, -1 where there is none, and its outputs."""
    wanted = [(stdio[0], os.O_RDONLY), (stdio[1], os.O_WRONLY), (stdio[2], os.O_WRONLY)][: 2 if one_output else 3]
    copies: list[int] = []
    try:
        for fd, access in wanted:
            copies.append(-1 if fd is None else own_copy(fd, access))
    except BaseException:
        for fd in copies:
            if fd >= 0:
                os.close(fd)
        raise
    return copies
