"""The result of a command, as users get it (schema `immure.result/v1`)."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, structs

from immure.engine.session import Measured
from immure.errors import ExecFailed, ImmureError
from immure.plan.launch import Launch
from immure.plan.report import Clause

ExitKind = Literal["exited", "signaled", "timeout", "oom", "output", "refused"]


class Output(bytes):
    """What a command wrote: bytes, since nobody promised that it is text."""

    def text(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """The bytes as text. Nothing in it is escaped: a box may write what confuses a terminal."""
        return self.decode(encoding, errors)


class Exit(Struct, frozen=True, gc=False):
    """How a command ended. `code` is None unless it exited, `signal` unless one ended it."""

    kind: ExitKind
    code: int | None
    signal: int | None


class Levels(Struct, frozen=True, gc=False):
    """The level asked for, and the one awarded from what was measured."""

    asked: str
    awarded: str


class Usage(Struct, frozen=True, gc=False):
    """What a command used. None where this host can't say."""

    wall_ms: int
    cpu_ms: int
    memory_peak_bytes: int
    pids_peak: int | None
    stdout_bytes: int
    stderr_bytes: int


class BoxStats(Struct, frozen=True):
    """What a box uses now, as the host sees it. Its own first process is not counted, but its CPU time is.

    A kernel of the box's own does not show its processes: then `processes` and `threads` are None.
    `cpu_ms` is of all that ran in the box, ended or not; `resident_bytes` counts a page as often as it is mapped.
    """

    processes: int | None
    threads: int | None
    cpu_ms: int
    resident_bytes: int


class Truncated(Struct, frozen=True, gc=False):
    """Whether a stream is shorter than what the command wrote."""

    stdout: bool
    stderr: bool


class Denial(Struct, frozen=True):
    """Something that a protection refused, and how often.

    `code` is `IMM-FS-…`, `IMM-NET-…` or `IMM-SYS-…` with the call's name, `layer` what refused it (`sentry`), `target`
    the path or address as the command said it, empty where that is not told, `rule` the error and what it came of, and
    `fix` the smallest change of a spec that lets it through. What a command says is its own: nothing in it is escaped.
    """

    code: str
    layer: str
    call: str
    target: str
    rule: str
    count: int
    fix: str


class Result(Struct, frozen=True):
    """What became of one command in a box (schema `immure.result/v1`)."""

    id: str
    name: str
    runtime: str
    argv: tuple[str, ...]
    exit: Exit
    level: Levels
    report: tuple[Clause, ...]
    denials: tuple[Denial, ...]
    denials_complete: bool
    usage: Usage
    truncated: Truncated
    times_us: dict[str, int]
    plan_sha256: str
    host_sha256: str
    stdout: Output
    stderr: Output

    @property
    def ok(self) -> bool:
        """Whether the command exited with status 0."""
        return self.exit.kind == "exited" and self.exit.code == 0

    def to_dict(self) -> dict[str, Any]:
        """The fields of the JSON document `immure.result/v1`, without the streams, for `msgspec.json.encode`."""
        fields: dict[str, Any] = {"schema": "immure.result/v1"}
        for name in self.__struct_fields__:
            if name not in ("stdout", "stderr"):
                fields[name] = getattr(self, name)
        fields["argv"] = [as_text(one) for one in self.argv]
        fields["error"] = None
        return fields


def with_denials(result: Result, denials: tuple[Denial, ...]) -> Result:
    """The same, with what was seen to be refused."""
    return structs.replace(result, denials=denials)


def as_text(argument: str) -> str:
    """An argument that may hold bytes that are no text, as JSON can carry it."""
    return argument.encode(errors="surrogateescape").decode(errors="backslashreplace")


def refusal(
    error: ImmureError | None,
    launch: Launch | None,
    measured: Measured | None,
    *,
    name: str,
    box: str,
    argv: list[str],
) -> dict[str, Any]:
    """The JSON document of a command that never ran."""
    return {
        "schema": "immure.result/v1",
        "id": box,
        "name": as_text(name),
        "runtime": launch.runtime if launch is not None else None,
        "argv": [as_text(one) for one in argv],
        "exit": Exit("refused", error.exit_status if isinstance(error, ExecFailed) else None, None),
        "level": {
            "asked": launch.level if launch is not None else None,
            "awarded": measured.awarded if measured is not None else None,
        },
        "report": [Clause(*row) for row in launch.report] if launch is not None else [],  # pyright: ignore[reportArgumentType]
        "denials": [],
        "denials_complete": False,
        "usage": None,
        "truncated": {"stdout": False, "stderr": False},
        "times_us": {},
        "plan_sha256": launch.plan_sha256 if launch is not None else None,
        "host_sha256": launch.host_sha256 if launch is not None else None,
        "error": {key: as_text(text) if text else text for key, text in error.to_dict().items()} if error else None,
    }
