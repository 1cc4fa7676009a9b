"""The reference of everything public: signatures, fields and docstrings, as the code has them.

What is public is what `immure` hands out, and what one gets from that: a class that is reached by an annotation and has
no place in GROUPS is an error, as is a field without a word.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

import msgspec

import immure
import immure.errors
from immure.engine import command, files
from immure.runtimes.gvisor.trace import wire
from immure.spec import models

GROUPS: dict[str, tuple[str, ...]] = {
    "Boxes": (
        "run", "Sandbox", "AsyncSandbox", "KeptSandbox", "AsyncKeptSandbox", "KeptInfo", "KeptCommand", "Pool",
        "PooledSandbox", "AsyncPool", "AsyncPooledSandbox", "Snapshot", "BoxStats", "PoolStats", "Migration",
    ),
    "Commands under way": ("Process", "AsyncProcess", "AsyncStream", "AsyncInput", "PIPE"),
    "Results": ("Result", "Output", "Exit", "Levels", "Usage", "Truncated", "Clause", "Denial"),
    "Files": ("Files", "AsyncFiles", "FileInfo", "FileEvent", "Watch", "AsyncWatch"),
    "Logs": ("Logs", "LogEntry", "Log"),
    "Traces": ("Trace", "AsyncTrace", "TraceEvent", "TraceProcess", "TraceCredentials", "TraceCounts"),
    "Evidence": ("Evidence", "HostReadback", "Part"),
    "The spec": ("SandboxSpec", "Level"),
    "Errors": (
        "ImmureError", "SpecError", "ProfileError", "ProtectionUnavailable", "RuntimeUnavailable", "LevelNotReached",
        "BoxError", "SetupFailed", "ExecFailed", "FileError", "WrongState", "VmmRefused", "BoxLost", "ChannelError",
    ),
}  # fmt: skip

#: Made by whoever uses the package. The others come from these.
MADE = ("Sandbox", "AsyncSandbox", "Pool", "AsyncPool")

#: What the parts of the package say to each other, of no use to others.
INNER = {
    "BoxFace": {"request", "carry_out", "open_streams", "is_bounded", "begin", "ask", "result"},
    "KeptFace": {"open_trace"},
    "Pool": {"claim_ready", "retire"},
    "PooledSandbox": {"end", "alive", "warm"},
    "ProcessFace": {"note"},
    "Files": {"abandon"},
    "Watch": {"abandon"},
    "Log": {"begin", "add"},
    "Snapshot": {"launch", "base", "standing"},
    "Origin": {"launch", "base", "standing"},
    "Trace": {"take_or_call", "call_no_more"},
}

#: Nobody reads one from a document: what its fields hold is whatever there is.
UNREAD = {"TraceEvent", "TraceProcess"}

ALIASES = {"Argument": command.Argument, "StrPath": files.StrPath, "Content": files.Content, "Value": wire.Value}

_BOX = {
    "id": "Twelve hex digits, new for each box.",
    "name": "The box's name, and its host name.",
    "log": "The record that `logs` reads, for who follows it.",
}
_KEPT = {
    **_BOX,
    "log": "Of no use here: `logs` asks the keeper.",
}
WORDS: dict[str, dict[str, str]] = {
    "Sandbox": _BOX,
    "AsyncSandbox": _BOX,
    "KeptSandbox": _KEPT,
    "AsyncKeptSandbox": _KEPT,
    "KeptInfo": {
        "name": "Its name.",
        "id": "Twelve hex digits.",
        "level": "The level that was measured.",
        "state": "As `Sandbox.state`.",
        "created_s": "When it was made, in seconds since 1970.",
        "processes": "Processes of the box that have not ended; null where a kernel of its own has them.",
        "command": "The newest command that nobody waits for; null where there was none.",
    },
    "KeptCommand": {
        "number": "Its number in the box's log, from 1 on.",
        "argv": "The command.",
        "state": "`running`, how it ended, or `lost`.",
        "code": "Its exit status, where it exited.",
        "signal": "The signal that ended it, where one did.",
    },
    "Pool": {"size": "How many boxes wait at most."},
    "Snapshot": {"path": "The folder that it is in."},
    "Migration": {"downtime_s": "For how long the machine stood still.", "total_s": "How long it all took."},
    "BoxStats": {
        "processes": "Processes of the box that have not ended, its own first ones left out.",
        "threads": "Their threads.",
        "cpu_ms": "Milliseconds of user and system time of all that ran in the box, ended or not.",
        "resident_bytes": "Bytes of memory that are mapped now; a page counts as often as it is mapped.",
    },
    "PoolStats": {
        "ready": "Boxes that wait to be claimed.",
        "made": "Boxes that were made.",
        "claimed": "Boxes that were claimed.",
        "missed": "Of these, those that had to be made when they were claimed.",
        "dead": "Boxes that were found dead while they waited, and were not handed out.",
    },
    "Result": {
        "stdout": "Standard output; all that was shown, with a terminal. Empty where somebody else read it.",
        "stderr": "Standard error, likewise.",
    },
    "FileInfo": {
        "name": "Its name, without the folder.",
        "kind": "What it is; `other` is a FIFO, a socket or a device.",
        "size_bytes": "Its size in bytes.",
        "mode": "The permission bits.",
        "uid": "The owner, as the box numbers users.",
        "gid": "The group, as the box numbers groups.",
        "modified_ns": "When its content changed last, in nanoseconds since 1970.",
        "target": "Where a link leads, as it was written; null for all else.",
    },
    "FileEvent": {
        "path": "What changed, relative to the folder that is watched.",
        "change": "What happened. `overflow`: some changes are missing; look for yourself. `gone`: the folder is.",
        "folder": "Whether it is a folder.",
    },
    "Logs": {
        "entries": "Oldest first.",
        "dropped_bytes": "Bytes of data that are missing before them, whichever commands they were of.",
    },
    "TraceEvent": {
        "point": "The trace point.",
        "time_ns": "When, in nanoseconds since 1970; 0 where that was not asked for.",
        "process": "Who.",
        "fields": "What the point says, by gVisor's names.",
        "result": "What a system call gave.",
        "denied": "The errno that it failed with.",
    },
    "TraceProcess": {
        "thread_id": "The thread.",
        "thread_start_time_ns": "When it started.",
        "group_id": "The process.",
        "group_start_time_ns": "When that started.",
        "container_id": "gVisor's name of the container.",
        "credentials": "Whose it is.",
        "cwd": "Its working directory.",
        "name": "Its name: that of its program, until it chooses another.",
        "parent_group_id": "Its parent; not known to gVisor of 2024.",
        "is_exec_session": "Whether `runsc exec` started it; none of ours is.",
    },
    "TraceCredentials": {
        "real_uid": "User.",
        "effective_uid": "User whose rights count.",
        "saved_uid": "User that it may become again.",
        "real_gid": "Group.",
        "effective_gid": "Group whose rights count.",
        "saved_gid": "Group that it may become again.",
    },
    "TraceCounts": {
        "events": "Events that were kept, read or not.",
        "dropped": "Events that were not.",
        "malformed": "Of those that were read: no events.",
        "unknown": "Of those that were read: of kinds that this version does not know.",
        "connections": "Sentries that connected.",
        "refused": "Connections that were none, or too many.",
    },
    "LogEntry": {
        "position": "Bytes of data that the log has taken up to this entry, and with it.",
        "time_s": "When it came, in seconds since 1970.",
        "command": "The number of the command in its box, from 1 on.",
        "stream": "What it is.",
        "data": "Arguments, output or end.",
    },
}  # fmt: skip

Words = Mapping[type, Mapping[str, str]]
TypeText = Callable[[msgspec.inspect.Type], str]


def page(words: Words, type_text: TypeText) -> str:
    """The reference. `words` are those of the documents by their model, and `type_text` names a field's type."""
    return _Reference(words, type_text).page()


