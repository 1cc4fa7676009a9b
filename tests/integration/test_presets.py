"""Presets of the filter, as programs meet them: what each is for works in a box, and what it lacks is refused there."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from immure import Result, run
from immure.policy.seccomp import PRESETS

from .command_line import CommandLine, shell
from .test_plan_cache import was_compiled

pytestmark = pytest.mark.rootless


def program(source: str) -> Sequence[str]:
    """A command that runs a program in the image's Python, with the modules that it finds by itself."""
    return ("/usr/bin/python3", "-I", "-c", textwrap.dedent(source))


def in_box(preset: str, command: Sequence[str], **options: object) -> Result:
    result = run(list(command), **{"seccomp": preset, "level": "L2", "timeout_s": 50, **options})  # type: ignore[arg-type]
    assert result.level.awarded == "L2"
    return result


def output(preset: str, command: Sequence[str], **options: object) -> str:
    """What a command printed; it must end well."""
    result = in_box(preset, command, **options)
    assert result.ok, f"{result.exit}\n{result.stdout.text()}\n{result.stderr.text()}"
    return result.stdout.text()


def errno_of(preset: str, call: str) -> str:
    """The name of the error that a call of Python ends with in a box, or `none`."""
    source = f"""
        import errno, fcntl, os, resource, signal, socket, threading
        try:
            {call}
        except OSError as error:
            print(errno.errorcode[error.errno])
        else:
            print("none")
    """
    return output(preset, program(source)).strip()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_box_starts_under_each_and_says_which(preset: str) -> None:
    result = in_box(preset, ["/bin/true"])
    assert result.ok
    assert [clause.wanted for clause in result.report if clause.clause == "syscalls.profile"] == [preset]


@pytest.mark.parametrize("preset", PRESETS)
def test_no_new_user_namespace(preset: str) -> None:
    source = """
        import ctypes
        library = ctypes.CDLL(None, use_errno=True)
        print(library.unshare(0x10000000), ctypes.get_errno())
    """
    assert output(preset, program(source)) == "-1 1\n"


def test_the_command_line_takes_a_presets_name(fresh_cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "strict").write_text("not a profile")
    socket = program("import socket; socket.socket()")
    assert fresh_cli.run("--seccomp", "strict", "--", *socket, cwd=tmp_path).returncode == 1
    assert fresh_cli.run("--seccomp", "python", "--", *socket, cwd=tmp_path).returncode == 0
    assert not was_compiled(fresh_cli, "--seccomp", "strict", "--", "true", cwd=tmp_path)
    (tmp_path / "strict").write_text("still no profile")
    assert not was_compiled(fresh_cli, "--seccomp", "strict", "--", "true", cwd=tmp_path)
    assert fresh_cli.run("--seccomp", "./strict", "--", "true", cwd=tmp_path).returncode == 125


def test_a_document_names_a_preset(cli: CommandLine, tmp_path: Path) -> None:
    document = tmp_path / "box.yaml"
    text = "apiVersion: immure.dev/v1\nkind: Sandbox\nspec: {syscalls: {profile: %s}}\n"
    for name, status in (("strict", 1), ("python", 0)):
        document.write_text(text % name)
        assert cli.run("-f", document, "--", *program("import socket; socket.socket()")).returncode == status
    document.write_text(text % "stritc")
    ended = cli.run("-f", document, "--", "true")
    assert ended.returncode == 125
    assert b"did you mean the preset `strict`?" in ended.stderr


# strict


def test_strict_computes_on_a_mounted_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "data").write_bytes(content)
    source = """
        import hashlib, tempfile, threading
        sums = []
        def compute():
            with open("/work/data", "rb") as file:
                sums.append(hashlib.file_digest(file, "sha256").hexdigest())
        threads = [threading.Thread(target=compute) for _ in range(3)]
        for one in threads: one.start()
        for one in threads: one.join()
        with open("/out/sum", "w") as file:
            file.write(sums[0])
        print(*set(sums))
    """
    out = tmp_path / "out"
    out.mkdir()
    expected = hashlib.sha256(content).hexdigest()
    assert output("strict", program(source), mounts=[(tmp_path, "/work"), (out, "/out", "rw")]) == expected + "\n"
    assert (out / "sum").read_text() == expected


