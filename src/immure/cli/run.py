"""`immure run` without a cached launch: options to spec, spec to launch."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec

from immure.cli.execute import REFUSED, Outcome, complain, execute_into, printable, say
from immure.cli.fast import Dependencies, remember
from immure.cli.show import open_target, write_dry_run, write_result
from immure.engine import notices
from immure.engine.denial_watch import WatchedOnce
from immure.engine.prepare import plan_of, prepare
from immure.engine.presets import preset_mounts
from immure.errors import ImmureError, SpecError
from immure.plan.launch import MACHINES, Launch
from immure.policy.seccomp import PRESETS
from immure.runtimes.process.request import Request
from immure.spec.keywords import check_name, spec_from_keywords
from immure.spec.loading import load_document
from immure.spec.models import Document, SandboxSpec


def run_command(options: Namespace, typed: list[str], command: list[str]) -> int:
    """Carries it out. `typed` are the options as they were typed, under which the launch is remembered."""
    dependencies = Dependencies()
    notices.listener = lambda text: say(f"immure: {printable(text)}\n")
    target: int | None = None
    name = options.name or "immure"
    try:
        target = open_target(options.result) if options.result else None
        spec, base, name = spec_of(options, dependencies)
        command = command or list(spec.command)
        if not command and (options.detach or not options.keep):
            raise SpecError("there is no command", path="COMMAND", need="one after --, or `command` in the file")
        if options.dry_run:
            write_dry_run(plan_of(spec, base=base, hostname=name))
            return 0
        launch = prepare(spec, base=base, hostname=name)
        watched = _watched(options, launch, command) if options.denials else None
    except ImmureError as error:
        complain(error)
        if target is not None:
            write_result(target, None, error, name, command)
        return REFUSED
    if options.keep or options.detach:
        from immure.cli.exec import run_kept

        return run_kept(options, launch, command, target)
    dependencies.interactive, dependencies.quiet = options.interactive, options.quiet
    if launch.carrier:
        # By what its program was found.
        dependencies.environment += [(name, os.environ.get(name)) for name in ("IMMURE_RUNSC", "PATH")]
    if launch.runtime not in MACHINES and watched is None:
        # What is in a machine's image is looked at anew each time, and who watches has more to do than that path does.
        remember(typed, launch, dependencies)
    outcome = Outcome(Request(launch, [os.fsencode(one) for one in command]))
    if watched is not None:
        outcome.beside = watched.begin
    status = attend(outcome, options)
    if watched is not None:
        outcome.denials = watched.found
        tell_denials(outcome, quiet=options.quiet)
    if target is not None:
        write_result(target, outcome, outcome.error, name, command)
    return status


def _watched(options: Namespace, launch: Launch, command: list[str]) -> WatchedOnce | None:
    watched = WatchedOnce(launch)
    if options.detach or not command:
        raise SpecError(
            "nobody waits for what a command is refused",
            path="--denials",
            need="a command, and no --detach",
            hint="immure trace --denied BOX",
        )
    # A box that is kept has a watch for each of its commands.
    return None if options.keep else watched


def tell_denials(outcome: Outcome, *, quiet: bool) -> None:
    """Says what a command was refused, a line each."""
    for one in () if quiet else outcome.denials:
        times = f", {one.count} times" if one.count > 1 else ""
        what = " ".join(part for part in (one.call, one.target) if part)
        say(f"immure: {printable(f'refused {what} ({one.rule}{times}); to do: {one.fix}')}\n")


def attend(outcome: Outcome, options: Namespace) -> int:
    """Runs a command with this process's streams, or with `-t` a terminal joined to ours, and gives its exit status."""
    interactive, quiet = options.interactive, options.quiet
    if not options.tty:
        return execute_into(outcome, interactive=interactive, quiet=quiet)
    from immure.cli.terminal import give_term, join_terminal, raw_terminal

    give_term(outcome.request)
    with raw_terminal():
        return execute_into(
            outcome,
            interactive=interactive,
            quiet=quiet,
            make_stdio=lambda box: join_terminal(box, interactive=interactive),
        )