class _Reference:
    def __init__(self, words: Words, type_text: TypeText) -> None:
        self._type_text = type_text
        self._objects = _public()
        self._words = {name: dict(found) for name, found in WORDS.items()}
        for model, found in words.items():
            for path, text in found.items():
                owner, field = _owner(model, path.replace("[]", "").split("."))
                if self._objects.get(owner.__name__) is owner:
                    self._words.setdefault(owner.__name__, {})[field] = text

    def page(self) -> str:
        parts: list[str] = []
        for group, names in GROUPS.items():
            parts.append(f"## {group}")
            if group == "Errors":
                parts.append(f"```text\n{_error_tree()}\n```")
            for name in names:
                parts += [f"### {name}", *self._object(name, self._objects[name])]
        parts += ["## Types", _aliases()]
        return "\n\n".join(parts)

    def _object(self, name: str, value: Any) -> Iterator[str]:
        if isinstance(value, FunctionType):
            yield from _callable(name, value)
        elif not isinstance(value, type):
            yield f"`immure.{name}`: standard input that is written while the command runs, as `subprocess.PIPE`."
        else:
            yield from self._class(name, value)

    def _class(self, name: str, value: type) -> Iterator[str]:
        bases = [one.__name__ for one in value.__mro__[1:] if one.__name__ in self._objects]
        if bases:
            yield f"All that [`{bases[0]}`](#{bases[0].lower()}) is and has, and this."
        if name in MADE:
            yield f"```text\n{_signature(name, value.__init__)}\n```"
        yield _prose(value)
        if issubclass(value, immure.ImmureError):
            yield _error_members(value)
        elif issubclass(value, models.Level):
            yield ", ".join(f"`Level.{one.name}`" for one in value)
        elif rows := [*self._rows(name, value)]:
            yield "\n".join(["| field | type | meaning |", "| --- | --- | --- |", *rows])
        for member, found in _members(value, self._objects):
            yield from _callable(member, found)

    def _rows(self, name: str, value: type) -> Iterator[str]:
        words = dict(self._words.get(name, {}))
        if issubclass(value, msgspec.Struct) and name not in UNREAD:
            info = msgspec.inspect.type_info(value)
            assert isinstance(info, msgspec.inspect.StructType)
            for field in info.fields:
                kind, word = self._field(field.type)
                meaning = words.pop(field.name, None) or word or _missing(name, field.name)
                yield f"| `{field.name}` | {kind} | {meaning} |"
        else:
            for one, kind in _annotated(value, self._objects):
                shown = kind.replace("|", "\\|")
                yield f"| `{one}` | `{shown}` | {words.pop(one, None) or _missing(name, one)} |"
        if words:
            raise RuntimeError(f"{name}: no such fields: {sorted(words)}")

    def _field(self, kind: msgspec.inspect.Type) -> tuple[str, str | None]:
        """How a field's type is shown, and a word for one that is a struct."""
        match kind:
            case msgspec.inspect.StructType(cls=struct):
                return self._struct(struct), _first_line(struct)
            case msgspec.inspect.UnionType(types=(msgspec.inspect.StructType(cls=struct), msgspec.inspect.NoneType())):
                return f"{self._struct(struct)} or null", _first_line(struct)
            case msgspec.inspect.VarTupleType(item_type=item):
                shown, word = self._field(item)
                return f"tuple of {shown}", word
            case _:
                return self._type_text(kind), None

    def _struct(self, struct: type) -> str:
        if struct.__module__ == models.__name__:
            return f"[`{struct.__name__}`](spec.md#fields)"
        return f"[`{struct.__name__}`](#{struct.__name__.lower()})"


