"""What only a Sentry has: the box around it, its own programs and sockets, the folders that it shares with the host."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import immure
from immure.host.tree import below
from immure.policy.seccomp import preset_text
from runscs import VERSIONS, runsc_of, using

pytestmark = pytest.mark.rootless

Made = Callable[..., immure.Sandbox]


@pytest.fixture(params=VERSIONS)
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    """Makes boxes of one version, and ends them."""
    boxes: list[immure.Sandbox] = []

    def make(**keywords: object) -> immure.Sandbox:
        box = immure.Sandbox(**{"level": "L3", **keywords})
        boxes.append(box)
        return box

    with using(runsc_of(request.param)):
        yield make
        for box in boxes:
            box.close()


def python(program: str, *arguments: object) -> list[str]:
    return ["/usr/bin/python3", "-I", "-c", program, *map(str, arguments)]


def said(box: immure.Sandbox, program: str, *arguments: object, **keywords: object) -> str:
    result = box.exec(python(program, *arguments), timeout_s=30, **keywords)
    assert result.exit.code == 0, f"{result.exit} {result.stderr.text()}"
    return result.stdout.text().strip()


def said_outside(program: str, *arguments: object) -> str:
    return subprocess.run(
        python(program, *arguments), capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


# Which of the files can be opened, whatever road leads there.
_OPENED = """
import json, os, sys
opened = []
for path in sys.argv[1:]:
    for road in ("", "/proc/1/root", "/proc/self/root/..", "/proc/1/cwd/..", "/proc/self/cwd" + "/.." * 16):
        try:
            os.close(os.open(road + path, os.O_RDONLY | os.O_NONBLOCK))
            opened.append(path)
        except OSError:
            pass
print(json.dumps(sorted(set(opened))))
"""
_AROUND = (
    "/outside",
    "/bundle/config.json",
    "/runsc",
    "/rootfs",
    "/mounts/0",
    "/tmp/runsc",
    "/tmp/runsc/runsc-box.sock",
)


def test_the_box_around_it_is_out_of_reach(made: Made, tmp_path: Path) -> None:
    box = made(mounts=[(tmp_path, "/work", "rw")], workdir="/tmp")
    assert json.loads(said(box, _OPENED, *_AROUND)) == []

    assert json.loads(said(box, _OPENED, "/etc/passwd")) == ["/etc/passwd"]
    assert box._measured.items["inside/outer_opens"] == b"1"
    if os.geteuid() == 0:
        around = Path(f"/proc/{box._box.pid}/root")
        assert [path for path in _AROUND if not Path(f"{around}{path}").exists()] == []


_KILL_ALL = """
import os, signal
for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
    for target in (1, -1):
        try:
            os.kill(target, number)
        except OSError:
            pass
"""


def test_killing_everybody_leaves_the_first_process(made: Made) -> None:
    """It is another user, whom gVisor does not protect otherwise."""
    box = made()
    other = box.start(["/bin/sleep", "60"])
    box.exec(python(_KILL_ALL), timeout_s=30)
    assert other.wait().exit.signal in (signal.SIGTERM, signal.SIGKILL), "a process of the same user"
    assert box.exec(["/bin/echo", "here"]).stdout == b"here\n"


_ABSTRACT = """
import errno, json, socket, sys
answers = []
for name in sys.argv[1:]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as client:
            try:
                client.connect("\\0" + name)
                answers.append("connected")
            except OSError as error:
                answers.append(errno.errorcode[error.errno])
