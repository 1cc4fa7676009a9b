"""What a box that stays shows of itself, whether its caller blocks or awaits."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from immure.engine.command import Argument, make_request, make_result, prepare_call
from immure.engine.result import Levels, Result
from immure.errors import BoxLost, SpecError
from immure.evidence.models import Evidence, make_evidence
from immure.runtimes.process.attend import Attendance
from immure.runtimes.process.box import Box
from immure.runtimes.process.cgroups import oom_kills
from immure.runtimes.process.request import Request
from immure.runtimes.process.session import Measured
from immure.spec.keywords import check_environment
from immure.spec.models import SandboxSpec

#: The kernel's (uid_t) -1.
_NO_USER = 0xFFFF_FFFF


class BoxFace:
    """A box that stays, from its spec on. `Sandbox` and `AsyncSandbox` add what waits."""

    _box: Box
    _measured: Measured

    def __init__(
        self,
        spec: SandboxSpec | None = None,
        *,
        preset: str | None = None,
        name: str = "immure",
        **keywords: Any,
    ) -> None:
        self.id = secrets.token_hex(6)
        self.name = name
        self._owner = os.getpid()
        self._launch = prepare_call(spec, preset, keywords, name)
        self._oom_kills = 0

    def evidence(self) -> Evidence:
        """What was measured of the box before its first command."""
        return make_evidence(self.id, self._launch, self._measured.items, self._measured.findings)

    @property
    def level(self) -> Levels:
        """The level asked for and the one awarded."""
        return Levels(asked=self._launch.level, awarded=self._measured.awarded)

    def _request(
        self,
        argv: Sequence[Argument],
        env: Mapping[str, str] | None,
        workdir: str | None,
        user: int | None,
        timeout_s: float | None,
        output_mib: float | None,
    ) -> Request:
        """A command of this box. Raises SpecError for bad input, and BoxLost where the box can't be used."""
        self._check_usable()
        request = make_request(self._launch, argv)
        if env:
            own = check_environment(env).items()
            request.env.update((os.fsencode(key), os.fsencode(value)) for key, value in own)
        request.workdir = workdir if workdir is not None else request.workdir
        if user is not None:
            if not isinstance(user, int) or not 0 <= user < _NO_USER:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise SpecError("no such user id", path="user", need=f"0 to {_NO_USER - 1}", have=str(user))
            request.uid = request.gid = user
        request.timeout_s = timeout_s if timeout_s is not None else request.timeout_s
        if output_mib is not None:
            request.output_bytes = int(output_mib * (1 << 20))
        return request

    def _result(self, request: Request, attendance: Attendance, exec_us: int) -> Result:
        oom = self._new_oom_kills()
        return make_result(request, attendance, None, self._measured, {"exec": exec_us}, self.name, self.id, oom=oom)

    def _new_oom_kills(self) -> int:
        """Kills since the last look. Of two commands at once either may be told of the other's."""
        seen = oom_kills(self._launch, self._measured.items.get("cgroup.name"))
        new, self._oom_kills = seen - self._oom_kills, seen
        return new

    def _check_usable(self) -> None:
        if self._owner != os.getpid():
            raise BoxLost(
                "this box belongs to another process",
                need=f"process {self._owner}, which made it",
                have=f"process {os.getpid()}, forked from it",
                hint="make a Sandbox after the fork",
            )
        if self._box.owner.fileno() < 0:
            raise BoxLost("the box is closed", need="a box in use", hint="make a new Sandbox")

    def __repr__(self) -> str:
        awarded = self._measured.awarded if hasattr(self, "_measured") else "not made"
        return f"<{type(self).__name__} {self.name} {self.id} {awarded}>"
