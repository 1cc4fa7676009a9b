"""Writes what of docs/ comes from the code: the spec's fields, the command line's options, the result, the reference,
and the description of the daemon's API.

    python tools/generate_docs.py            # write them
    python tools/generate_docs.py --check    # exit 1 where a page shows another table

What a field is for stands here; what there is, its type and its default come from the models. A field without a word
here, or a word here without its field, is an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import reference
from msgspec import inspect
from openapi import openapi

from immure.cli.parser import make_parser
from immure.engine.result import Result
from immure.evidence.models import Evidence
from immure.policy.seccomp import PRESETS
from immure.spec.models import IMAGE_FORM, Document

DOCS = Path(__file__).parent.parent / "docs"

SPEC_WORDS = {
    "apiVersion": "The form of this document.",
    "kind": "What the document holds.",
    "metadata.name": "The box's name, and its host name.",
    "spec.level": "The least level that is accepted; a box measured below it is refused.",
    "spec.runtime": "What makes the box. `auto` takes the usual one of the level.",
    "spec.image": "What the root shows. `host`: `/usr` and its links read-only, and a small generated `/etc`. Or the "
    "path of a folder with a root file system, with a `/` in it, or a `.` or `~` at its start; a relative one starts "
    "at the document's folder.",
    "spec.command": "What `immure run -f` runs where no command follows `--`.",
    "spec.env": "Variables. The environment starts with PATH, HOME and LANG; nothing is inherited.",
    "spec.workdir": "Where commands start. Not written: the first mount's target, else `/tmp`.",
    "spec.syscalls.profile": "A preset's name, the path of an OCI seccomp profile, or the profile itself.",
    "spec.files.mounts[].source": "A folder or file of the host; a relative one starts at the document's folder.",
    "spec.files.mounts[].target": "Where it stands in the box. Not below `/proc` or `/dev`; `/dev/shm` is allowed.",
    "spec.files.mounts[].access": "`ro` or `rw`. `review` is not in this version and is refused.",
    "spec.files.mounts[].tmpfs": "In place of source and target: new memory-backed space here.",
    "spec.files.mounts[].size_mib": "Size of a tmpfs. It counts against `disk_mib`.",
    "spec.files.landlock": "`auto` derives rules from the mounts. `off` caps the level at L1.",
    "spec.network.mode": "`none`: a network of the box's own with `lo` alone. `host` caps the level at L1.",
    "spec.processes.user": "The user and group id in the box.",
    "spec.processes.capabilities.add": "Capabilities, without `CAP_`, in the box's own user namespace.",
    "spec.processes.capabilities.drop": "Dropped: ALL first, then single names last.",
    "spec.processes.namespaces": "`none` makes a box without namespaces, which caps the level at L1.",
    "spec.processes.no_new_privileges": "Always on.",
    "spec.limits.memory_mib": "Memory. Default 1024, best effort.",
    "spec.limits.cpus": "Processors. Default: no limit.",
    "spec.limits.pids": "Processes and threads. Default 512, best effort.",
    "spec.limits.disk_mib": "Private writable space: `/tmp`, `/dev/shm` and every tmpfs together. Default 1024. In a "
    "virtual machine a disk of its own, where it is written.",
    "spec.limits.timeout_s": "Seconds until a command is ended. Default: none.",
    "spec.limits.output_mib": "Standard output and error together. Default 16 where output is captured, else none.",
    "spec.gvisor.platform": "How gVisor gets hold of system calls, where it makes the box.",
    "spec.protections": "For each: whether a host that lacks it refuses the box, or makes it without.",
}

PRESET_WORDS = {
    "default": "Any program that needs no rights over the kernel: the others allow a part of this.",
    "strict": "Pure computation: files that are read or made, memory, threads, time. No sockets, processes or signals.",
    "python": "CPython: subprocess, threads, multiprocessing, asyncio, tempfile; sockets, servers too.",
    "node": "Node.js: as `python`, and V8's protection keys, file watchers.",
    "build": "Compilers, make, git, package builds: as `python`, and owners, fakeroot's queues; AF_UNIX sockets alone.",
    "network-client": "Programs that fetch: TCP, UDP, name look-up, processes, files. No `listen`, no `accept`.",
}

RESULT_WORDS = {
    "id": "Twelve hex digits, new for each box.",
    "name": "The box's name.",
    "runtime": "What made the box.",
    "argv": "The command.",
    "exit.kind": "How it ended. `refused`: there was no box, or the command could not be started.",
    "exit.code": "Its exit status, where it exited.",
    "exit.signal": "The signal that ended it, where one did.",
    "level.asked": "The level asked for.",
    "level.awarded": "The level measured before the first command.",
    "report[].clause": "A clause of the spec.",
    "report[].wanted": "What the spec says, or the default.",
    "report[].got": "How far it is met.",
    "report[].by": "The mechanism.",
    "report[].why": "Why it is not exact, or what an exact one leaves uncovered.",
    "denials[].code": "What was refused: `IMM-FS-…`, `IMM-NET-…`, `IMM-SYS-…`. Without `--denials` there is none.",
    "denials[].layer": "The layer that denied.",
    "denials[].call": "The system call.",
    "denials[].target": "Its object.",
    "denials[].rule": "The rule.",
    "denials[].count": "How often.",
    "denials[].fix": "The smallest change that would allow it.",
    "denials_complete": "Whether `denials` holds all of them. False: nothing tells of all.",
    "usage.wall_ms": "From the command's release to its end.",
    "usage.cpu_ms": "User and system time of the command.",
    "usage.memory_peak_bytes": "The cgroup's peak where there is one, else that of the largest process.",
    "usage.pids_peak": "Null where the kernel doesn't count.",
    "usage.stdout_bytes": "What was counted; 0 where the descriptor was passed on as it is.",
    "usage.stderr_bytes": "Likewise.",
    "truncated.stdout": "Whether output was cut at its limit.",
    "truncated.stderr": "Likewise.",
    "times_us": "Microseconds of each phase: `plan`, `create`, `ready`, `exec`.",
    "plan_sha256": "Hash of the plan that was carried out.",
    "host_sha256": "Hash of the facts of this host that it was compiled for.",
}

EVIDENCE_WORDS = {
    "schema": "The form of this document.",
    "box": "The box's id.",
    "plan_sha256": "Hash of the plan.",
    "host_sha256": "Hash of the host's facts.",
    "taken": "When it was measured.",
    "boundary": "What serves the workload's system calls.",
    "accelerated": "For a VM: whether the processor helps.",
    "hardware": "For a VM: whether the processor is the wall.",
    "mac": "What controls files, such as `landlock/7`; null where nothing was seen to.",
    "host.uid_map": "As the kernel shows it: id inside, id on the host, how many.",
    "host.gid_map": "Likewise.",
    "host.namespaces": "Inode numbers of the witness's namespaces.",
    "host.seccomp_sha256": "Hash of the filters that were read back from the kernel.",
    "host.seccomp_why": "Why there is no such hash.",
    "host.no_new_privs": "As in `/proc/PID/status`.",
    "host.capabilities": "The five sets, as in `/proc/PID/status`.",
    "host.cgroup": "The witness's `/proc/PID/cgroup`.",
    "parts[].part": "One part of the boundary.",
    "parts[].held": "Whether it was seen to hold.",
    "parts[].observed": "What was seen.",
    "parts[].why": "What is missing, where it doesn't hold.",
    "awarded": "The level that the parts come to.",
    "capped_by": "The parts that are missing for the next level.",
}


def main() -> int:
    """Writes the pages, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    stale: list[str] = []
    for page, tables in PAGES.items():
        path = DOCS / page
        text = path.read_text()
        fresh = text
        for name, make in tables.items():
            fresh = _put(fresh, name, make(), page)
        if fresh != text:
            stale.append(page)
            if not options.check:
                path.write_text(fresh)
    for file, make in FILES.items():
        path, fresh = DOCS / file, make()
        if not path.exists() or path.read_text() != fresh:
            stale.append(file)
            if not options.check:
                path.write_text(fresh)
    if options.check and stale:
        print(f"docs: stale: {', '.join(stale)}; run python tools/generate_docs.py", file=sys.stderr)
        return 1
    return 0