print(json.dumps(sorted(set(answers))))
"""


def test_no_socket_of_the_host_or_of_the_box_around_it(made: Made) -> None:
    box = made()
    name = f"immure-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        assert json.loads(said(box, _ABSTRACT, name, "runsc-sandbox.box", "runsc-box.sock")) == ["ECONNREFUSED"]
        assert "connected" in json.loads(said_outside(_ABSTRACT, name))
    assert "@" not in box.exec(["/bin/cat", "/proc/net/unix"]).stdout.text()


_CONNECT = """
import errno, socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(10)
    try:
        client.connect(sys.argv[1])
        print(client.recv(100).decode())
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def test_a_socket_of_the_host_in_a_mount(made: Made, shared: Path) -> None:
    box = made(mounts=[(shared, "/work", "rw")])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(shared / "socket"))
        (shared / "socket").chmod(0o777)
        listener.listen()
        assert said(box, _CONNECT, "/work/socket") in ("ECONNREFUSED", "EACCES", "ENXIO")

        client = threading.Thread(target=lambda: listener.accept()[0].send(b"reached"), daemon=True)
        client.start()
        assert said_outside(_CONNECT, shared / "socket") == "reached"


_INTO_FIFO = """
import errno, os, sys
try:
    fifo = os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)
    os.write(fifo, b"reached")
    print("written")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def test_a_fifo_of_the_host_in_a_mount(made: Made, shared: Path) -> None:
    """Two programs of the host's may trust what comes through it."""
    os.mkfifo(shared / "fifo")
    (shared / "fifo").chmod(0o666)
    box = made(mounts=[(shared, "/work", "rw")])
    reader = os.open(shared / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert said(box, _INTO_FIFO, "/work/fifo") in ("ENXIO", "EACCES", "EPERM", "EOPNOTSUPP")
        assert os.read(reader, 100) == b""
        assert said_outside(_INTO_FIFO, shared / "fifo") == "written"
        assert os.read(reader, 100) == b"reached"
    finally:
        os.close(reader)


_MAKE_FIFO_AND_SOCKET = """
import os, socket
os.mkfifo("/work/fifo", 0o666)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind("/work/socket")
    reader = os.open("/work/fifo", os.O_RDONLY | os.O_NONBLOCK)
    os.write(os.open("/work/fifo", os.O_WRONLY | os.O_NONBLOCK), b"within")
    print(os.read(reader, 100).decode(), sorted(os.listdir("/work")))
"""


def test_what_the_box_makes_there_is_nothing_that_the_host_waits_for(made: Made, shared: Path) -> None:
    """A program of the host's that reads all files would wait at a FIFO, and at a socket speak to the box."""
    box = made(mounts=[(shared, "/work", "rw")])
    assert said(box, _MAKE_FIFO_AND_SOCKET) == "within ['fifo', 'socket']"
    assert list(shared.iterdir()) == []


# One process changes what the other opens: a folder with a file, and a link that leads out.
_SWAP = """
import os, sys, time
work, secret, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
os.chdir(work)
os.mkdir("folder")
open("folder/secret", "w").close()
os.symlink(os.path.dirname(secret), "link")
if os.fork() == 0:
    while True:
        os.rename("folder", "place"); os.rename("place", "folder")
        os.rename("link", "place"); os.rename("place", "link")
end, tries, seen = time.monotonic() + seconds, 0, ""
while time.monotonic() < end and not seen:
    tries += 1
    try:
        with open("place/secret") as file:
            seen = file.read()
    except OSError:
        pass
print(tries > 10, seen or "nothing", flush=True)
os.kill(0, 9)
"""


@pytest.mark.parametrize("swapper", ["box", "host"])
def test_a_link_that_is_swapped_while_it_is_opened(made: Made, shared: Path, swapper: str) -> None:
    work, outside = shared / "work", shared / "outside"
    for folder in (work, outside):
        folder.mkdir()
        folder.chmod(0o777)
    secret = outside / "secret"
    secret.write_text("reached")
    box = made(mounts=[(work, "/work", "rw")])
    if swapper == "box":
        shown = box.exec(python(_SWAP, "/work", secret, 1), timeout_s=30).stdout.text()
    else:
        with subprocess.Popen(python(_SWAP, work, secret, 4), stdout=subprocess.PIPE, start_new_session=True) as host:
            opened = "import sys, time\nend = time.monotonic() + 1\nseen = ''\ntries = 0\n" + (
                "while time.monotonic() < end and not seen:\n  tries += 1\n"
                "  try: seen = open('/work/place/secret').read()\n  except OSError: pass\n"
                "print(tries > 10, seen or 'nothing')"
            )
            shown = said(box, opened)
            os.killpg(host.pid, signal.SIGKILL)
    assert shown.split() == ["True", "nothing"]

    for path in work.iterdir():
        path.unlink() if path.is_symlink() else subprocess.run(["rm", "-r", path], check=True)
    host = subprocess.run(python(_SWAP, work, secret, 20), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert host.stdout.split()[1] == "reached"


def test_there_is_no_kvm_and_no_door_to_the_sentry(made: Made) -> None:
    box = made()
    assert box.exec(["/bin/ls", "/dev/kvm", "/proc/kcore", "/dev/mem", "/proc/sentry"]).stdout == b""
    written = 'open("/proc/gvisor/checkpoint", "r+b", buffering=0).write(b"1")'
    assert box.exec(python(written)).exit.code != 0
    environment = box.exec(["/bin/sh", "-c", "cat /proc/gvisor/spec_environ 2>/dev/null; true"]).stdout
    assert set(environment.strip(b"\0").split(b"\0")) <= {b"", b"PATH=/usr/bin:/bin"}


def test_it_tells_of_another_kernel(made: Made) -> None:
    box = made()
    own = os.uname()
    texts = said(
        box,
        "import os\nprint(os.uname())\nfor name in ('version', 'cmdline', 'modules', 'filesystems', 'cgroups'):\n"
        "  try: print(open('/proc/' + name).read())\n  except OSError as error: print(error)",
    )
    assert own.release not in texts
    assert own.version not in texts
    assert box.exec(["/bin/uname", "-n"]).stdout.text().strip() != own.nodename
    assert Path("/proc/cmdline").read_text().strip() not in texts


def test_processes_of_the_host_have_no_number_there(made: Made) -> None:
    box = made()
    shown = {int(one) for one in box.exec(["/bin/ls", "/proc"]).stdout.split() if one.isdigit()}
    assert len(shown) < 8
    assert max(shown) < 100
    assert os.getpid() not in shown or os.getpid() < 100


def test_a_box_that_answers_nothing_any_more_ends(made: Made) -> None:
    """All of it is stopped, so that it neither hears a request to end nor reads one."""
    box = made()
    deaf = "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)"
    box.start(python(deaf))
    outer, carriers = box._box.pid, below(box._box.pid)
    for pid in carriers:
        os.kill(pid, signal.SIGSTOP)
    box.close()
    assert not [pid for pid in (outer, *carriers) if Path(f"/proc/{pid}").exists()]


_PORT = """
import errno, socket
try:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 80))
        print("bound")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize("user", [0, 1000])
def test_a_capability_is_one_of_the_sentry(made: Made, user: int) -> None:
    add = {"add": ["NET_BIND_SERVICE", "SYS_ADMIN"]}
    try:
        box = made(user=user, capabilities=add)
    except immure.SetupFailed as error:
        # gVisor of 2024 has no ambient set.
        assert user != 0
        assert "capabilities" in str(error)
        return
    wanted = 1 << 10 | 1 << 21
    status = dict(line.split(":", 1) for line in box.exec(["/bin/cat", "/proc/self/status"]).stdout.text().splitlines())
    assert int(status["CapEff"], 16) == wanted
    assert said(box, _PORT) == "bound"
    nothing_reached_on_the_host(box)

    assert box.evidence().awarded == "L3"


def nothing_reached_on_the_host(box: immure.Sandbox) -> None:
    """What carries it has its own user namespace, in which nobody is root on the host, and its own network."""
    for pid in below(box._box.pid):
        rows = [line.split() for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines()]
        assert not any(outside == "0" for _, outside, _ in rows)
    if os.geteuid() == 0:
        own = {kind: Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in ("user", "net", "mnt", "pid")}
        for pid in below(box._box.pid):
            assert not [kind for kind in own if Path(f"/proc/{pid}/ns/{kind}").stat().st_ino == own[kind]]


# With every right in the Sentry: more mounts, other flags of those that there are, and what then can be written.
_MOUNTING = """
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags=0, data=None):
    failed = libc.mount(source, target, kind, flags, data)
    return errno.errorcode[ctypes.get_errno()] if failed else "mounted"
os.mkdir("/tmp/place")
kinds = {kind: mount(b"none", b"/tmp/place", kind.encode()) for kind in ("tmpfs", "devtmpfs", "ext4", "erofs", "host")}
gofer = b"trans=fd,rfdno=%d,wfdno=%d,aname=/"
kinds |= {f"9p {number}": mount(b"none", b"/tmp/place", b"9p", 0, gofer % (number, number)) for number in range(16)}
for target in (b"/", b"/sealed"):
    for flags in (0x20, 0x1020):
        mount(None, target, None, flags)
written = []
for path in ("/usr/immure-was-here", "/etc/immure-was-here", "/sealed/text", "/.immure/init"):
    try:
        open(path, "a").write("changed")
        written.append(path)
    except OSError:
        pass
print(json.dumps([kinds, written]))
"""


def test_what_a_mounter_of_the_sentry_mounts_is_nothing_of_the_host(made: Made, shared: Path) -> None:
    sealed = shared / "sealed"
    sealed.mkdir()
    (sealed / "text").write_text("original")
    (sealed / "text").chmod(0o666)
    profile = json.loads(preset_text("default"))
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in ("mount", "umount2")]
    profile["syscalls"].append({"names": ["mount", "umount2"], "action": "SCMP_ACT_ALLOW"})
    path = shared / "profile.json"
    path.write_text(json.dumps(profile))
    rights = {"add": ["SYS_ADMIN", "DAC_OVERRIDE", "MKNOD", "SYS_RAWIO", "NET_ADMIN", "NET_RAW", "SYS_PTRACE"]}
    box = made(user=0, capabilities=rights, seccomp=str(path), mounts=[(sealed, "/sealed", "ro")])
    assert box.evidence().awarded == "L3"
    kinds, written = json.loads(said(box, _MOUNTING, workdir="/tmp"))
    if said(box, "print(open('/proc/self/uid_map').read())").split() == ["0", "0", "4294967295"]:
        # The control. Where the caller has one id, it is in a namespace that owns no mounts.
        assert kinds["tmpfs"] == "mounted"
    assert [kind for kind, answer in kinds.items() if answer == "mounted" and kind not in ("tmpfs", "devtmpfs")] == []
    assert written == []
    assert (sealed / "text").read_text() == "original"
    nothing_reached_on_the_host(box)


_END_IT = """
import ctypes, os
ends = {"/proc/sysrq-trigger": "c", "/proc/sys/kernel/hostname": "taken", "/proc/1/oom_score_adj": "1000"}
for path, text in ends.items():
    try:
        open(path, "w").write(text)
    except OSError:
        pass
libc = ctypes.CDLL(None)
libc.ptrace(0x4206, 1, 0, 0)
os.kill(1, 9)
"""


def test_what_its_root_ends_is_its_own_box(made: Made) -> None:
    before = os.uname()
    box = made(user=0, capabilities={"add": ["KILL", "SYS_PTRACE", "SYS_BOOT", "SYS_ADMIN", "DAC_OVERRIDE"]})
    neighbour = made()
    try:
        box.exec(python(_END_IT), timeout_s=30)
    except immure.BoxError:
        pass
    assert os.uname() == before
    assert neighbour.exec(["/bin/true"]).ok


def test_a_file_that_root_makes_is_the_callers(made: Made, shared: Path) -> None:
    """The control of all that is denied in a mount: what may be made there is made, and its owner can use it."""
    box = made(mounts=[(shared, "/work", "rw")])
    box.exec(["/bin/sh", "-c", "cd /work && echo text > file && mkdir folder && ln -s file link && ln file hard"])
    owner = shared.stat().st_uid
    assert {path.name: path.lstat().st_uid for path in shared.iterdir()} == dict.fromkeys(
        ("file", "folder", "link", "hard"), owner
    )
    assert (shared / "file").read_text() == "text\n"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that every user of the host reaches."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return folder
