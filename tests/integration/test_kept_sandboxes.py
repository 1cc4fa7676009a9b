"""Kept boxes from Python: another process makes one, this one has it under its name, and it stays."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Literal

import pytest

from immure import PIPE, AsyncKeptSandbox, BoxError, BoxLost, ExecFailed, KeptSandbox, RuntimeUnavailable, SpecError
from runscs import runsc_of, using

from .command_line import CommandLine
from .kept_boxes import Kept, kept_boxes
from .processes import eventually

pytestmark = pytest.mark.rootless


@pytest.fixture
def kept(shared_cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """A keeper of this test's own, for this process too."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with kept_boxes(shared_cli.cache.parent, tmp_path) as one:
        yield one


@pytest.fixture
def box(kept: Kept) -> Iterator[KeptSandbox]:
    with KeptSandbox.make("desk") as made:
        yield made


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def test_a_box_outlives_the_process_that_made_it(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "told").write_text("of the host")
    program = f"""
from immure import KeptSandbox
with KeptSandbox.make("desk", mounts=[({str(tmp_path)!r}, "/work")], env={{"A": "b"}}) as box:
    box.files.write("/tmp/note", "made")
    print(box.id)
"""
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=kept.env)
    with KeptSandbox.attach("desk") as box:
        assert (box.name, box.id, box.state) == ("desk", made.stdout.strip(), "ready")
        assert box.exec(sh("cat /tmp/note /work/told; echo $A")).stdout == b"madeof the hostb\n"
        assert box.level.awarded == box.evidence().awarded == "L2"
    assert kept.ok("exec", "desk", "--", "cat", "/tmp/note") == b"made"


def test_leaving_it_ends_our_commands_and_not_the_box(box: KeptSandbox) -> None:
    process = box.start(["sleep", "1000"])
    box.close()
    box.close()
    assert box.state == "removed"
    with pytest.raises(BoxLost, match="closed"):
        box.exec(["true"])
    with pytest.raises(ValueError, match="closed"):
        process.wait(20)
    with KeptSandbox.attach("desk") as again:
        assert eventually(lambda: again.stats().processes == 0)
        assert again.exec(["true"]).ok


