"""The command line's grammar (DESIGN, public surface)."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, NoReturn

from immure.cli.execute import printable
from immure.policy.seccomp import MAX_VALUES, PRESETS
from immure.spec.models import PROTECTIONS

#: A usage error of `run` is 125, since 2 may be the command's own status.
RUN_USAGE, USAGE = 125, 2
_DENIALS = "at L3: say what gVisor's kernel refuses the command"


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations of long options, and with one form of message."""

    def __init__(self, *args: object, **keywords: object) -> None:
        keywords["allow_abbrev"] = False
        super().__init__(*args, **keywords)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong, with the usage, and exits."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, printable(f"{self.prog}: {message}") + "\n")


def make_parser() -> Parser:
    """The whole grammar."""
    parser = Parser(
        prog="immure", description="Run code that you do not trust, at an isolation level that is measured."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="verb", metavar="COMMAND", parser_class=Parser)
    _add_run(commands)
    _add_kept(commands)
    _add_trace(commands)
    doctor = commands.add_parser("doctor", help="what this host can do, and what would change that")
    doctor.add_argument("--level", choices=["L1", "L2", "L3", "L4"], help="exit 0 only where this level is reachable")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    _add_policy(commands)
    _add_serve(commands)
    return parser


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="virtual machines over HTTP, by Firecracker; as root")
    serve.add_argument(
        "--socket", metavar="PATH", help="the Unix socket to listen at (immure/serve.sock in $XDG_RUNTIME_DIR or /run)"
    )
    serve.add_argument(
        "--listen", metavar="HOST:PORT", help="listen there too; a loopback address, with --token-file; HOST: 127.0.0.1"
    )
    serve.add_argument("--token-file", metavar="PATH", help="what holds the bearer token that TCP needs")


def _add_policy(commands: Any) -> None:
    policy = commands.add_parser("policy", help="what a system call filter means, and how two differ")
    verbs = policy.add_subparsers(dest="policy_verb", metavar="VERB", required=True, parser_class=Parser)
    profile = "a seccomp profile of OCI or Kubernetes, - for standard input, or a preset's name"

    def add(name: str, about: str, *, files: bool = False) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=about)
        if files:
            verb.add_argument("files", nargs="+", metavar="FILE", help=profile)
        else:
            verb.add_argument("file", metavar="FILE", help=profile)
        return verb

    check = add("check", "whether profiles can be read, and what is odd in their text", files=True)
    lint = add("lint", "what profiles let through that can hardly be meant", files=True)
    evaluate = add("eval", "what happens to one call")
    explain = add("explain", "which rule decides about one call, and where it stands")
    compiled = add("compile", "the program for the kernel")
    compared = add("compare", "how a second profile differs, for every call and argument")
    minimised = add("minimise", "the same profile in fewer words")
    merged = add("merge", "one profile that lets through what any of several lets through", files=True)
    converted = add("convert", "the same profile in another form")
    converted.add_argument("--to", required=True, choices=["oci", "systemd"], help="JSON of OCI, or lines of a unit")
    converted.add_argument(
        "--best-effort", action="store_true", help="where the form can't say it, the stricter choice, and a remark"
    )
    compared.add_argument("other", metavar="OTHER", help="the second profile")
    compared.add_argument("--trace", metavar="TRACE", help="name the recorded calls that would change")
    _add_learn(verbs)
    for verb in (evaluate, explain):
        verb.add_argument("call", metavar="CALL", help="its name or number")
        verb.add_argument("args", nargs="*", metavar="ARG", help="its arguments, as far as they are known")
        verb.add_argument(
            "--abi", metavar="ABI", help="the ABI of the call where it is not the architecture's own: i386"
        )
    for verb in (check, lint, evaluate, explain, compiled, compared, merged, minimised, converted):
        verb.add_argument(
            "--base", action="append", default=[], metavar="NAME=FILE", help="a profile that others build on"
        )
    for verb in (lint, evaluate, explain, compiled, converted):
        verb.add_argument("--arch", default=_machine(), metavar="ARCH", help="the kernel's architecture (this host's)")
    compared.add_argument("--arch", dest="only_arch", metavar="ARCH", help="one architecture (all)")
    for verb in (lint, evaluate, explain, compiled, compared, converted):
        verb.add_argument("--caps", default="", metavar="CAP,…", help="capabilities that the process keeps (none)")
        verb.add_argument("--kernel", metavar="X.Y", help="the kernel's version (this host's)")
    for verb in (compiled, merged, minimised, converted):
        verb.add_argument("-o", "--output", metavar="PATH", help="where to write it (standard output)")
    compiled.add_argument("--disassemble", action="store_true", help="print it as text, with names")
    for verb in (check, lint, evaluate, explain, compiled, compared):
        verb.add_argument("--json", action="store_true", help="print JSON")