def _public() -> dict[str, Any]:
    """Everything that is public, by its name. Raises RuntimeError where that is not what GROUPS has."""
    found: dict[str, Any] = {}
    left = [getattr(immure, name) for name in immure.__all__]
    named = dict(zip(immure.__all__, left, strict=True))
    while left:
        value = left.pop()
        name = next((one for one, known in named.items() if known is value), getattr(value, "__name__", ""))
        if name in found:
            continue
        found[name] = value
        left += [one for one in _reached(value) if one.__module__ != models.__name__ or one.__name__ in named]
    wanted = {name for names in GROUPS.values() for name in names}
    if found.keys() != wanted:
        raise RuntimeError(f"the reference's groups: {sorted(found.keys() ^ wanted)} are missing, or not public")
    return found


def _reached(value: Any) -> Iterator[type]:
    """Classes of ours in the annotations of a public object."""
    if isinstance(value, FunctionType):
        yield from _ours(typing.get_type_hints(value))
        return
    if not isinstance(value, type):
        return
    hints = typing.get_type_hints(value)
    yield from _ours({name: kind for name, kind in hints.items() if not name.startswith("_")})
    steps = [(name, vars(value)[name]) for name in ("__next__", "__anext__") if name in vars(value)]
    for _, found in (*_members(value, {}), *steps):
        yield from _ours(typing.get_type_hints(found.fget if isinstance(found, property) else found))