def test_verbs_are_those_of_a_sandbox(box: KeptSandbox, tmp_path: Path) -> None:
    process = box.start(["cat"], stdin=PIPE)
    assert process.stdin is not None
    process.stdin.write(b"typed")
    process.stdin.close()
    assert process.wait().stdout == b"typed"
    assert box.exec(["sleep", "50"], timeout_s=0.2).exit.kind == "timeout"
    assert box.exec(["id", "-u"], env={"A": "b"}, workdir="/usr", output_mib=1).stdout == b"1000\n"
    box.files.write("/tmp/a", b"x" * 100_000)
    box.files.download("/tmp/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x" * 100_000
    with pytest.raises(ExecFailed):
        box.exec(["no-such-command"])
    with pytest.raises(SpecError):
        box.exec("true")  # type: ignore[arg-type]
    with pytest.raises(RuntimeUnavailable, match="Sentry"):
        box.exec(["true"], denials=True)


def test_threads_and_other_processes_share_it(box: KeptSandbox, kept: Kept) -> None:
    said: list[bytes] = []

    def ask(number: int) -> None:
        said.append(box.exec(sh(f"echo {number}")).stdout)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    assert kept.ok("exec", "desk", "--", "echo", "beside") == b"beside\n"
    for thread in threads:
        thread.join()
    assert sorted(said) == sorted(f"{number}\n".encode() for number in range(20))


def test_detached_commands_and_their_log(box: KeptSandbox) -> None:
    first = box.detach(sh("echo $A; pwd"), env={"A": "one"}, workdir="/usr")
    second = box.detach(["sleep", "1000"])
    assert (first, second) == (1, 2)
    assert eventually(lambda: [one.stream for one in box.logs(1).entries][-1:] == ["ended"])
    assert box.logs(first).output() == b"one\n/usr\n"
    assert box.logs(first, tail=1).entries[0].text() == "exited 0"
    assert box.exec(["echo", "waited for"]).ok
    assert {one.command for one in box.logs().entries} == {1, 2}
    (info,) = KeptSandbox.all()
    assert info.command is not None
    assert (info.name, info.id, info.state, info.level, info.processes) == ("desk", box.id, "ready", "L2", 1)
    assert (info.command.number, info.command.argv, info.command.state) == (2, ("sleep", "1000"), "running")
    with pytest.raises(ExecFailed):
        box.detach(["no-such-command"])
    with pytest.raises(SpecError):
        box.detach([])


def is_refused(box: KeptSandbox) -> bool:
    """Whether all is refused that would have something run in it."""
    calls = (lambda: box.exec(["true"]), lambda: box.start(["true"]), lambda: box.start(["true"], pty=True),
             lambda: box.files.read("/etc/passwd"), lambda: box.detach(["true"]))  # fmt: skip
    for call in calls:
        with pytest.raises(BoxError, match="the box is paused"):
            call()
    return True


@pytest.mark.parametrize("level", ["L2", "L3"])
def test_a_pause_and_its_end_are_everybody_s(kept: Kept, level: Literal["L2", "L3"]) -> None:
    with using(runsc_of("newest")), KeptSandbox.make("desk", level=level) as box:
        with KeptSandbox.attach("desk") as before:
            for _ in range(2):
                assert before.exec(["true"]).ok
                box.pause()
                with KeptSandbox.attach("desk") as after:
                    for one in (box, before, after):
                        assert (one.paused, one.state, is_refused(one)) == (True, "paused", True)
                    assert kept.boxes()["desk"]["state"] == "paused"
                    assert kept.carry_out("exec", "desk", "--", "true").returncode == 125
                    before.resume()
                    for one in (box, before, after):
                        assert (one.paused, one.state, one.exec(["true"]).ok) == (False, "ready", True)
        box.kill()
        with pytest.raises(BoxLost):
            _ = box.paused


def test_kill_ends_it_for_everybody(box: KeptSandbox) -> None:
    with KeptSandbox.attach("desk") as other:
        under_way = other.start(["sleep", "1000"])
        box.kill()
        assert box.state == "stopped"
        with pytest.raises(BoxLost):
            under_way.wait(20)
        with pytest.raises(BoxLost):
            box.exec(["true"])
        assert other.state == "failed"
    assert KeptSandbox.all() == ()
    with pytest.raises(BoxLost, match=r"no box 'desk'|no box is kept"):
        KeptSandbox.attach("desk")


def test_names(box: KeptSandbox) -> None:
    with pytest.raises(SpecError, match="there is a box 'desk' already"):
        KeptSandbox.make("desk")
    with pytest.raises(SpecError):
        KeptSandbox.make("not/a name")
    with pytest.raises(BoxLost, match="no box 'chair'"):
        KeptSandbox.attach("chair")


def test_where_there_is_no_keeper(kept: Kept) -> None:
    assert KeptSandbox.all() == ()
    with pytest.raises(BoxLost, match="no box is kept"):
        KeptSandbox.attach("desk")
    assert kept.keepers() == []


def test_a_lost_keeper_is_told(box: KeptSandbox, kept: Kept) -> None:
    kept.kill_keeper()
    # The spawner sees it, and ends the box.
    assert eventually(lambda: box.state == "failed")
    with pytest.raises(BoxLost):
        box.exec(["true"])
    with pytest.raises(BoxLost):
        box.stats()
    # The next one starts another.
    with KeptSandbox.make("desk") as again:
        assert again.exec(["true"]).ok


def test_a_forked_child_is_refused(box: KeptSandbox) -> None:
    program = """
import os, sys
from immure import BoxLost, KeptSandbox
box = KeptSandbox.attach("desk")
if os.fork() == 0:
    try:
        box.exec(["true"])
    except BoxLost as error:
        os._exit(7 if "fork" in str(error) else 8)
    os._exit(9)
status = os.waitstatus_to_exitcode(os.wait()[1])
assert box.exec(["true"]).ok
sys.exit(status)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 7


@pytest.mark.root
def test_kills_for_memory_of_others_are_not_ours(kept: Kept) -> None:
    hog = [sys.executable, "-Sc", "bytearray(200 << 20)"]
    with KeptSandbox.make("desk", memory_mib=64, preset="python") as first:
        assert first.exec(hog).exit.kind == "oom"
        with KeptSandbox.attach("desk") as second:
            assert second.exec(["sh", "-c", "kill -9 $$"]).exit.kind == "signaled"


class TestAwaited:
    def test_verbs(self, kept: Kept) -> None:
        async def use() -> None:
            async with await AsyncKeptSandbox.make("desk") as box:
                results = await asyncio.gather(*(box.exec(["echo", str(number)]) for number in range(8)))
                assert [one.stdout for one in results] == [f"{number}\n".encode() for number in range(8)]
                process = await box.start(["cat"], stdin=b"in")
                assert (await process.wait()).stdout == b"in"
                await box.files.write("/tmp/a", "text")
                assert await box.files.read("/tmp/a") == b"text"
                number = await box.detach(["echo", "late"])
                while [one.stream for one in (await box.logs(number)).entries][-1:] != ["ended"]:
                    await asyncio.sleep(0.01)
                assert (await box.logs(number)).output() == b"late\n"
                assert (await box.stats()).processes == 0
                await box.pause()
                with pytest.raises(BoxError, match="paused"):
                    await box.exec(["true"])
                await box.resume()
            async with await AsyncKeptSandbox.attach("desk") as box:
                assert [one.id for one in await AsyncKeptSandbox.all()] == [box.id]
                with pytest.raises(RuntimeUnavailable):
                    await box.exec(["true"], denials=True)
                with pytest.raises(RuntimeUnavailable):
                    await box.trace()
                box.kill()
            assert await AsyncKeptSandbox.all() == ()

        asyncio.run(use())

    def test_cancelling_ends_the_command_and_not_the_box(self, kept: Kept) -> None:
        async def use() -> None:
            async with await AsyncKeptSandbox.make("desk") as box:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await box.exec(["sleep", "1000"])
                began = monotonic()
                while (await box.stats()).processes:
                    assert monotonic() < began + 20
                    await asyncio.sleep(0.01)
                assert (await box.exec(["true"])).ok

        asyncio.run(use())

    def test_a_box_whose_making_is_not_waited_for_is_found(self, kept: Kept) -> None:
        async def use() -> None:
            making = asyncio.ensure_future(AsyncKeptSandbox.make("desk"))
            await asyncio.sleep(0)
            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making
            for _ in range(1000):
                if [one.name for one in await AsyncKeptSandbox.all()] == ["desk"]:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("there is no such box")

        asyncio.run(use())


def test_at_l3_it_has_files_denials_and_a_trace(kept: Kept) -> None:
    with using(runsc_of("newest")), KeptSandbox.make("deep", level="L3") as box:
        box.files.write("/tmp/a", "b")
        result = box.exec(sh("cat /tmp/a; echo x > /usr/nothing"), denials=True)
        assert result.stdout == b"b"
        assert [one.target for one in result.denials] == ["/usr/nothing"]
        with box.trace(["sentry/execve"]) as events:
            assert box.exec(["true"]).ok
            assert next(iter(events)).point == "sentry/execve"
