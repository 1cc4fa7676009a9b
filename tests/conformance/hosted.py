"""Boxes behind a channel: the guest is a command of an ordinary box, and that command's pipes are the stream of bytes.

Such a guest is no process 1 and has no privileges. What takes those is tested with guests that have them.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from pathlib import Path
from typing import Any

import msgspec

from immure import PIPE, AsyncSandbox, Process, Sandbox
from immure.channel.aio import LoopDriver
from immure.channel.blocking import ThreadDriver
from immure.engine.command import prepare_call
from immure.engine.face import BoxFace
from immure.engine.readiness import readable
from immure.host.native import native_program
from immure.host.tree import below
from immure.plan.launch import Launch
from immure.runtimes.guest.box import GuestBox

#: Where the native program is in the outer box.
PLACE = "/opt/immure-init"


def stage_of(launch: Launch) -> dict[str, Any]:
    """The last stage of a plan, without what takes privileges that the box has given up around the guest."""
    stage = msgspec.msgpack.decode(launch.wire)["command"]
    return {**stage, "known_capabilities": 0, "keep_capabilities": 0, "securebits": 0}


def configuration(stage: dict[str, Any], landlock: dict[str, Any] | None = None, *, drop_groups: bool = False) -> bytes:
    return msgspec.msgpack.encode({"command": stage, "landlock": landlock, "drop_groups": drop_groups})


def outer_box(**keywords: Any) -> Sandbox:
    """What the guest is in: what is asked for applies here too, but for the limits of one command."""
    given = {name: value for name, value in keywords.items() if name not in ("timeout_s", "output_mib")}
    mounts = [*given.pop("mounts", ()), (native_program(), PLACE, "ro")]
    return Sandbox(**{**given, "mounts": mounts, "workdir": "/tmp"})


def start_guest(outer: Sandbox) -> tuple[Process, int]:
    """A guest, and its number on this host."""
    command = outer.start([PLACE, "guest", "0", "1"], stdin=PIPE)
    try:
        # With its hello it has its name.
        select.select([command.stdout.fileno()], [], [], 10)
        pid = next(pid for pid in below(outer._box.pid) if name_of(pid) == "immure-guest")
    except BaseException:
        command.close()
        raise
    return command, pid


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def guest_box(outer: Sandbox, launch: Launch, drive: Any, config: bytes | None = None) -> GuestBox:
    """A box behind a guest in another box, which ends with it."""
    command, pid = start_guest(outer)
    assert command.stdin is not None

    def end() -> None:
        command.close()
        outer.close()

    receives, sends = os.dup(command.stdout.fileno()), os.dup(command.stdin.fileno())
    # Nobody else is to hold the ends of the stream.
    command.stdin.close()
    command.stdout.close()
    told = config or configuration(stage_of(launch))
    return GuestBox(receives, sends, launch, lambda: told, pid=pid, drive=drive, end=end)


def begin_face(
    face: Sandbox, *, preset: str | None = None, name: str = "immure", log_mib: float = 1, **keywords: Any
) -> None:
    """What a `Sandbox` is before it has a box."""
    BoxFace.__init__(face, name, log_mib=log_mib)
    face._launch = prepare_call(None, preset, keywords, name)
    face._closing = threading.Lock()


class HostedSandbox(Sandbox):
    """A `Sandbox` whose box is behind a channel that a thread serves."""

    def __init__(self, **keywords: Any) -> None:
        begin_face(self, **keywords)
        outer = outer_box(**keywords)
        try:
            self._measured = outer._measured
            self._stem = self._box = guest_box(outer, self._launch, ThreadDriver)
        except BaseException:
            outer.close()
            raise
        try:
            self._box.ready()
        except BaseException:
            self._box.close()
            raise


class HostedAsyncSandbox(AsyncSandbox):
    """An `AsyncSandbox` whose box is behind a channel that its loop serves."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._keywords = keywords

    async def open(self) -> HostedAsyncSandbox:
        self._launch = self._prepare()
        outer = await asyncio.to_thread(outer_box, **self._keywords)
        try:
            self._measured = outer._measured
            self._stem = self._box = guest_box(outer, self._launch, LoopDriver)
        except BaseException:
            outer.close()
            raise
        try:
            await readable(self._box.owner.fileno())
            self._box.ready()
        except BaseException:
            self._box.close()
            raise
        return self
