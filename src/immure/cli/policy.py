"""`immure policy`: what system call filters mean, how they differ, and what is odd about them."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from immure.cli.execute import printable
from immure.cli.policy_call import ask, host_of
from immure.cli.policy_text import (
    changed_document,
    changed_lines,
    comparison_lines,
    difference_document,
    finding_lines,
)
from immure.errors import ProfileError, SpecError
from immure.policy.seccomp import (
    ABIS,
    PRESETS,
    Filter,
    Finding,
    Presets,
    Profile,
    changed_calls,
    check_profile,
    compare,
    compile_filter,
    constant_allow,
    disassemble,
    lint_profile,
    load_preset,
    merge,
    minimise,
    numbers,
    preset_text,
    read_trace,
)
from immure.policy.seccomp.abi import FAMILIES, find_abi
from immure.policy.seccomp.formats import read_named, to_oci, to_systemd

FOUND = 1
LOOSER, INCOMPARABLE = 1, 3


def policy(options: Namespace) -> int:
    """Carries one of the verbs out and gives the exit status. Raises ImmureError."""
    verb: Callable[[Namespace], int] = _VERBS[options.policy_verb]
    return verb(options)


def _check(options: Namespace) -> int:
    return _told(options, {name: check_profile(_read(options, name)) for name in options.files})


def _lint(options: Namespace) -> int:
    found: dict[str, Sequence[Finding]] = {}
    for name in options.files:
        profile = _read(options, name)
        found[name] = (*check_profile(profile), *lint_profile(profile, arch=options.arch, **host_of(options)))
    return _told(options, found)


def _told(options: Namespace, found: Mapping[str, Sequence[Finding]]) -> int:
    if options.json:
        listed = [{"file": name, **msgspec.to_builtins(one)} for name, several in found.items() for one in several]
        _print_json("immure.findings/v1", findings=listed)
    else:
        _print(line for name, one in found.items() for line in finding_lines(name, one))
    return FOUND if any(found.values()) else 0


def _eval(options: Namespace) -> int:
    asked = ask(_read(options), _text(options.file), options)
    if options.json:
        _print_json("immure.decision/v1", **asked.to_dict())
    else:
        _print(asked.short_lines() if options.policy_verb == "eval" else asked.lines(options.file))
    return asked.status


def _compile(options: Namespace) -> int:
    program = compile_filter(_read(options), arch=options.arch, **host_of(options))
    if options.output is not None:
        _write(options.output, program.to_bytes())
    if options.json:
        _print_json("immure.filter/v1", **_measures(program))
    elif options.disassemble:
        sys.stdout.write(disassemble(program.instructions, big_endian=program.big_endian))
    elif options.output is None:
        if sys.stdout.isatty():
            raise SpecError("a program is no text", path="--output", need="a file, --disassemble or --json")
        sys.stdout.buffer.write(program.to_bytes())
    return 0


def _measures(program: Filter) -> dict[str, Any]:
    abi = ABIS[program.arch]
    cacheable = sum(constant_allow(program.instructions, number, abi.audit) for number in numbers(abi).values())
    return {
        "arch": program.arch,
        "sha256": program.sha256,
        "flags": program.flags,
        "instructions": [list(one) for one in program.instructions],
        "count": len(program.instructions),
        "max_steps": program.max_steps,
        "mean_steps": round(program.mean_steps, 2),
        "cacheable": cacheable,
    }


def _compare(options: Namespace) -> int:
    arches = (find_abi(options.only_arch).name,) if options.only_arch else tuple(FAMILIES)
    old, new = _read(options), _read(options, options.other)
    if options.trace is not None:
        return _replay(options, old, new)
    comparison = compare(old, new, arches=arches, **host_of(options))
    if options.json:
        shown = [difference_document(one) for one in comparison.differences]
        _print_json("immure.comparison/v1", relation=comparison.relation, differences=shown)
    else:
        _print(comparison_lines(options.file, options.other, comparison))
    return {"equal": 0, "stricter": 0, "looser": LOOSER, "incomparable": INCOMPARABLE}[comparison.relation]


def _replay(options: Namespace, old: Profile, new: Profile) -> int:
    """What the second profile would change for the calls of a trace."""
    try:
        with Path(options.trace).open("rb") as file:
            arch, calls = read_trace(file, name=options.trace)
            changed = changed_calls(old, new, calls, arch=arch, **host_of(options))
    except OSError as error:
        raise ProfileError(f"can't be read: {error.strerror}", path=options.trace, need="a trace") from error
    if options.json:
        _print_json("immure.replay/v1", changed=[changed_document(one) for one in changed])
    else:
        _print(changed_lines(changed))
    return FOUND if changed else 0


def _minimise(options: Namespace) -> int:
    return _put(options, to_oci(minimise(_read(options))))


def _merge(options: Namespace) -> int:
    return _put(options, to_oci(minimise(merge([_read(options, name) for name in options.files]))))


def _convert(options: Namespace) -> int:
    profile = _read(options)
    if options.to == "oci":
        return _put(options, to_oci(profile))
    unit = to_systemd(profile, arch=options.arch, best_effort=options.best_effort, **host_of(options))
    for line in finding_lines(options.file, unit.findings) if unit.findings else ():
        sys.stderr.write(printable(line) + "\n")
    return _put(options, unit.text.encode())


def _put(options: Namespace, content: bytes) -> int:
    if options.output is not None:
        _write(options.output, content)
    else:
        sys.stdout.write(content.decode())
    return 0


def _read(options: Namespace, name: str | None = None) -> Profile:
    bases: Mapping[str, Profile] = Presets()
    for word in options.base:
        base, equals, path = word.partition("=")
        if not equals:
            raise SpecError("a base needs a name", path="--base", need="NAME=FILE", have=repr(word))
        bases = {**bases, base: _parse(path, bases)}
    return _parse(options.file if name is None else name, bases)


def _parse(name: str, bases: Mapping[str, Profile]) -> Profile:
    if name in PRESETS:
        return load_preset(name)
    return read_named(_text(name), name=name, bases=bases)


def _text(name: str) -> bytes:
    """A preset by its name, `-` for standard input, else a file."""
    if name in PRESETS:
        return preset_text(name)
    try:
        return _standard_input() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ProfileError(
            f"can't be read: {error.strerror}", path=name, need=f"a file, - or one of {', '.join(PRESETS)}"
        ) from error


@cache
def _standard_input() -> bytes:
    """All of it. It can be read once, and is asked for by the parser and for the lines of rules."""
    return sys.stdin.buffer.read()


def _write(name: str, content: bytes) -> None:
    try:
        Path(name).write_bytes(content)
    except OSError as error:
        raise SpecError(f"can't be written: {error.strerror}", path=name, need="a file that can be written") from error


def _print(lines: Any) -> None:
    sys.stdout.write("".join(printable(line) + "\n" for line in lines))


def _print_json(schema: str, **fields: Any) -> None:
    document = {"schema": schema, **fields, "error": None}
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


_VERBS: dict[str, Callable[[Namespace], int]] = {
    "check": _check,
    "compare": _compare,
    "compile": _compile,
    "convert": _convert,
    "eval": _eval,
    "explain": _eval,
    "lint": _lint,
    "merge": _merge,
    "minimise": _minimise,
}