def _put(text: str, name: str, table: str, page: str) -> str:
    begin, end = f"<!-- {name}: begin (tools/generate_docs.py) -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise RuntimeError(f"docs/{page} lacks the markers {begin} and {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def _fields(model: type, words: dict[str, str], *, defaults: bool, skip: tuple[str, ...] = ()) -> str:
    """The table of a model. Raises RuntimeError where fields and words differ."""
    found = {path: (kind, default) for path, kind, default in _walk(inspect.type_info(model)) if path not in skip}
    if found.keys() != words.keys():
        raise RuntimeError(f"{model.__name__}: {sorted(found.keys() ^ words.keys())} need a word, or a field")
    head = "| field | type | default | meaning |" if defaults else "| field | type | meaning |"
    lines = [head, "| --- " * (4 if defaults else 3) + "|"]
    for path, (kind, default) in found.items():
        # In a spec, null is the same as not writing the field.
        cells = [f"`{path}`", *([kind.removesuffix(" or null"), default] if defaults else [kind]), words[path]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _presets() -> str:
    """The table of seccomp presets. Raises RuntimeError where presets and words differ."""
    if tuple(PRESET_WORDS) != PRESETS:
        raise RuntimeError(f"presets: {sorted(PRESET_WORDS.keys() ^ set(PRESETS))} need a word, or a preset")
    rows = [f"| `{name}` | {words} |" for name, words in PRESET_WORDS.items()]
    return "\n".join(["| preset | for |", "| --- | --- |", *rows])


def _walk(info: inspect.Type, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Path, type and default of each field, in order, as deep as the models go."""
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        name = f"{path}.{field.encode_name}" if path else field.encode_name
        inner = field.type
        if isinstance(inner, inspect.VarTupleType) and isinstance(inner.item_type, inspect.StructType):
            yield from _walk(inner.item_type, f"{name}[]")
        elif isinstance(inner, inspect.StructType):
            yield from _walk(inner, name)
        else:
            yield name, _type(inner), _default(field)


def _default(field: inspect.Field) -> str:
    value = field.default
    if value is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return "required" if field.required else ""
    if value is None or value in ((), {}, []):
        return ""
    return f"`{msgspec.json.encode(value).decode()}`"


def _type(info: inspect.Type) -> str:
    match info:
        case inspect.LiteralType(values=values):
            return ", ".join(f"`{msgspec.json.encode(value).decode()}`" for value in values)
        case inspect.EnumType(cls=members):
            return ", ".join(f"`{member.value}`" for member in members)
        case inspect.UnionType(types=types):
            return " or ".join(_type(one) for one in types)
        case inspect.NoneType():
            return "null"
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return f"list of {_type(item)}"
        case inspect.DictType(key_type=key, value_type=value):
            return f"map of {_in_map(key)} to {_in_map(value)}"
        case inspect.AnyType():
            return "anything"
        case inspect.StrType(pattern=pattern) if pattern == IMAGE_FORM:
            return '`"host"` or a path'
        case inspect.StrType(pattern=pattern):
            return f"string `{_escaped(pattern)}`" if pattern else "string"
        case inspect.IntType() | inspect.FloatType():
            return _number(info)
        case inspect.BoolType():
            return "bool"
        case inspect.CustomType() | inspect.BytesType():
            return "bytes"
        case _:
            raise RuntimeError(f"no words for {info}")


def _in_map(info: inspect.Type) -> str:
    return f"({_type(info)})" if isinstance(info, inspect.LiteralType) else _type(info)


def _number(info: inspect.IntType | inspect.FloatType) -> str:
    bounds = (("from", info.ge), ("above", info.gt), ("to", info.le), ("below", info.lt))
    words = [f"{word} {bound:,}" for word, bound in bounds if bound is not None]
    return " ".join(["int" if isinstance(info, inspect.IntType) else "number", *words])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _options(verb: str) -> Callable[[], str]:
    def make() -> str:
        command = _subcommands()[verb]
        lines = ["| option | meaning |", "| --- | --- |"]
        for action in command._actions:
            if action.option_strings and action.help is not argparse.SUPPRESS:
                names = ", ".join(action.option_strings)
                value = "" if action.nargs == 0 else f" {action.metavar or '|'.join(map(str, action.choices or ()))}"
                lines.append(f"| `{_escaped(names + value)}` | {_escaped(action.help or '')} |")
        return "\n".join(lines)

    return make


def _subcommands() -> dict[str, Any]:
    found = [one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction)]
    return dict(found[0].choices)


_DOCUMENTS = {Document: SPEC_WORDS, Result: RESULT_WORDS, Evidence: EVIDENCE_WORDS}
PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "spec.md": {"fields": lambda: _fields(Document, SPEC_WORDS, defaults=True), "presets": _presets},
    "cli.md": {
        "run options": _options("run"),
        "trace options": _options("trace"),
        "doctor options": _options("doctor"),
        "result": lambda: _fields(Result, RESULT_WORDS, defaults=False, skip=("stdout", "stderr")),
    },
    "kept.md": {
        "exec options": _options("exec"),
        "logs options": _options("logs"),
        "cp options": _options("cp"),
    },
    "vms.md": {"serve options": _options("serve")},
    "python.md": {"evidence": lambda: _fields(Evidence, EVIDENCE_WORDS, defaults=False)},
    "reference.md": {"reference": lambda: reference.page(_DOCUMENTS, _type)},
}

#: Files that are all the code's.
FILES: dict[str, Callable[[], str]] = {"vms-openapi.json": openapi}

if __name__ == "__main__":
    sys.exit(main())
