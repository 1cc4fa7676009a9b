"""`immure policy`: what system call filters mean, how they differ, and what is odd about them."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from immure.cli.execute import printable
from immure.cli.policy_text import comparison_lines, finding_lines
from immure.errors import ProfileError, SpecError
from immure.policy.seccomp import (
    ABIS,
    PRESETS,
    Call,
    Filter,
    Finding,
    Profile,
    check_profile,
    compare,
    compile_filter,
    constant_allow,
    disassemble,
    evaluate,
    lint_profile,
    load_preset,
    minimise,
    numbers,
    parse_profile,
    preset_text,
    rule_lines,
)
from immure.policy.seccomp.abi import FAMILIES, family, find_abi
from immure.policy.seccomp.profile import parse_kernel

FOUND = 1


def policy(options: Namespace) -> int:
    """Carries one of the verbs out and gives the exit status. Raises ImmureError."""
    verb: Callable[[Namespace], int] = _VERBS[options.policy_verb]
    return verb(options)


def _check(options: Namespace) -> int:
    return _told(options, {name: check_profile(_read(name)) for name in options.files})


def _lint(options: Namespace) -> int:
    found: dict[str, Sequence[Finding]] = {}
    for name in options.files:
        profile = _read(name)
        found[name] = (*check_profile(profile), *lint_profile(profile, arch=options.arch, **_host(options)))
    return _told(options, found)


def _told(options: Namespace, found: Mapping[str, Sequence[Finding]]) -> int:
    if options.json:
        _print_json("immure.findings/v1", files={name: msgspec.to_builtins(list(one)) for name, one in found.items()})
    else:
        _print(line for name, one in found.items() for line in finding_lines(name, one))
    return FOUND if any(found.values()) else 0


def _eval(options: Namespace) -> int:
    profile = _read(options.file)
    call = _call(options)
    decision = evaluate(profile, call, arch=options.arch, **_host(options))
    if options.json:
        _print_json("immure.decision/v1", call=msgspec.to_builtins(call), decision=msgspec.to_builtins(decision))
        return 0
    name = f"{decision.action.name}{f' {decision.errno}' if decision.errno is not None else ''}"
    _print([f"{name}  ({decision.reason if decision.rule is None else f'$.syscalls[{decision.rule}]'})"])
    return 0


def _explain(options: Namespace) -> int:
    text = _text(options.file)
    profile = parse_profile(text, source=options.file)
    decision = evaluate(profile, _call(options), arch=options.arch, **_host(options))
    line = rule_lines(text.decode())[decision.rule] if decision.rule is not None else None
    rule = profile.rules[decision.rule] if decision.rule is not None else None
    if options.json:
        _print_json(
            "immure.explanation/v1",
            decision=msgspec.to_builtins(decision),
            line=line,
            rule=msgspec.to_builtins(rule, str_keys=True),
        )
        return 0
    _print(_explanation(options.file, profile, decision.action.name, decision.errno, decision.rule, line))
    if rule is None:
        _print([f"  no rule decides: {decision.reason}"])
        return 0
    for condition in rule.args or ():
        _print([f"  argument {condition.index} {condition.op.value} {condition.value:#x}"])
    return 0


def _explanation(
    name: str, profile: Profile, action: str, errno: int | None, rule: int | None, line: int | None
) -> list[str]:
    lines = [f"{action}{f' {errno}' if errno is not None else ''}"]
    if rule is not None:
        lines.append(f"  by $.syscalls[{rule}], line {line} of {name}")
        comment = profile.rules[rule].comment
        if comment:
            lines.append(f"  {comment}")
    return lines


def _compile(options: Namespace) -> int:
    program = compile_filter(_read(options.file), arch=options.arch, **_host(options))
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
    comparison = compare(_read(options.file), _read(options.other), arches=arches, **_host(options))
    if options.json:
        _print_json("immure.comparison/v1", **msgspec.to_builtins(comparison))
    else:
        _print(comparison_lines(options.file, options.other, comparison))
    return FOUND if comparison.differences else 0


def _minimise(options: Namespace) -> int:
    content = msgspec.json.format(msgspec.json.encode(minimise(_read(options.file))), indent=2) + b"\n"
    if options.output is not None:
        _write(options.output, content)
    else:
        sys.stdout.write(content.decode())
    return 0


def _read(name: str) -> Profile:
    return load_preset(name) if name in PRESETS else parse_profile(_text(name), source=name)


def _text(name: str) -> bytes:
    """A preset by its name, `-` for standard input, else a file."""
    if name in PRESETS:
        return preset_text(name)
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ProfileError(
            f"can't be read: {error.strerror}", path=name, need=f"a file, - or one of {', '.join(PRESETS)}"
        ) from error


def _write(name: str, content: bytes) -> None:
    try:
        Path(name).write_bytes(content)
    except OSError as error:
        raise SpecError(f"can't be written: {error.strerror}", path=name, need="a file that can be written") from error


def _host(options: Namespace) -> dict[str, Any]:
    """`capabilities` and `kernel`, on which `includes` and `excludes` look."""
    names = [one.strip().upper() for one in options.caps.split(",") if one.strip()]
    try:
        kernel = parse_kernel(options.kernel) if options.kernel else _running_kernel()
    except ValueError as error:
        raise SpecError(str(error), path="--kernel", need="a version such as 6.1") from error
    return {
        "capabilities": frozenset(one if one.startswith("CAP_") else f"CAP_{one}" for one in names),
        "kernel": kernel,
    }


def _running_kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)


def _call(options: Namespace) -> Call:
    abi = find_abi(options.abi or options.arch)
    if abi not in family(options.arch):
        raise SpecError(f"a {options.arch} kernel does not serve {abi.name}", path="--abi")
    table = numbers(abi)
    number = table.get(options.call)
    if number is None:
        if not options.call.isdecimal():
            raise SpecError(
                f"{abi.name} has no call {options.call!r}",
                path="CALL",
                need="a name or number",
                hint=_near(options.call, table),
            )
        number = int(options.call)
    return Call(abi.name, number, tuple(_argument(one) for one in options.args))


def _near(word: str, table: Any) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(word, list(table), n=1)
    return f"did you mean {near[0]!r}?" if near else None


def _argument(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = 1 << 65
    if not -(1 << 63) <= value < 1 << 64:
        raise SpecError(
            f"{text!r} is no argument", path="ARG", need="a number of 64 bits, decimal or with 0x, 0o or 0b"
        )
    return value & (1 << 64) - 1


def _print(lines: Any) -> None:
    sys.stdout.write("".join(printable(line) + "\n" for line in lines))


def _print_json(schema: str, **fields: Any) -> None:
    document = {"schema": schema, **fields, "error": None}
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


_VERBS: dict[str, Callable[[Namespace], int]] = {
    "check": _check,
    "compare": _compare,
    "compile": _compile,
    "eval": _eval,
    "explain": _explain,
    "lint": _lint,
    "minimise": _minimise,
}