def test_strict_runs_what_a_compiler_made(tmp_path: Path) -> None:
    source = """
        cd /out
        cat > sum.c <<'END'
        #include <math.h>
        #include <pthread.h>
        #include <stdio.h>
        #include <stdlib.h>
        static void *half(void *at) { double *x = at; for (int i = 1; i < 1000; i++) *x += sqrt(i); return NULL; }
        int main(void) {
            pthread_t one; double *x = calloc(1 << 20, sizeof *x);
            if (pthread_create(&one, NULL, half, x) || pthread_join(one, NULL)) return 1;
            printf("%.3f\\n", *x); free(x); return 0;
        }
        END
        gcc -O1 -pthread -o sum sum.c -lm
    """
    mounts = [(tmp_path, "/out", "rw")]
    output("build", shell("set -e\n" + textwrap.dedent(source)), mounts=mounts)
    assert output("strict", ["/out/sum"], mounts=mounts) == output("default", ["/out/sum"], mounts=mounts) != ""


# Signals go to the own process: process 1 is another user's, whom the kernel guards under `default` too.
@pytest.mark.parametrize(
    "call",
    [
        "socket.socket(socket.AF_INET)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socketpair()",
        "os.fork() or os._exit(0)",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getpid(), 0)",
        "signal.pthread_kill(threading.get_ident(), 0)",
        "fcntl.fcntl(os.pipe()[0], 8, os.getpid())",
        "open('/tmp/x', 'w').close(); os.chmod('/tmp/x', 0o600)",
        "open('/tmp/x', 'w').close(); os.chown('/tmp/x', os.getuid(), -1)",
        "open('/tmp/x', 'w').close(); os.link('/tmp/x', '/tmp/y')",
        "os.symlink('/tmp/x', '/tmp/y')",
        "open('/tmp/x', 'w').close(); os.rename('/tmp/x', '/tmp/y')",
        "open('/tmp/x', 'w').close(); os.unlink('/tmp/x')",
        "os.mkfifo('/tmp/x')",
        "os.setpriority(os.PRIO_PROCESS, 0, 5)",
        "resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)",
    ],
)
def test_strict_refuses(call: str) -> None:
    assert errno_of("strict", call) == "EPERM"
    assert errno_of("default", call) == "none"


def test_strict_replaces_a_program_and_starts_none() -> None:
    assert output("strict", shell("exec echo replaced")) == "replaced\n"
    assert not in_box("strict", shell("/bin/echo started; true")).ok
    assert output("default", shell("/bin/echo started; true")) == "started\n"


def test_strict_ends_what_aborts() -> None:
    aborts = program("import os; os.abort()")
    assert in_box("strict", aborts).exit.kind == in_box("default", aborts).exit.kind == "signaled"


# python


def test_python_starts_processes_and_talks_to_them() -> None:
    source = """
        import asyncio, multiprocessing, subprocess, tempfile, threading
        from pathlib import Path

        def square(number):
            return number * number

        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        async def talk(server, connection):
            reader, writer = await connection
            writer.write(b"echo\\n")
            answer = await reader.readline()
            writer.close()
            server.close()
            return answer

        async def main(folder):
            tcp = await asyncio.start_server(echo, "127.0.0.1", 0)
            port = tcp.sockets[0].getsockname()[1]
            unix = await asyncio.start_unix_server(echo, folder + "/socket")
            return [
                await talk(tcp, asyncio.open_connection("localhost", port)),
                await talk(unix, asyncio.open_unix_connection(folder + "/socket")),
            ]

        print(subprocess.run("echo $((6 * 7)); cat", shell=True, input="in", capture_output=True, text=True).stdout)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(square, range(4)))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "file").write_text("")
            (Path(folder) / "file").chmod(0o600)
            print(asyncio.run(main(folder)))
        lock = multiprocessing.Lock()
        with lock:
            print(lock.acquire(block=False))
    """
    printed = output("python", program(source)).splitlines()
    assert printed == ["42", "in", "[0, 1, 4, 9]", r"[b'echo\n', b'echo\n']", "False"]


