"""Mounts that a machine writes to: what it has changed is brought back, and nothing else happens on the host."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from immure import AsyncSandbox, BoxLost, FileError, Sandbox, run
from immure.host.tree import below

pytestmark = pytest.mark.rootless


@pytest.fixture(autouse=True)
def named(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMURE_KERNEL", str(kernel))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "around/source"
    (place / "folder/deep").mkdir(parents=True)
    for name in ("kept", "changed", "gone", "folder/deep/old", "folder/old"):
        (place / name).write_text(f"{name}\n")
    (place / "link").symlink_to("kept")
    return place


@pytest.fixture
def spec(image: Path, source: Path) -> dict[str, Any]:
    return {
        "runtime": "qemu",
        "level": "L3",
        "image": str(image),
        "mounts": [(source, "/work", "rw")],
        "protections": {"landlock": "required"},
    }


def shown(root: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = f"-> {path.readlink()}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
    return found


def script(text: str) -> list[str]:
    return ["/bin/busybox", "sh", "-e", "-c", text]


class TestBroughtBack:
    def test_after_the_one_command(self, spec: dict[str, Any], source: Path) -> None:
        before = source.stat()
        done = run(
            script(
                "echo new > changed; busybox rm gone link; busybox rm -r folder; busybox mkdir folder;"
                "echo y > folder/new;"
                "busybox ln -s /etc/passwd out; busybox mkdir -p a/b; echo z > a/b/c; busybox chmod 750 a/b/c; exit 3"
            ),
            **spec,
        )
        assert done.exit.code == 3, done.stderr
        assert shown(source) == {
            "kept": "kept\n",
            "changed": "new\n",
            "folder": "/",
            "folder/new": "y\n",
            "out": "-> /etc/passwd",
            "a": "/",
            "a/b": "/",
            "a/b/c": "z\n",
        }
        assert (source / "a/b/c").stat().st_mode & 0o777 == 0o750
        assert {one.lstat().st_uid for one in source.rglob("*")} == {os.geteuid()}, "they are the caller's"
        assert (source.stat().st_ino, source.stat().st_mode) == (before.st_ino, before.st_mode)

    def test_when_the_box_is_closed(self, spec: dict[str, Any], source: Path) -> None:
        with Sandbox(**spec) as box:
            box.files.write("/work/made", b"made\n")
            (source / "by the host").write_text("stays\n")
            (source / "kept").write_text("changed here\n")
            (source / "changed").write_text("changed here\n")
            box.files.write("/work/changed", b"changed there\n")
            assert not (source / "made").exists()
            assert box.files.read("/work/kept") == b"kept\n", "neither sees the other"
        found = shown(source)
        assert (found["made"], found["by the host"]) == ("made\n", "stays\n")
        assert found["kept"] == "changed here\n", "the box has not changed it"
        assert found["changed"] == "changed there\n", "the box wins"

    def test_when_it_is_awaited(self, spec: dict[str, Any], source: Path) -> None:
        async def use() -> None:
            async with AsyncSandbox(**spec) as box:
                await box.exec(script("echo made > made"))

        asyncio.run(use())
        assert shown(source)["made"] == "made\n"

    def test_two_folders_and_one_twice(self, spec: dict[str, Any], source: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        mounts = [(source, "/work", "rw"), (other, "/tmp/other", "rw"), (source, "/read", "ro")]
        run(
            script("echo a > /work/a; echo b > /tmp/other/b; busybox cp /read/kept /tmp/other/c"),
            **{**spec, "mounts": mounts},
        )
        assert shown(other) == {"b": "b\n", "c": "kept\n"}
        assert shown(source)["a"] == "a\n"

    def test_a_box_that_is_kept(self, image: Path, source: Path) -> None:
        name = f"changes-{os.getpid()}"

        def command(*words: str) -> subprocess.CompletedProcess[str]:
            told = (sys.executable, "-m", "immure", *words)
            return subprocess.run(told, capture_output=True, text=True, check=False, timeout=120)

        options = ("--runtime", "qemu", "--level", "L3", "--image", str(image), "-v", f"{source}:/work:rw")
        try:
            assert command("run", "--keep", "--name", name, *options, "--", "/bin/touch", "first").returncode == 0
            assert command("exec", name, "--", "/bin/touch", "second").returncode == 0
            assert "first" not in shown(source)
        finally:
            ended = command("kill", name)
        assert ended.returncode == 0, ended.stderr
        assert {"first", "second"} <= set(shown(source))


class TestNothingElse:
    @pytest.fixture(autouse=True)
    def around(self, source: Path) -> Any:
        outside = source.parent / "outside"
        outside.mkdir()
        (outside / "file").write_text("outside\n")
        yield
        assert shown(outside) == {"file": "outside\n"}
        assert {one.name for one in source.parent.iterdir()} == {"source", "outside"}

    def test_a_box_that_is_lost_brings_nothing_back(self, spec: dict[str, Any], source: Path) -> None:
        before = shown(source)
        with Sandbox(**spec) as box:
            box.exec(script("echo made > made"))
            for pid in below(box._box.pid):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(BoxLost):
                box.exec(["/bin/true"])
        assert shown(source) == before

    def test_links_lead_nowhere(self, spec: dict[str, Any], source: Path) -> None:
        """Those that the box makes, and those that somebody makes here meanwhile."""
        with Sandbox(**spec) as box:
            box.exec(
                script("busybox rm -r folder; busybox ln -s ../outside folder; busybox mkdir new; echo x > new/file")
            )
            (source / "new").symlink_to("../outside")
        assert (source / "folder").readlink() == Path("../outside")
        assert run(script("echo through > folder/file"), **spec).exit.code != 0
        with Sandbox(**spec) as box:
            box.exec(script("busybox rm folder; busybox mkdir folder; echo mine > folder/file"))
        assert shown(source)["folder/file"] == "mine\n"

    @pytest.mark.parametrize(
        ("does", "have"),
        [
            ("echo > .wh.kept", "name: Invalid argument"),
            ("busybox dd if=/dev/zero of=large bs=1M count=1 seek=1000000", "more than"),
        ],
        ids=["a whiteout", "a size that is none"],
    )
    def test_what_can_not_be_told(self, spec: dict[str, Any], source: Path, does: str, have: str) -> None:
        before = shown(source)
        with pytest.raises(FileError, match="can't be had") as caught:
            run(script(f"echo made > made; {does}"), **spec, disk_mib=16)
        assert have in (caught.value.have or "")
        assert str(source) in caught.value.message
        assert shown(source) == before, "all of it or nothing"

    def test_what_the_box_s_user_can_not_read(self, spec: dict[str, Any], source: Path) -> None:
        with pytest.raises(FileError, match="can't be had") as caught, Sandbox(**spec) as box:
            box.exec(script("busybox chmod 777 ."))
            assert box.exec(script("umask 077; echo x > closed"), user=0).ok
        assert "Permission denied" in (caught.value.have or "")

    def test_it_writes_no_more_than_it_may(self, spec: dict[str, Any], source: Path) -> None:
        said = run(script("busybox dd if=/dev/zero of=large bs=1M count=20"), **spec, disk_mib=8)
        assert "No space left" in said.stderr.text()
        # As much as `df` shows, which may be somewhat more.
        assert 8 << 20 <= (source / "large").stat().st_size <= 10 << 20

    def test_sockets_and_pipes_stay(self, spec: dict[str, Any], source: Path) -> None:
        assert run(script("busybox mkfifo pipe; echo made > made"), **spec).ok
        assert "pipe" not in shown(source)
        assert shown(source)["made"] == "made\n"