def _add_learn(verbs: Any) -> None:
    learn = verbs.add_parser(
        "learn",
        help="the smallest profile for what a command does, which it does in a box",
        usage="immure policy learn [OPTIONS] -- COMMAND [ARG…]",
    )
    _add_spec_options(learn)
    _add_limits(learn)
    learn.add_argument("-i", "--interactive", action="store_true", help="connect standard input")
    learn.add_argument(
        "-o", "--output", metavar="PATH", help="where to write the profile (standard output; the command's goes to 2)"
    )
    learn.add_argument("--trace", metavar="PATH", help="keep every call, a line each")
    learn.add_argument(
        "--values",
        type=int,
        default=MAX_VALUES,
        metavar="N",
        help=f"name a call's values where there are at most N combinations ({MAX_VALUES}); 0: never",
    )
    learn.add_argument("--json", action="store_true", help="print JSON: the profile and what was observed")
    learn.add_argument("-q", "--quiet", action="store_true", help="no remarks of ours on standard error")
    learn.add_argument("command", nargs="*", metavar="COMMAND", help="what to run, after --")


def _machine() -> str:
    """This host's architecture, as profiles name it."""
    return os.uname().machine


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run", help="run one command in a box of its own", usage="immure run [OPTIONS] -- COMMAND [ARG…]"
    )
    _add_spec_options(run)
    _add_limits(run)
    run.add_argument("-i", "--interactive", action="store_true", help="connect standard input")
    run.add_argument("-t", "--tty", action="store_true", help="a terminal of the command's own, joined to this one")
    run.add_argument("--keep", action="store_true", help="keep the box when the command has ended, under its name")
    run.add_argument(
        "-d", "--detach", action="store_true", help="keep the box, and come back while the command runs in it"
    )
    run.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    run.add_argument("--denials", action="store_true", help=_DENIALS)
    run.add_argument("--result", metavar="PATH|fd:N", help="write the result as JSON")
    run.add_argument("-q", "--quiet", action="store_true", help="no remarks of ours on standard error")
    run.add_argument("command", nargs="*", metavar="COMMAND", help="what to run, after --")


def _add_kept(commands: Any) -> None:
    """What is done with boxes that are kept."""
    execute = commands.add_parser(
        "exec", help="run a command in a kept box", usage="immure exec [OPTIONS] BOX -- COMMAND [ARG…]"
    )
    _add_command_options(execute)
    add = execute.add_argument
    add("-i", "--interactive", action="store_true", help="connect standard input")
    add("-t", "--tty", action="store_true", help="a terminal of the command's own, joined to this one")
    add("-d", "--detach", action="store_true", help="come back while the command runs")
    add("--timeout", type=float, metavar="S", help="end after so many seconds (exit status 124)")
    add("--max-output", type=float, metavar="MiB", help="end when more than this is written")
    add("--denials", action="store_true", help=_DENIALS)
    add("--result", metavar="PATH|fd:N", help="write the result as JSON")
    add("-q", "--quiet", action="store_true", help="no remarks of ours on standard error")
    _add_box(execute)
    add("command", nargs="*", metavar="COMMAND", help="what to run, after --")
    listed = commands.add_parser("ps", help="the boxes that are kept")
    listed.add_argument("--json", action="store_true", help="print JSON")
    logs = commands.add_parser("logs", help="what commands in a kept box wrote while nobody waited for them")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the box ends")
    logs.add_argument("--command", type=int, metavar="N", help="of one command alone, by its number")
    logs.add_argument("--tail", type=int, metavar="N", help="the last N lines at most")
    logs.add_argument("--json", action="store_true", help="print a line of JSON for each entry, starts and ends too")
    _add_box(logs)
    copy = commands.add_parser("cp", help="copy a file or folder into a kept box, or out of one")
    copy.add_argument("source", metavar="SRC", help="a path here, BOX:PATH, or - for standard input")
    copy.add_argument("target", metavar="DST", help="BOX:PATH, a path here, or - for standard output")
    copy.add_argument("--max-mib", type=int, default=1024, metavar="MiB", help="take at most so much out (1024)")
    killed = commands.add_parser("kill", help="end kept boxes, and all that runs in them")
    killed.add_argument("--all", action="store_true", help="all of them")
    killed.add_argument("boxes", nargs="*", metavar="BOX", help="the name of a kept box")
    for name, about in (
        ("pause", "stop everything in a kept box, until it is resumed"),
        ("resume", "let a paused box go on"),
    ):
        _add_box(commands.add_parser(name, help=about))
    stats = commands.add_parser("stats", help="what a kept box uses now")
    stats.add_argument("--json", action="store_true", help="print JSON")
    _add_box(stats)


