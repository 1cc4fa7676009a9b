"""A box behind a channel, with the face of any box."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from immure.channel import frames as channel
from immure.channel.pump import Pump
from immure.errors import BoxError, BoxLost
from immure.plan.launch import Launch
from immure.runtimes.guest.adopted import Adopted, Adopts
from immure.runtimes.guest.bridge import Bridge
from immure.runtimes.guest.direct import Direct
from immure.runtimes.guest.relay import tell_size
from immure.runtimes.process import frames
from immure.runtimes.process.course import Course
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, pair, receive, send
from immure.runtimes.process.stem import Ended

#: How long a guest may take to greet, and to end what is in it.
START_S = 60.0
_END_S = 5.0
_PARKING_S = 10.0


class Driver(Protocol):
    """What steps a pump: `ThreadDriver` or `LoopDriver`."""

    def close(self) -> None:
        """Waits for the channel's end, and steps it no more."""


class GuestBox:
    """A box whose commands are asked for through a channel. Safe to use from several threads.

    It owns both descriptors. `pid` is the process of this host below which all of it is. `drive` begins to step its
    pump: `ThreadDriver`, or `LoopDriver` in the loop of its callers. `first_word` is asked once the guest has greeted:
    its configuration, or the moment of one that `adopts` is of. `end` ends what the box is in, whatever the guest does;
    it is called once, after the channel's end. `greeted` and `ahead` as for `Host`. A guest that does not answer within
    `start_s` is given up.
    """

    def __init__(
        self,
        receives: int,
        sends: int,
        launch: Launch,
        first_word: Callable[[], bytes],
        *,
        pid: int,
        drive: Callable[[Pump], Driver],
        end: Callable[[], None],
        start_s: float = START_S,
        adopts: Adopts | None = None,
        greeted: bool = False,
        ahead: bool = False,
    ) -> None:
        self.launch = launch
        self.pid = pid
        self.ended: Ended | None = None
        self.failure: BoxError | None = None
        #: It is closed.
        self.left = False
        self.owner, self._teller = pair()
        self._items: dict[str, bytes] = {}
        self._pause = 0
        self._asked_to_end = self._is_ready = False
        self._end_host: Callable[[], None] | None = end
        told = weakref.WeakMethod(self._hear)
        self._bridge = Bridge(receives, sends, first_word, told, adopts=adopts, greeted=greeted, ahead=ahead)
        self._timer = self._give_up_after(start_s, "an answer to the configuration")
        self._driver = drive(self._bridge.pump)

    def _give_up_after(self, seconds: float, awaited: str) -> threading.Timer:
        """Ends the channel of a guest that does not answer in time. Nobody else would: it need not ever say a word."""
        pump = self._bridge.pump

        def give_up() -> None:
            with pump.lock:
                if not timer.finished.is_set():
                    pump.end(BoxLost("the box does not answer", need=f"{awaited} within {seconds:g} s"))

        timer = self._timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        return timer

    def _hear(self, told: channel.Configured | BoxError) -> None:
        """Passes on what concerns the whole box; called by whoever steps the pump."""
        self._timer.cancel()
        if isinstance(told, channel.Configured):
            for name, answer in (("before", told.sentinel_before), ("after", told.sentinel_after)):
                if answer is not None:
                    self._items[f"sentinel.{name}"] = answer.to_bytes(4, "little", signed=True)
            self._say(frames.header(frames.READY))
        else:
            if not self._asked_to_end:
                self.failure = told
            self._say(frames.header(frames.ENDED) + bytes(20))
            self._teller.close()

    def _say(self, message: bytes) -> None:
        try:
            send(self._teller, message, [])
        except BoxLost:
            # Nobody listens.
            pass

    def ready(self) -> dict[str, bytes]:
        """Waits until commands can be asked for, and gives how Landlock answered, if it was asked.

        Raises SetupFailed for a step that the guest could not do, ChannelError and BoxLost.
        """
        if self._is_ready:
            return self._items
        message, _ = receive(self.owner)
        if message and frames.kind_of(message) == frames.READY:
            self._is_ready = True
            return self._items
        self.ended = Ended(frames.header(frames.ENDED) + bytes(20))
        raise self.failure or BoxLost("the box ended before it was ready")

    def release(self) -> None:
        """Nothing waits to be let go."""

    def start(
        self,
        payload: bytes,
        stdio: tuple[int | None, int, int],
        *,
        hold: bool = False,
        tell: bool = False,
        terminal: bool = False,
        builtin: bool = False,
    ) -> Socket:
        """As any box's. Raises BoxLost, or as the channel has failed."""
        ours, theirs = pair()
        try:
            self.start_for(theirs, payload, stdio, hold=hold, tell=tell, terminal=terminal, builtin=builtin)
        except BaseException:
            ours.close()
            raise
        return ours

    def start_for(
        self,
        asker: Socket,
        payload: bytes,
        stdio: tuple[int | None, int, int],
        *,
        hold: bool,
        tell: bool,
        terminal: bool,
        builtin: bool,
    ) -> None:
        """The same for an asker that has the other end of `asker`, which is closed when nobody needs it any more."""
        flags = (channel.NO_INPUT if stdio[0] is None else 0) | (channel.HOLD if hold else 0)
        flags |= (channel.TELL if tell else 0) | (channel.TERMINAL if terminal else 0)
        flags |= channel.BUILTIN if builtin else 0
        try:
            with self._bridge.pump.lock:
                self._check_open()
                self._bridge.start(asker, payload, stdio, flags)
        except BaseException:
            asker.close()
            raise

    def begin(self, request: Request, owner: tuple[int, int] | None) -> Course:
        """As any box's: it takes no descriptor here. Raises BoxLost, or as the channel has failed."""
        one = Direct(self, self._bridge.pump, request, request.payload())
        with self._bridge.pump.lock:
            self._check_open()
            self._bridge.start_direct(one)
        return one

    def _check_open(self) -> None:
        if self._bridge.pump.is_over:
            raise self.failure or BoxLost(
                "the box has ended", need="a box in use", have="its channel is closed", hint="make a new Sandbox"
            )

    def open_terminal(self) -> tuple[int, int]:
        """One of this host's: the command gets another, and what goes through both is moved."""
        return os.openpty()

    def resized(self, asker: Socket, columns: int, rows: int) -> None:
        """Tells the command's own terminal."""
        tell_size(asker, columns, rows)

    def give_back(self, asker: Socket) -> None:
        """Closes it: each command has one of its own."""
        asker.close()

    def pause(self, paused: bool) -> None:
        """Has everything in the box stop, or go on. Raises BoxLost where it has ended."""
        with self._bridge.pump.lock:
            self._check_open()
            if paused:
                self._pause = self._bridge.pause()
            else:
                self._bridge.resume()

    def moving(self) -> int:
        """0 once the guest has said that everything has stopped."""
        return int(self._bridge.paused < self._pause)

    def alive(self) -> bool:
        """Whether its channel is open."""
        return not self._bridge.pump.is_over

    def adopted(self) -> list[Adopted]:
        """What was under way in a guest that somebody else had before; whoever takes it has it."""
        with self._bridge.pump.lock:
            taken, self._bridge.adopted = self._bridge.adopted, []
        return taken

    @contextmanager
    def parked(self) -> Generator[Adopts]:
        """While the guest says nothing, so that a copy of this moment may be made.

        Gives what who adopts the copy is to know. Raises BoxLost.
        """
        bridge = self._bridge
        with bridge.pump.lock:
            self._check_open()
            bridge.park()
        try:
            if not bridge.parked.wait(_PARKING_S):
                raise BoxLost("the box does not answer", need=f"a pause within {_PARKING_S:g} s")
            with bridge.pump.lock:
                self._check_open()
                found = Adopts(bridge.host.last_stream, bridge.under_way())
            yield found
        finally:
            with bridge.pump.lock:
                if not bridge.pump.is_over:
                    bridge.unpark()

    def ran_out(self) -> bool:
        """Nothing is known of that here."""
        return False

    def kill(self) -> None:
        """Has the guest end everything; `wait_end` tells when it has."""
        with self._bridge.pump.lock:
            if not self._bridge.pump.is_over:
                if not self._asked_to_end:
                    self._asked_to_end = True
                    self._timer.cancel()
                    self._give_up_after(_END_S, "an end")
                self._bridge.shut_down()

    def hear_owner(self) -> None:
        """Takes one message from the owner's socket, which is readable."""
        message, _ = receive(self.owner)
        if not message or frames.kind_of(message) == frames.ENDED:
            self.ended = Ended(frames.header(frames.ENDED) + bytes(20))

    def wait_end(self) -> Ended:
        """Waits until the channel is over."""
        while self.ended is None:
            self.hear_owner()
        return self.ended

    def close(self) -> None:
        """Ends the box, and what it is in, and waits until it is gone. A guest that does not end is given up."""
        if self.left:
            return
        try:
            self.kill()
            self._driver.close()
        finally:
            self._let_go()
            self.left = True
            self.owner.close()

    def _let_go(self) -> None:
        pump = self._bridge.pump
        with pump.lock:
            pump.end(BoxLost("the box was closed"))
            while self._bridge.adopted:
                self._bridge.adopted.pop().close()
        if self._end_host is not None:
            end, self._end_host = self._end_host, None
            end()

    def __del__(self) -> None:
        # A box that nobody holds ends.
        if hasattr(self, "_driver"):
            self._let_go()
