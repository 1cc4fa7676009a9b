"""`immure policy learn`: real programs, seen call by call, in boxes whose walls stand."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import msgspec
import pytest

from immure.policy.seccomp import Profile, changed_calls, load_preset, parse_profile, preset_text, read_trace
from immure.policy.seccomp.learn import CIRCUMSTANTIAL

from .command_line import CommandLine, python, shell
from .processes import eventually, left_behind

pytestmark = pytest.mark.rootless

#: Threads, children, signals in the middle of calls, sockets, files, and two calls that a box refuses. One after the
#: other: what several at once call depends on who comes first.
BUSY = textwrap.dedent("""
    import os, signal, socket, subprocess, tempfile, threading, time
    for _ in range(8):
        one = threading.Thread(target=time.sleep, args=(0.01,))
        one.start()
        one.join()
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.002)
    time.sleep(0.1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(subprocess.run(["sh", "-c", "echo $((6 * 7)); ls /usr | wc -l"], capture_output=True).stdout)
    child = os.fork()
    if child == 0: os._exit(7)
    print(os.waitpid(child, 0)[1])
    one, other = socket.socketpair()
    one.send(b"x"); print(other.recv(1))
    with tempfile.NamedTemporaryFile() as file: file.write(b"x"); os.chmod(file.name, 0o600)
    try: os.chmod("/tmp", 0o4755)
    except OSError as error: print(error.errno)
""")


def busy(folder: Path) -> list[str]:
    (folder / "busy.py").write_text(BUSY)
    return ["-v", f"{folder}:/work"]


COMMAND = ["--", "/usr/bin/python3", "/work/busy.py"]


def replayed(profile: Profile, trace: Path) -> list[str]:
    """The calls of a trace that another profile than the default one answers otherwise."""
    with trace.open("rb") as file:
        arch, calls = read_trace(file, name=str(trace))
        return [one.name for one in changed_calls(load_preset("default"), profile, calls, arch=arch)]


def without(profile: Profile, name: str) -> Profile:
    rules = [
        msgspec.structs.replace(rule, names=tuple(one for one in rule.calls if one != name))
        for rule in profile.rules
        if rule.calls != (name,)
    ]
    return msgspec.structs.replace(profile, syscalls=tuple(rules))


def test_a_program_does_the_same_under_what_was_learned_from_it(cli: CommandLine, tmp_path: Path) -> None:
    options = busy(tmp_path)
    learned, trace = tmp_path / "learned.json", tmp_path / "trace"
    first = cli.learn(*options, "-o", learned, "--trace", trace, *COMMAND)
    assert first.returncode == 0, first.stderr
    assert b"measured at L2" in first.stderr
    assert b"clone3 (ERRNO ENOSYS)" in first.stderr
    plain = cli.run(*options, *COMMAND)
    under = cli.run(*options, "--seccomp", learned, *COMMAND)
    assert under.returncode == plain.returncode == 0, under.stderr
    assert first.stdout == plain.stdout == under.stdout

    # The smallest: each name was used, and none can go.
    profile = parse_profile(learned.read_bytes())
    assert replayed(profile, trace) == []
    names = {name for rule in profile.rules for name in rule.calls}
    assert len(names) > 50
    for name in names - set(CIRCUMSTANTIAL):
        assert name in replayed(without(profile, name), trace)


def test_the_calls_are_those_that_strace_sees(cli: CommandLine, tmp_path: Path) -> None:
    """An independent witness of the same program, outside of any box."""
    command = ["/usr/bin/python3", "-I", "-S", "-c", "import os; os.listdir('/usr'); os.getppid(); os.stat('/tmp')"]
    log = tmp_path / "strace"
    subprocess.run(["strace", "-f", "-o", log, *command], check=True, timeout=60)
    seen = set(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE))
    shown = json.loads(cli.learn("--json", "-q", "--", *command).stdout)
    observed = {one["call"] for one in shown["observed"]}
    # strace knows newfstatat and its like by the kernel's names too. What it needs no box for is the same.
    assert observed == seen


def test_the_profile_goes_to_standard_output_and_nothing_else_does(cli: CommandLine) -> None:
    result = cli.learn("--", *shell("echo of the command"))
    profile = parse_profile(result.stdout)
    assert {"execve", "write"} <= {name for rule in profile.rules for name in rule.calls}
    assert b"of the command" in result.stderr
    quiet = cli.learn("-q", "--", *shell(":"))
    assert parse_profile(quiet.stdout)
    assert quiet.stderr == b""


def test_json_tells_what_was_observed(cli: CommandLine, tmp_path: Path) -> None:
    program = """
        import socket, os
        socket.socket(socket.AF_UNIX).close()
        for _ in range(100): os.getppid()
        try: os.mkfifo("/usr/x")
        except OSError: pass
    """
    result = cli.learn("--json", "-o", tmp_path / "p.json", "--", *python(textwrap.dedent(program)))
    shown = json.loads(result.stdout)
    assert shown["schema"] == "immure.learned/v1"
    assert shown["error"] is None
    assert (shown["complete"], shown["missing"]) == (True, None)
    assert shown["exit"] == {"kind": "exited", "code": 0, "signal": None}
    assert shown["level"] == {"asked": "L2", "awarded": "L2"}
    assert shown["policy"] == json.loads((tmp_path / "p.json").read_bytes())
    rows = {one["call"]: one for one in shown["observed"]}
    assert rows["getppid"]["count"] == 100
    assert rows["socket"]["values"] == [[1, 0x80001]]
    assert rows["getppid"]["values"] is None


def test_a_command_that_is_not_run_costs_no_file(cli: CommandLine, tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("mine")
    for target in (old, new):
        assert cli.learn("-o", target, "--", "no-such-command").returncode == 127
    assert [one.name for one in tmp_path.iterdir()] == ["old.json"]
    assert old.read_text() == "mine"
    # The control: where it runs, it is replaced, and nothing of a longer one is left.
    old.write_text("x" * 100_000)
    assert cli.learn("-o", old, "--", "true").returncode == 0
    assert parse_profile(old.read_bytes())


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--", "sh", "-c", "exit 7"], 7),
        (["--", "sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["--timeout", "0.3", "--", "sleep", "20"], 124),
        (["--", "no-such-command"], 127),
        (["--", "/etc"], 126),
        (["--"], 125),
        (["--values", "-1", "--", "true"], 125),
        (["--no-such-option", "--", "true"], 125),
        (["--seccomp", "/no/such/file", "--", "true"], 125),
        (["-o", "/no/such/folder/x", "--", "true"], 125),
        (["--trace", "/no/such/folder/x", "--", "true"], 125),
        (["extra", "--", "true"], 125),
        (["-w", "/no/such", "--", "true"], 126),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_status_is_that_of_run(words: list[str], status: int, cli: CommandLine) -> None:
    result = cli.learn(*words)
    assert result.returncode == status, result.stderr
    # There is a profile where a command has run.
    assert bool(result.stdout) == (status not in (125, 126, 127))


def test_a_record_that_lacks_something_says_so(cli: CommandLine, tmp_path: Path) -> None:
    late = json.loads(cli.learn("--json", "--timeout", "0.3", "--", "sleep", "20").stdout)
    assert (late["complete"], late["exit"]["kind"]) == (False, "timeout")

    deadly = tmp_path / "deadly.json"
    rules = json.loads(preset_text("default"))
    rules["syscalls"].append({"names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS"})
    deadly.write_text(json.dumps(rules))
    killed = json.loads(cli.learn("--json", "--seccomp", deadly, "--", *python("import os; os.getppid()")).stdout)
    assert killed["exit"] == {"kind": "signaled", "code": None, "signal": signal.SIGSYS}
    assert not killed["complete"]
    assert "not in the record" in killed["missing"]
    assert "getppid" not in {one["call"] for one in killed["observed"]}

    own = """
        import ctypes, struct
        libc = ctypes.CDLL(None)
        rules = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7fff0000))
        program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 1, ctypes.addressof(rules)))
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, program, 0, 0) == 0
    """
    filtered = json.loads(cli.learn("--json", "--", *python(textwrap.dedent(own))).stdout)
    assert filtered["exit"]["code"] == 0
    assert not filtered["complete"]
    assert "filter of its own" in filtered["missing"]


REFUSED = """
import ctypes, os, tempfile
libc = ctypes.CDLL(None, use_errno=True)
def tried(call, *args):
    ctypes.set_errno(0)
    libc.syscall(call, *args)
    return ctypes.get_errno()