@pytest.mark.parametrize(
    "call",
    [
        "open('/tmp/x', 'w').close(); os.chown('/tmp/x', os.getuid(), -1)",
        "os.setuid(os.getuid())",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)",
    ],
)
def test_python_refuses(call: str) -> None:
    assert errno_of("python", call) == "EPERM"
    assert errno_of("default", call) == "none"


# build


def test_build_compiles_runs_and_commits() -> None:
    source = """
        cd /tmp
        printf 'all: hello\\nhello: hello.c\\n\\tgcc -o $@ $<\\n\\tln -sf hello link\\n\\tchmod 755 hello\\n' > Makefile
        printf '#include <stdio.h>\\nint main(void) { puts("hello"); }\\n' > hello.c
        make -s -j2
        ./link
        mkfifo pipe
        touch lock
        flock lock cp -a hello copy
        git init -q repository
        cd repository
        cp ../hello.c .
        git add hello.c
        git -c user.name=me -c user.email=me@localhost commit -qm first
        git log --format=%s
        git gc -q
        git clone -q . ../clone
        git -C ../clone fsck --strict
        tar cf - . | tar tf - | grep -c hello.c
    """
    assert output("build", shell("set -e\n" + textwrap.dedent(source))) == "hello\nfirst\n1\n"


def test_build_has_sockets_within_the_box_alone() -> None:
    assert errno_of("build", "socket.socket(socket.AF_INET)") == "EPERM"
    assert errno_of("python", "socket.socket(socket.AF_INET)") == "none"
    assert errno_of("build", "socket.socket(socket.AF_UNIX)") == "none"


# network-client


@pytest.mark.parametrize(("family", "address"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_network_client_connects(family: str, address: str) -> None:
    stream, datagram = f"socket.socket(socket.{family})", f"socket.socket(socket.{family}, socket.SOCK_DGRAM)"
    assert errno_of("network-client", f"{stream}.connect(({address!r}, 9))") == "ECONNREFUSED"
    assert errno_of("network-client", f"{datagram}.sendto(b'x', ({address!r}, 9))") == "none"
    assert errno_of("network-client", f"{datagram}.bind(({address!r}, 0))") == "none"


def test_network_client_looks_names_up() -> None:
    source = """
        import socket
        found = {one[4][0] for one in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)}
        print(bool(found), found <= {"127.0.0.1", "::1"})
        print([name for _, name in socket.if_nameindex()])
    """
    assert output("network-client", program(source)) == "True True\n['lo']\n"


@pytest.mark.parametrize(
    "call",
    [
        "one = socket.socket(); one.bind(('127.0.0.1', 0)); one.listen()",
        "one = socket.socket(socket.AF_UNIX); one.bind('/tmp/x'); one.listen()",
    ],
)
def test_network_client_does_not_serve(call: str) -> None:
    assert errno_of("network-client", call) == "EPERM"
    assert errno_of("default", call) == errno_of("python", call) == "none"


def test_network_client_speaks_no_other_protocol() -> None:
    source = "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)"
    assert errno_of("network-client", source) == "EPERM"
    assert errno_of("default", source) != "EPERM"


# node. Where it is not installed, what libuv calls is in test_seccomp_presets.py.

if Path("/usr/bin/node").exists():

    def test_node_serves_watches_and_starts_processes() -> None:
        source = """
            const { Worker } = require("node:worker_threads");
            const fs = require("node:fs"), net = require("node:net"), path = require("node:path");
            fs.writeFileSync("/tmp/file", "x");
            fs.chmodSync("/tmp/file", 0o600);
            fs.watch("/tmp").close();
            process.stdout.write(require("node:child_process").execSync("echo child"));
            const server = net.createServer((one) => one.pipe(one)).listen(0, "127.0.0.1", () => {
                const client = net.connect(server.address().port, "127.0.0.1", () => client.end("echo\\n"));
                client.on("data", (data) => process.stdout.write(data));
                client.on("close", () => server.close(() => {
                    new Worker("require('node:worker_threads').parentPort.postMessage('worker')", { eval: true })
                        .on("message", (message) => console.log(message));
                }));
            });
        """
        assert (
            output("node", ["node", "-e", source], memory_mib=2048, protections={"memory": "best_effort"})
            == "child\necho\nworker\n"
        )
