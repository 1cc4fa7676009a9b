"""The verbs of `verbs.py`, awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

from immure.engine.aio_files import AsyncFiles
from immure.engine.aio_process import AsyncProcess
from immure.engine.command import Argument
from immure.engine.deadlines import watch_over
from immure.engine.face import BoxFace
from immure.engine.log import Record
from immure.engine.process_face import hear_start
from immure.engine.readiness import drive, readable
from immure.engine.result import Result, with_denials
from immure.engine.stdio import captured
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import hang_up

if TYPE_CHECKING:
    from immure.engine.denial_watch import DenialWatch


class AsyncVerbs(BoxFace):
    """The verbs of `AsyncSandbox` and `AsyncKeptSandbox`."""

    async def exec(
        self,
        argv: Sequence[Argument],
        *,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: int | None = None,
        timeout_s: float | None = None,
        output_mib: float | None = None,
        denials: bool = False,
    ) -> Result:
        """Runs one command in the box and waits for it. As `Sandbox.exec`."""
        request = self.request(argv, env, workdir, user, timeout_s, output_mib)
        if denials:
            return await self._watched(request, stdin)
        return await self._run(request, stdin)

    async def _watched(self, request: Request, stdin: bytes | None) -> Result:
        opening = asyncio.ensure_future(asyncio.to_thread(self._watch_denials))
        try:
            watch = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise
        try:
            result = await self._run(request, stdin)
            return with_denials(result, await asyncio.to_thread(watch.finish))
        finally:
            await asyncio.shield(asyncio.to_thread(watch.close))

    async def _run(self, request: Request, stdin: bytes | None) -> Result:
        began = perf_counter_ns()
        record = Record(self.log, request.argv)
        try:
            stdio = captured(stdin)
            try:
                attendance = await self._attended(request, stdio, record)
            finally:
                stdio.done()
            result = self.result(request, attendance, (perf_counter_ns() - began) // 1000)
        except BaseException as error:
            record.failed(error)
            raise
        record.ended(result)
        return result

    async def _attended(self, request: Request, stdio: Stdio, record: Record) -> Attendance:
        asker = self.ask(request, stdio, hold=True)
        try:
            attendance = Attendance(self._stem, asker, stdio, request)
            record.begun()
            attendance.heard = record.wrote
            watch_over(attendance, request.timeout_s)
            try:
                await drive(attendance)
            finally:
                stdio.done()
                attendance.leave()
        except BaseException:
            # It ends the command.
            hang_up(asker)
            raise
        if attendance.exit is not None:
            self._stem.give_back(asker)
        return attendance

    async def start(
        self,
        argv: Sequence[Argument],
        *,
        stdin: bytes | int | None = None,
        pty: tuple[int, int] | bool = False,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: int | None = None,
        timeout_s: float | None = None,
        output_mib: float | None = None,
    ) -> AsyncProcess:
        """Starts a command and comes back while it runs. As `Sandbox.start`."""
        request = self.request(argv, env, workdir, user, timeout_s, output_mib)
        stdio, writer = self.open_streams(request, stdin, pty)
        record = self.log.begin(request.argv)
        try:
            asker = self.ask(request, stdio, tell=True, terminal=stdio.terminal)
            try:
                await readable(asker.fileno())
                hear_start(self._stem, asker, request)
                bounded = self.is_bounded(output_mib)
                return self._started(
                    AsyncProcess(self._stem, asker, stdio, writer, request, self.result, bounded=bounded, record=record)
                )
            except BaseException:
                hang_up(asker)
                raise
        except BaseException as error:
            stdio.done()
            if writer is not None:
                os.close(writer)
            record.failed(error)
            raise

    @property
    def files(self) -> AsyncFiles:
        """The box's files, as those of `Sandbox`, awaited."""
        return AsyncFiles(self)

    def _watch_denials(self) -> DenialWatch:
        """Raises as `exec` with `denials`. Called on a thread."""
        raise NotImplementedError


def _close(opened: asyncio.Future[DenialWatch]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        opened.result().close()