def _add_trace(commands: Any) -> None:
    trace = commands.add_parser(
        "trace",
        help="what gVisor's kernel sees of a box, as it happens",
        usage="immure trace [OPTIONS] BOX | immure trace [OPTIONS] -- COMMAND [ARG…]",
    )
    add = trace.add_argument
    add(
        "-p",
        "--point",
        action="append",
        default=[],
        metavar="POINT",
        help="what to report, such as sentry/execve or 'syscall/open*/exit' (processes, and calls that reach for "
        "something)",
    )
    add("--denied", action="store_true", help="print calls that failed, alone")
    add("--json", action="store_true", help="print a line of JSON for each event, and one at the end")
    add("-n", "--max", type=int, metavar="MAX", help="end after so many events")
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="where to write them (standard output, or error beside a COMMAND)",
    )
    add(
        "--context",
        action="append",
        default=[],
        metavar="FIELD",
        help="say this of processes too, such as process_name or cwd: who has one that is no text is then not seen",
    )
    add("--optional", action="append", default=[], metavar="FIELD", help="a field that some points have, as fd_path")
    add("-q", "--quiet", action="store_true", help="no remarks of ours on standard error")
    group = trace.add_argument_group("the box of COMMAND")
    _add_spec_options(group, level="L3")
    _add_limits(group)
    group.add_argument("-i", "--interactive", action="store_true", help="connect standard input")
    group.add_argument("-t", "--tty", action="store_true", help="a terminal of the command's own, joined to this one")
    add("box", nargs="?", metavar="BOX", help="the name of a kept box")


def _add_box(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("box", metavar="BOX", help="the name of a kept box")


def _add_command_options(parser: Any) -> None:
    add = parser.add_argument
    add(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="K[=V]",
        help="a variable; without = this process's",
    )
    add("-w", "--workdir", metavar="DIR", help="where to start (the first mount, else /tmp)")
    add("-u", "--user", type=int, metavar="USER", help="the user id in the box (1000)")


def _add_spec_options(run: Any, level: str | None = None) -> None:
    add = run.add_argument
    add("-f", "--file", metavar="SPEC", help="a sandbox document (YAML, TOML or JSON); options add to it")
    add("--preset", metavar="P", help="python: show the calling interpreter's prefix")
    add("--level", default=level, metavar="L", help=f"the least level that is accepted ({level or 'L2'})")
    add("--runtime", metavar="R", help="auto, process, gvisor, qemu or firecracker (auto: what reaches the level)")
    add("--image", metavar="I", help="host, or the path of a folder with a root file system (host)")
    add(
        "-v",
        "--mount",
        action="append",
        default=[],
        metavar="SRC:DST[:ro|rw]",
        help="show a folder or file of this host; read-only unless rw",
    )
    add("--tmpfs", action="append", default=[], metavar="DST[:MiB]", help="memory-backed space of its own")
    _add_command_options(run)
    add("--net", metavar="MODE", help="none or host (none)")
    add("--seccomp", metavar="NAME|FILE", help=f"a preset ({', '.join(PRESETS)}) or the path of an OCI profile")
    add(
        "--best-effort",
        action="append",
        default=[],
        choices=PROTECTIONS,
        metavar="PROTECTION",
        help="do without a protection where this host lacks it: " + ", ".join(PROTECTIONS),
    )
    add("--name", metavar="N", help="the box's name and host name (immure)")


def _add_limits(run: Any) -> None:
    add = run.add_argument
    add("--memory", type=int, metavar="MiB", help="memory limit")
    add("--cpus", type=float, metavar="N", help="CPU limit, in processors")
    add("--pids", type=int, metavar="N", help="how many processes and threads")
    add("--disk", type=int, metavar="MiB", help="private writable space")
    add("--timeout", type=float, metavar="S", help="end after so many seconds (exit status 124)")
    add("--max-output", type=float, metavar="MiB", help="end when more than this is written")
