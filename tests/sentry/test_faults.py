"""What goes wrong with runsc, a Sentry, or who has a box: each has its own error, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import immure.runtimes.gvisor.box as gvisor
from immure import BoxError, BoxLost, LevelNotReached, RuntimeUnavailable, Sandbox, SetupFailed, run
from immure.engine.prepare import host_facts
from immure.host.tree import below
from runscs import runsc_of, using

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60)]

#: Says that it is a runsc, and does what is put in for the rest.
PRETENDS = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {{
    if (count == 2 && !strcmp(words[1], "--version")) {{ puts("runsc version {version}"); return 0; }}
    {rest}
    return 0;
}}
"""


@pytest.fixture
def pretending(tmp_path: Path) -> Callable[..., Path]:
    def build(rest: str = "", *, version: str = "release-20260101.0", static: bool = True) -> Path:
        source, program = tmp_path / "runsc.c", tmp_path / "runsc"
        source.write_text(PRETENDS.format(version=version, rest=rest))
        subprocess.run(["gcc", *(["-static"] if static else []), "-o", program, source], check=True)
        tmp_path.chmod(0o755)
        return program

    return build


class TestPrograms:
    def test_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("IMMURE_RUNSC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(RuntimeUnavailable, match="none on PATH") as caught:
            run(["true"], level="L3")
        assert "IMMURE_RUNSC" in str(caught.value.hint)

    def test_on_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("IMMURE_RUNSC", raising=False)
        monkeypatch.setenv("PATH", f"{runsc_of('newest').parent}:{os.environ['PATH']}")
        assert run(["true"], level="L3").ok

    def test_named_and_not_there(self, tmp_path: Path) -> None:
        with using(tmp_path / "none"), pytest.raises(RuntimeUnavailable, match="No such file"):
            run(["true"], level="L3")

    def test_not_to_be_executed(self, tmp_path: Path) -> None:
        (tmp_path / "runsc").touch(0o644)
        with using(tmp_path / "runsc"), pytest.raises(RuntimeUnavailable, match="can't be used"):
            run(["true"], level="L3")

    def test_another_program(self) -> None:
        with using("/bin/sh"), pytest.raises(RuntimeUnavailable, match="can't be used"):
            run(["true"], level="L3")

    def test_a_script(self, tmp_path: Path) -> None:
        script = tmp_path / "runsc"
        script.write_text("#!/bin/sh\necho runsc version release-20260101.0\n")
        script.chmod(0o755)
        with using(script), pytest.raises(RuntimeUnavailable, match="no program of this machine"):
            run(["true"], level="L3")

    def test_too_old(self, pretending: Callable[..., Path]) -> None:
        with using(pretending(version="release-20230102.0")), pytest.raises(RuntimeUnavailable, match="20230102"):
            run(["true"], level="L3")

    def test_a_dynamic_build(self, pretending: Callable[..., Path]) -> None:
        with using(pretending(static=False)), pytest.raises(RuntimeUnavailable, match="dynamically") as caught:
            run(["true"], level="L3")
        assert "CGO_ENABLED=0" in str(caught.value.hint)

    def test_one_that_gives_up(self, pretending: Callable[..., Path]) -> None:
        program = pretending('fputs("first\\nthe last word\\n", stderr); return 1;')
        with using(program), pytest.raises(SetupFailed, match="the last word"):
            run(["true"], level="L3")

    def test_one_that_hangs(self, pretending: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gvisor, "START_S", 0.5)
        with using(pretending("pause();")), pytest.raises(BoxError, match=r"does not answer|has ended"):
            run(["true"], level="L3")

    def test_one_that_talks_nonsense(self, pretending: Callable[..., Path]) -> None:
        program = pretending('for (int i = 0; i < 100000; i++) write(1, "nonsense", 8); pause();')
        with using(program), pytest.raises(BoxError):
            run(["true"], level="L3")

    def test_one_that_only_pretends(self, pretending: Callable[..., Path]) -> None:
        """Our own init, carried by no Sentry: it says all that it should, and the host sees what it is."""
        program = pretending(
            'for (int i = 1; i < count; i++) if (!strcmp(words[i], "run"))'
            ' execl("/rootfs/.immure/init", "init", "guest", "0", "1", (char *)0);'
        )
        # With one id it does not come so far: this host's kernel does not map a second one, as the Sentry's would.
        refusals = {"ranges": (LevelNotReached, r"measured at L[012], below L3"), "single": (SetupFailed, "identity")}
        refusal, words = refusals[host_facts().ids.kind]
        with using(program), pytest.raises(refusal, match=words):
            run(["true"], level="L3")


def sentries(box: Sandbox, word: bytes) -> list[int]:
    found: list[int] = []
    for pid in below(box._box.pid):
        # What runs beside a Sentry may have ended by now.
        with suppress(FileNotFoundError, ProcessLookupError):
            if word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


class TestKilled:
    @pytest.mark.parametrize("which", [b"boot", b"gofer"])
    def test_a_part_of_it(self, runsc: Path, which: bytes) -> None:
        with Sandbox(level="L3") as other, Sandbox(level="L3") as box:
            process = box.start(["sleep", "300"])
            (pid,) = sentries(box, which)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(BoxLost):
                process.wait()
            with pytest.raises(BoxLost):
                while True:
                    box.exec(["cat", "/etc/passwd"])
            assert box.state == "failed"
            # Others see nothing of it.
            assert other.exec(["echo", "here"]).stdout == b"here\n"

    def test_a_gofer_that_its_sentry_does_not_miss(self, runsc: Path) -> None:
        """One that stands still notices nothing: the box is lost all the same."""
        with Sandbox(level="L3") as box:
            process = box.start(["sleep", "300"])
            (sentry,), (gofer,) = sentries(box, b"boot"), sentries(box, b"gofer")
            os.kill(sentry, signal.SIGSTOP)
            os.kill(gofer, signal.SIGKILL)
            with pytest.raises(BoxLost, match="gofer"):
                process.wait()
            assert box.state == "failed"

    def test_all_of_it_goes_with_the_box(self, runsc: Path) -> None:
        box = Sandbox(level="L3")
        box.exec(["/bin/sh", "-c", "setsid sleep 300 & exit 0"])
        pids = below(box._box.pid)
        fds = [os.pidfd_open(pid) for pid in pids]
        assert len(fds) > 3
        box.close()
        for fd in fds:
            with pytest.raises(ProcessLookupError):
                signal.pidfd_send_signal(fd, 0)
            os.close(fd)

    def test_a_command_under_a_kill(self, runsc: Path) -> None:
        with Sandbox(level="L3") as box:
            process = box.start(["sleep", "300"])
            box.kill()
            with pytest.raises(BoxLost):
                process.wait()
            assert box.state == "stopped"


class TestMemory:
    @pytest.fixture(autouse=True)
    def limited(self) -> None:
        if not any("memory" in one.controllers for one in host_facts().cgroups):
            pytest.skip("host: no cgroup of memory can be written")

    HOG = ("/usr/bin/python3", "-ISc", "x = bytearray(600 << 20)")

    def test_a_hog_ends_its_box_alone(self, runsc: Path) -> None:
        assert run(self.HOG, level="L3", memory_mib=128).exit.kind == "oom"
        with Sandbox(level="L3") as other, Sandbox(level="L3", memory_mib=128) as box:
            assert box.exec(self.HOG).exit.kind == "oom"
            with pytest.raises(BoxLost):
                box.exec(["true"])
            assert other.exec(["true"]).ok

    def test_what_fits_goes_on(self, runsc: Path) -> None:
        assert run(["/usr/bin/python3", "-ISc", "x = bytearray(60 << 20)"], level="L3", memory_mib=256).ok


class TestTime:
    def test_a_command_has_its_time(self, runsc: Path) -> None:
        with Sandbox(level="L3") as box:
            assert box.exec(["sleep", "300"], timeout_s=0.3).exit.kind == "timeout"
            assert box.exec(["true"]).ok

    def test_a_sentry_that_stands_still(self, newest: Path) -> None:
        """Nobody waits longer than was asked for."""
        with Sandbox(level="L3") as box:
            (pid,) = sentries(box, b"boot")
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            try:
                assert box.exec(["true"], timeout_s=0.5).exit.kind == "timeout"
            except BoxLost:
                pass
            assert time.monotonic() - began < 20