def _ours(hints: Mapping[str, Any]) -> Iterator[type]:
    for hint in hints.values():
        for one in (hint, *_inside(hint)):
            if isinstance(one, type) and one.__module__.startswith("immure."):
                yield one


def _inside(hint: Any) -> Iterator[Any]:
    for one in typing.get_args(hint):
        yield one
        yield from _inside(one)


def _owners(value: type, listed: Mapping[str, Any]) -> Iterator[type]:
    """A class of ours and its bases, up to one that is listed itself."""
    for owner in value.__mro__:
        if not owner.__module__.startswith("immure.") or (owner is not value and owner.__name__ in listed):
            return
        yield owner


def _members(value: type, listed: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Public methods and properties, its own first."""
    seen: set[str] = set()
    for owner in _owners(value, listed):
        seen |= INNER.get(owner.__name__, set())
        for name, member in vars(owner).items():
            if (
                not name.startswith("_")
                and name not in seen
                and isinstance(member, FunctionType | property | classmethod)
            ):
                seen.add(name)
                yield name, getattr(owner, name) if isinstance(member, classmethod) else member


def _annotated(value: type, listed: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for owner in _owners(value, listed):
        for name, kind in inspect.get_annotations(owner).items():
            if not name.startswith("_"):
                yield name, kind


def _callable(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, property):
        yield f"```text\n{name} -> {inspect.get_annotations(value.fget)['return']}\n```"
    else:
        start = "await " if inspect.iscoroutinefunction(value) else ""
        yield f"```text\n{start}{_signature(name, value)}\n```"
    yield _prose(value)


def _signature(name: str, function: Callable[..., Any]) -> str:
    found = inspect.signature(function)
    shown: list[str] = []
    for one in found.parameters.values():
        if one.name == "self":
            continue
        if one.kind is one.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        stars = "**" if one.kind is one.VAR_KEYWORD else ""
        kind = "" if stars else f": {one.annotation}"
        shown.append(f"{stars}{one.name}{kind}{_default(one)}")
    back = "" if found.return_annotation in (found.empty, "None") else f" -> {found.return_annotation}"
    line = f"{name}({', '.join(shown)}){back}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," if one != "*" else "    *," for one in shown), f"){back}"])


def _default(one: inspect.Parameter) -> str:
    if one.default is one.empty:
        return ""
    return f" = {one.default:#o}" if one.name == "mode" else f" = {one.default!r}".replace("'", '"')


def _error_members(value: type[immure.ImmureError]) -> str:
    names = [one for one in inspect.signature(value.__init__).parameters if one != "self"]
    return f"`code` is `{value.code}`. Attributes: {', '.join(f'`{one}`' for one in names)}."


def _error_tree() -> str:
    lines = inspect.cleandoc(immure.errors.__doc__ or "").splitlines()
    tree = [line.strip() if line.strip() == "ImmureError" else line[4:] for line in lines if line.startswith("    ")]
    return "\n".join(tree)


def _aliases() -> str:
    shown = {name: str(kind).replace("typing.", "").replace("|", "\\|") for name, kind in ALIASES.items()}
    rows = [f"| `{name}` | `{kind}` |" for name, kind in shown.items()]
    return "\n".join(["| name | what it stands for |", "| --- | --- |", *rows])


def _owner(model: type, path: list[str]) -> tuple[type, str]:
    """The struct that a path of a document ends in, and its field there."""
    for step in path[:-1]:
        info = msgspec.inspect.type_info(model)
        assert isinstance(info, msgspec.inspect.StructType)
        (field,) = [one for one in info.fields if one.encode_name == step]
        inner = field.type.item_type if isinstance(field.type, msgspec.inspect.VarTupleType) else field.type
        assert isinstance(inner, msgspec.inspect.StructType)
        model = inner.cls
    return model, path[-1]


def _prose(value: Any) -> str:
    text = inspect.getdoc(value)
    if not text:
        raise RuntimeError(f"{value}: no docstring")
    return text


def _first_line(value: type) -> str:
    return _prose(value).split("\n\n")[0].replace("\n", " ")


def _missing(name: str, field: str) -> str:
    raise RuntimeError(f"{name}.{field} needs a word")
