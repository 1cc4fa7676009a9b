"""What a command can do to its standard streams, and what its caller sees of that: no more than a deadline."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from immure import AsyncSandbox, BoxLost, Result, Sandbox, run
from immure.engine import prepare
from immure.plan import filters
from immure.policy.seccomp import ABIS, guard_profile, numbers

from .command_line import CommandLine, python
from .processes import eventually

pytestmark = pytest.mark.rootless

#: Writes, and takes back what nobody has read yet; at last it does so once more, and is quiet.
THIEF = """
import os, random, time
pipe = os.open('/proc/self/fd/1', os.O_RDONLY | os.O_NONBLOCK)
def steal():
    os.write(1, b'x')
    try:
        os.read(pipe, 1)
    except BlockingIOError:
        return 0
    return 1
stolen = 0
for _ in range(200):
    stolen += steal()
    time.sleep(random.uniform(0, 0.0005))
os.write(2, b'%d' % stolen)
steal()
time.sleep(300)
"""
#: So many that some of them are quick enough.
THIEVES, TIMEOUT_S = 16, 2.0


def check_thieves(results: list[object]) -> None:
    assert [one.exit.kind for one in results] == ["timeout"] * THIEVES  # type: ignore[attr-defined]
    assert sum(int(one.stderr) for one in results) > 0, "the control: something was stolen"  # type: ignore[attr-defined]


def test_a_command_that_takes_its_output_back() -> None:
    with Sandbox() as box:
        results: list[object] = []
        threads = [
            threading.Thread(target=lambda: results.append(box.exec(python(THIEF), timeout_s=TIMEOUT_S)), daemon=True)
            for _ in range(THIEVES)
        ]
        for thread in threads:
            thread.start()
        try:
            assert eventually(lambda: len(results) == THIEVES, within=20), f"{THIEVES - len(results)} wait for ever"
        finally:
            box.close()
        check_thieves(results)


def test_a_command_that_takes_its_output_back_from_a_loop() -> None:
    """The loop goes on for everybody else."""
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    async def main() -> list[object]:
        async with AsyncSandbox() as box:
            ticking = asyncio.create_task(tick())
            results = await asyncio.gather(
                *(box.exec(python(THIEF), timeout_s=TIMEOUT_S) for _ in range(THIEVES // 2)),
                *(watched(box) for _ in range(THIEVES // 2)),
            )
            ticking.cancel()
            return list(results)

    async def watched(box: AsyncSandbox) -> object:
        async with await box.start(python(THIEF), timeout_s=TIMEOUT_S) as process:
            await process.stdout.read()
            return await process.wait()

    check_thieves(asyncio.run(main()))
    assert turns > 20


#: Holds the lock of its output's pipe, for as long as nobody types into its terminal.
LOCK = "import os, time; ours, theirs = os.openpty(); os.write(1, b'x'); "
CALLS = {"splice": "os.splice(ours, 1, 4096)", "sendfile": "os.sendfile(1, ours, None, 4096)"}
SPLICE = LOCK + CALLS["splice"]
LOCKS = {
    "itself": SPLICE,
    "what it leaves behind": f"import os, time\nif os.fork() == 0:\n os.setsid()\n {SPLICE}\ntime.sleep(300)",
}


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Boxes whose guard lets those calls through. Their filters go into no cache that others use."""
    guard = guard_profile()
    rules = tuple(rule for rule in guard.rules if "splice" not in rule.names)
    assert len(rules) == len(guard.rules) - 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(filters, "guard_profile", lambda: msgspec.structs.replace(guard, syscalls=rules))
    monkeypatch.setattr(prepare, "preset_filters", lambda *_, **__: None)


#: Nobody else's launch is like it.
ALONE = {"UNGUARDED": "1"}


@pytest.mark.parametrize("call", CALLS)
def test_the_lock_of_an_output_can_not_be_held(call: str) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), subprocess.Popen(python(LOCK + CALLS[call]), stdout=writer) as holder:
        os.close(writer)
        assert eventually(lambda: call_of(holder.pid) == numbers(ABIS[os.uname().machine])[call])
        with subprocess.Popen(["cat"], stdin=reader, stdout=subprocess.DEVNULL) as held:
            assert eventually(lambda: state_of(held.pid) == "D"), "the control: outside it is"
            holder.kill()
    with Sandbox() as box:
        result = box.exec(python(LOCK + CALLS[call]))
    assert (result.exit.code, result.stdout) == (1, b"x")
    assert b"[Errno 22]" in result.stderr


def call_of(pid: int) -> int | None:
    """The number of the system call that a process is in."""
    word = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    return int(word) if word.isdecimal() else None


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def by_exec(argv: Sequence[str]) -> Result:
    with Sandbox(env=ALONE) as box:
        return box.exec(argv, timeout_s=1)


def by_wait(argv: Sequence[str]) -> Result:
    with Sandbox(env=ALONE) as box, box.start(argv, timeout_s=1) as process:
        return process.wait()


def by_run(argv: Sequence[str]) -> Result:
    return run(argv, timeout_s=1, env=ALONE)


def in_a_loop(argv: Sequence[str]) -> Result:
    async def main() -> Result:
        async with AsyncSandbox(env=ALONE) as box:
            return await box.exec(argv, timeout_s=1)

    return asyncio.run(main())


def started_in_a_loop(argv: Sequence[str]) -> Result:
    async def main() -> Result:
        async with AsyncSandbox(env=ALONE) as box, await box.start(argv, timeout_s=1) as process:
            await process.stdout.read()
            return await process.wait()

    return asyncio.run(main())


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize("who", LOCKS)
@pytest.mark.parametrize("by", [by_exec, by_wait, by_run, in_a_loop, started_in_a_loop])
def test_a_command_that_locks_its_output(by: Callable[[Sequence[str]], Result], who: str) -> None:
    """Whoever reads or closes the pipe meanwhile waits in the kernel, where no signal reaches it.

    Without the guard, which does not let it come to that: what nobody has thought of yet may do the same.
    """
    outcome: list[str] = []

    def work() -> None:
        try:
            outcome.append(by(python(LOCKS[who])).exit.kind)
        except BoxLost:
            outcome.append("the box was ended")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30)
    assert outcome in (["timeout"], ["the box was ended"]), "it waits for ever"


def test_input_that_is_not_taken_holds_up_no_deadline(cli: CommandLine) -> None:
    """It is pumped, since a socket never enters a box; the second part finds room in the pipe, but not enough."""
    ours, theirs = socket.socketpair()
    with ours, theirs, cli.start("-i", "--timeout", "2", "--", "sleep", "300", stdin=theirs) as process:
        for _ in range(2):
            ours.sendall(bytes(40 << 10))
            time.sleep(0.5)
        assert eventually(lambda: process.poll() is not None, within=20)
        assert process.returncode == 124