with tempfile.NamedTemporaryFile() as own:
    setuid = tried(90, own.name.encode(), 0o4755)
print(tried(272, 0x10000000), tried(425, 1, 0), tried(435, 0, 0), tried(165, 0, 0, 0, 0, 0), setuid)
"""


def test_what_the_profile_refuses_is_refused_while_it_is_learned_from(cli: CommandLine) -> None:
    """unshare of a user namespace, io_uring_setup, clone3, mount, and a setuid bit; outside they say something else."""
    expected = f"{errno.EPERM} {errno.EPERM} {errno.ENOSYS} {errno.EPERM} {errno.EPERM}\n"
    command = python(REFUSED)
    assert cli.run("--", *command).stdout.decode() == expected
    learning = cli.learn("-o", "/dev/null", "--", *command)
    assert learning.stdout.decode() == expected
    outside = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    assert outside != expected
    assert (outside.split()[0], outside.split()[-1]) == ("0", "0")


def test_a_trace_that_can_not_be_written_ends_it(cli: CommandLine) -> None:
    """Nobody answers any more then: every call fails, and the error says why."""
    program = "import os\nfor _ in range(5000): os.getppid()"
    result = cli.learn("--trace", "/dev/full", "-o", "/dev/null", "--", *python(program))
    assert result.returncode == 125, result.stderr
    assert b"/dev/full can't be written" in result.stderr


def test_nothing_of_ours_runs_beside_the_command(cli: CommandLine) -> None:
    program = """
        import os, time
        for _ in range(100):
            pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
            if pids == [1, os.getpid()]: break
            time.sleep(0.01)
        print(len(pids), os.listdir("/proc/self/fd"))
    """
    result = cli.learn("-o", "/dev/null", "--", *python(textwrap.dedent(program)))
    count, fds = result.stdout.decode().split(" ", 1)
    assert count == "2"
    assert len(json.loads(fds.replace("'", '"'))) == 4  # the three, and that of the listing


@pytest.mark.parametrize("moment_ms", [0, 30, 60, 90, 120, 200])
def test_a_caller_that_is_killed_takes_its_box_along(moment_ms: int, cli: CommandLine) -> None:
    words = cli.words("policy", "learn", "-o", "/dev/null", "--", *shell("while :; do :; done"))
    process = subprocess.Popen(words, env=cli.env, stderr=subprocess.DEVNULL)
    time.sleep(0.15 + moment_ms / 1000)
    process.kill()
    process.wait()
    assert eventually(lambda: not left_behind()), left_behind()


def test_an_interrupt_goes_to_the_command(cli: CommandLine) -> None:
    words = cli.words(
        "policy", "learn", "-o", "/dev/null", "--", *shell("trap 'exit 9' INT; echo r; while :; do :; done")
    )
    process = subprocess.Popen(words, env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.read(2) == b"r\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 9
    process.stdout.close()


def test_it_learns_in_a_box_without_namespaces(cli: CommandLine, tmp_path: Path) -> None:
    spec = tmp_path / "bare.yaml"
    spec.write_text(
        "apiVersion: immure.dev/v1\nkind: Sandbox\nspec:\n  level: L1\n  processes: {namespaces: none}\n"
        "  network: {mode: host}\n"
    )
    result = cli.learn("-f", spec, "--", "/bin/true")
    assert result.returncode == 0, result.stderr
    assert b"measured at L1" in result.stderr
    assert parse_profile(result.stdout)


def test_input_reaches_the_command(cli: CommandLine) -> None:
    result = cli.learn("-i", "-o", "/dev/null", "--", "cat", input=b"hello")
    assert result.stdout == b"hello"


def test_compare_names_the_recorded_calls_that_would_change(cli: CommandLine, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert (
        cli.learn("-o", os.devnull, "--trace", trace, "--", *python("import socket; socket.socket()")).returncode == 0
    )
    same = cli.carry_out("policy", "compare", "default", "network-client", "--trace", trace)
    assert (same.returncode, same.stdout) == (0, b"every recorded call gets the same answer\n")
    changed = cli.carry_out("policy", "compare", "default", "strict", "--trace", trace)
    assert changed.returncode == 1
    assert b"socket: ALLOW \xe2\x86\x92 ERRNO EPERM, 1 times" in changed.stdout
    shown = json.loads(cli.carry_out("policy", "compare", "default", "strict", "--trace", trace, "--json").stdout)
    row = next(one for one in shown["changed"] if one["call"] == "socket")
    assert (row["a"]["answer"], row["b"]["answer"], row["count"]) == ("ALLOW", "ERRNO EPERM", 1)
    missing = cli.carry_out("policy", "compare", "default", "strict", "--trace", "/no/such/trace")
    assert missing.returncode == 2
    assert b"/no/such/trace" in missing.stderr
