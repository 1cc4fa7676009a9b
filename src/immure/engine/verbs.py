"""What everybody who has a box that stays does in it: commands and files. Blocking; no event loop is ever run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

from immure.engine.command import Argument
from immure.engine.face import BoxFace
from immure.engine.files import Files
from immure.engine.log import Record
from immure.engine.process import Process
from immure.engine.result import Result, with_denials
from immure.runtimes.process.request import Request

if TYPE_CHECKING:
    from immure.engine.denial_watch import DenialWatch


class Verbs(BoxFace):
    """The verbs of `Sandbox` and `KeptSandbox`."""

    def exec(
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
        """Runs one command in the box and waits for it. Threads may call it at once.

        `stdin` is what it reads, nothing by default. `env` adds to the box's environment. `workdir`, `user` (an id of
        the box, its group too), `timeout_s` in seconds and `output_mib` of both streams together stand in for those of
        the box; without any, 16 MiB of output are kept, and a command that writes more is ended.

        `denials=True` has the box's Sentry tell what it refuses meanwhile, which takes tens of milliseconds and is the
        box's one trace for so long: `Result.denials`. Raises RuntimeUnavailable below L3.

        That it fails is no error: look at `Result.exit`. Raises SpecError for bad input, ExecFailed where it can't be
        started, BoxError where the box is paused, and BoxLost where it is gone.
        """
        request = self.request(argv, env, workdir, user, timeout_s, output_mib)
        if denials:
            return self._watched(request, stdin)
        return self._run(request, stdin)

    def _watched(self, request: Request, stdin: bytes | None) -> Result:
        watch = self._watch_denials()
        try:
            result = self._run(request, stdin)
            return with_denials(result, watch.finish())
        finally:
            watch.close()

    def _run(self, request: Request, stdin: bytes | None) -> Result:
        began = perf_counter_ns()
        record = Record(self.log, request.argv)
        try:
            attendance = self._capture(request, stdin, record)
            result = self.result(request, attendance, (perf_counter_ns() - began) // 1000)
        except BaseException as error:
            record.failed(error)
            raise
        record.ended(result)
        return result

    def start(
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
    ) -> Process:
        """Starts a command and comes back while it runs.

        `stdin`: bytes, PIPE for `Process.stdin`, or nothing. `pty`: a terminal of its own in place of the three
        streams, of 80 columns and 24 rows or as many as (columns, rows) say; what is typed goes to `stdin`, what is
        shown comes from `stdout`. `output_mib` bounds all output; where it is left out, only what `wait` collects, to
        16 MiB. `timeout_s` ends it whether or not anybody waits. The others are those of `exec`, and so are the errors.
        """
        request = self.request(argv, env, workdir, user, timeout_s, output_mib)
        stdio, writer = self.open_streams(request, stdin, pty)
        return self.begin(request, stdio, writer, bounded=self.is_bounded(output_mib), builtin=False)

    @property
    def files(self) -> Files:
        """The box's files: read, write, list, copy there and back, watch."""
        return Files(self)

    def _watch_denials(self) -> DenialWatch:
        """Raises as `exec` with `denials`."""
        raise NotImplementedError