def spec_of(options: Namespace, dependencies: Dependencies) -> tuple[SandboxSpec, Path, str]:
    """What the options and the document that they name ask for, where its relative paths start, and the name."""
    document = _document(options.file, dependencies)
    # What a ~ in a path stands for.
    dependencies.environment.append(("HOME", os.environ.get("HOME")))
    base = Path(options.file).absolute().parent if options.file else Path.cwd()
    given = _keywords(options, dependencies)
    spec = document.spec if document is not None else SandboxSpec()
    mounts = _mounts(options)
    if mounts:
        given["mounts"] = [*_absolute(spec, base), *mounts]
    if options.seccomp:
        given["seccomp"] = options.seccomp if options.seccomp in PRESETS else str(Path(options.seccomp).absolute())
    spec = spec_from_keywords(given, spec)
    profile = spec.syscalls.profile
    if isinstance(profile, str) and profile not in PRESETS:
        _read(base / Path(profile).expanduser(), dependencies)
    return spec, base, check_name(options.name or (document.metadata.name if document is not None else "immure"))


def _document(path: str | None, dependencies: Dependencies) -> Document | None:
    if path is None:
        return None
    content = _read(Path(path).absolute(), dependencies)
    if content is None:
        raise SpecError(f"{path} can't be read", path="-f", need="a sandbox document", have=_why(path))
    return load_document(content, name=path)


def _read(path: Path, dependencies: Dependencies) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    dependencies.files.append((str(path), content))
    return content


def _why(path: str) -> str:
    try:
        Path(path).read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    return "unknown"


def _absolute(spec: SandboxSpec, base: Path) -> list[Any]:
    """The document's mounts with sources that no longer depend on where it lies."""
    mounts: list[Any] = []
    for mount in spec.files.mounts:
        if mount.source is not None:
            mount = msgspec.structs.replace(mount, source=str(base / Path(mount.source).expanduser()))
        mounts.append(mount)
    return mounts


def _keywords(options: Namespace, dependencies: Dependencies) -> dict[str, Any]:
    given: dict[str, Any] = {
        "level": options.level,
        "runtime": options.runtime,
        "image": _image(options.image),
        "workdir": options.workdir,
        "user": options.user,
        "network": options.net,
        "memory_mib": options.memory,
        "cpus": options.cpus,
        "pids": options.pids,
        "disk_mib": options.disk,
        "timeout_s": options.timeout,
        "output_mib": options.max_output,
    }
    if options.env:
        given["env"] = environment_of(options.env, dependencies)
    if options.best_effort:
        given["protections"] = dict.fromkeys(options.best_effort, "best_effort")
    return given


def _image(written: str | None) -> str | None:
    """A path starts where the command was typed, wherever the document lies. What is none is told by the models."""
    if written is None or ("/" not in written and not written.startswith(".")):
        return written
    return written if written.startswith("~") else str(Path(written).absolute())


def environment_of(wanted: list[str], dependencies: Dependencies) -> dict[str, str]:
    """The variables that `-e` names. Raises SpecError for one that is not set here."""
    found: dict[str, str] = {}
    for item in wanted:
        name, equals, value = item.partition("=")
        if not name:
            raise SpecError("a variable needs a name", path="-e", need="K=V or K", have=repr(item))
        if equals:
            found[name] = value
            continue
        own = os.environ.get(name)
        dependencies.environment.append((name, own))
        if own is None:
            raise SpecError(f"{name} is not set here", path="-e", need=f"{name}=VALUE, or a variable that is set")
        found[name] = own
    return found


def _mounts(options: Namespace) -> list[Any]:
    mounts: list[Any] = list(preset_mounts(options.preset)) if options.preset else []
    for item in options.mount:
        mounts.append(_mount(item))
    for item in options.tmpfs:
        target, _, size = item.partition(":")
        if size and not (size.isascii() and size.isdigit()):
            raise SpecError("a size is a whole number of MiB", path="--tmpfs", need="DST[:MiB]", have=repr(item))
        mounts.append({"tmpfs": target, **({"size_mib": int(size)} if size else {})})
    return mounts


def _mount(item: str) -> tuple[str, str, str]:
    parts = item.split(":")
    access = parts.pop() if len(parts) == 3 else "ro"
    if len(parts) != 2 or not all(parts):
        raise SpecError("a mount has a source and a target", path="-v", need="SRC:DST[:ro|rw]", have=repr(item))
    return str(Path(parts[0]).absolute()), parts[1], access
