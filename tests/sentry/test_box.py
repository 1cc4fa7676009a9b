"""Boxes at L3: what they are, and what is measured of them."""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path

import pytest

from immure import (
    AsyncSandbox,
    Pool,
    ProtectionUnavailable,
    RuntimeUnavailable,
    Sandbox,
    SetupFailed,
    SpecError,
    run,
)
from immure.engine.kvm import kvm_facts
from immure.host.tree import below
from layouts import archive, archive_of, entry, layout_of
from machine.machines import make_image
from runscs import runsc_of, using

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60)]


class TestEvidence:
    def test_every_part_holds(self, runsc: Path) -> None:
        with Sandbox(level="L3") as box:
            evidence = box.evidence()
        assert (evidence.awarded, evidence.boundary, evidence.hardware) == ("L3", "user_kernel", False)
        assert [part for part in evidence.parts if not part.held] == []
        assert {"kernel.user_space", "files.mac", "syscalls.default_deny"} <= {part.part for part in evidence.parts}
        assert evidence.mac is not None
        assert evidence.mac.startswith("gvisor/")
        assert evidence.capped_by == ()
        # What is null has its true reason, and what was not read is not said to have been.
        assert (evidence.host.seccomp_sha256, "Sentry" in evidence.host.seccomp_why) == (None, True)
        (kernel,) = [part for part in evidence.parts if part.part == "kernel.user_space"]
        assert ("filters read back" in kernel.observed) == (os.geteuid() == 0)

    def test_another_kernel_answers(self, runsc: Path) -> None:
        result = run(["/bin/sh", "-c", "uname -v; cat /proc/version; ls /proc/sys/kernel/core_pattern"], level="L3")
        version, proc, *_ = result.stdout.text().splitlines()
        assert version != platform.version()
        assert version.removesuffix(" ") in proc
        assert result.level.awarded == "L3"

    def test_on_the_host_there_is_nothing_but_runsc(self, runsc: Path) -> None:
        with Sandbox(level="L3") as box:
            box.start(["sleep", "300"])
            programs = {str(Path(f"/proc/{pid}/exe").readlink()) for pid in below(box._box.pid)}
            assert programs == {"/runsc"}

    def test_more_than_the_level_is_not_asked_for(self, runsc: Path) -> None:
        """gVisor for a box that is content with less, too."""
        result = run(["uname", "-r"], level="L2", runtime="gvisor")
        assert result.runtime == "gvisor"
        assert (result.level.asked, result.level.awarded) == ("L2", "L3")

    def test_the_report_says_what_is_otherwise(self, runsc: Path) -> None:
        result = run(["true"], level="L3")
        got = {clause.clause: clause.got for clause in result.report}
        assert got["files.landlock"] == "approximated"
        assert got["limits.disk_mib"] == "stronger"


class TestWhatItHas:
    def test_mounts(self, runsc: Path, tmp_path: Path) -> None:
        folder, other = tmp_path / "folder", tmp_path / "other"
        folder.mkdir()
        other.mkdir()
        for place in (folder, other):
            (place / "f").write_bytes(b"content")
            (place / "f").chmod(0o600)
        mounts = [
            (str(folder), "/work", "rw"),
            (str(other), "/data/ro", "ro"),
            (str(other), "/tmp/inside", "ro"),
            (str(other / "f"), "/opt/file", "ro"),
            {"tmpfs": "/scratch", "size_mib": 3},
            {"tmpfs": "/work/own"},
        ]
        (folder / "own").mkdir()
        with Sandbox(level="L3", mounts=mounts) as box:
            for path in ("/work/f", "/data/ro/f", "/tmp/inside/f", "/opt/file"):
                assert box.files.read(path) == b"content"
            script = "echo new > /work/g; mkdir /work/d; ln -s g /work/l; echo x > /data/ro/g; echo y > /opt/file; pwd"
            result = box.exec(["/bin/sh", "-c", script])
            assert result.stdout == b"/work\n"
            assert result.stderr.count(b"Read-only file system") == 2
            assert box.exec(["/bin/sh", "-c", "head -c 4000000 /dev/zero > /scratch/big"]).exit.code != 0
            assert box.exec(["/bin/sh", "-c", "head -c 2000000 /dev/zero > /scratch/small; echo z > /work/own/z"]).ok
        assert (folder / "g").read_bytes() == b"new\n"
        owners = {path.lstat().st_uid for path in folder.iterdir()}
        assert owners == {os.geteuid()}
        assert list((folder / "own").iterdir()) == []

    def test_private_space_has_its_size(self, runsc: Path) -> None:
        with Sandbox(level="L3", disk_mib=40) as box:
            fill = "head -c {0} /dev/zero > {1}/x; stat -c %s {1}/x; rm {1}/x"
            sizes = [
                int(box.exec(["/bin/sh", "-c", fill.format(60 << 20, place)]).stdout) for place in ("/tmp", "/dev/shm")
            ]
            assert all(0 < size <= 40 << 20 for size in sizes)
            assert sum(sizes) <= 40 << 20

    def test_identity_environment_and_name(self, runsc: Path) -> None:
        with Sandbox(level="L3", user=1234, env={"A": "b"}, name="named") as box:
            script = "id -u; id -G; hostname; echo $A; echo $HOME; cat /proc/self/status"
            lines = box.exec(["/bin/sh", "-c", script]).stdout.text().splitlines()
            assert lines[:5] == ["1234", "1234", "named", "b", "/tmp"]
            assert "CapEff:\t0000000000000000" in lines
            assert "Seccomp:\t2" in lines

    def test_a_user_that_is_the_box_s_root(self, runsc: Path) -> None:
        with Sandbox(level="L3", user=0) as box:
            result = box.exec(["/bin/sh", "-c", "id -u; kill -9 1; kill -STOP 1; chown 5 /tmp"])
            assert result.stdout == b"0\n"
            assert result.stderr.count(b"kill: Operation not permitted") == 2
            # Where one id alone is mapped, there is no other to give it to.
            assert b"chown: changing ownership" in result.stderr
            # It is nobody to process 1, whatever its number.
            assert box.exec(["true"]).ok

    def test_the_sentry_of_2024_keeps_no_capabilities(self) -> None:
        with using(runsc_of("debian")), pytest.raises(SetupFailed, match="capabilities"):
            Sandbox(level="L3", capabilities={"add": ["NET_BIND_SERVICE"]})

    def test_capabilities_are_those_of_the_sentry(self, newest: Path) -> None:
        with Sandbox(level="L3", capabilities={"add": ["NET_BIND_SERVICE"]}) as box:
            program = "import socket; socket.socket().bind(('127.0.0.1', 80)); print('bound')"
            assert box.exec(["/usr/bin/python3", "-ISc", program]).stdout == b"bound\n"

    def test_processes_are_counted(self, runsc: Path) -> None:
        program = (
            "import os, time\n"
            "made = 0\n"
            "try:\n"
            " while made < 100:\n"
            "  if os.fork() == 0: time.sleep(60)\n"
            "  made += 1\n"
            "except BlockingIOError: pass\n"
            "print(made)"
        )
        with Sandbox(level="L3", pids=20, protections={"pids": "best_effort"}) as box:
            process = box.start(["/usr/bin/python3", "-ISc", program])
            assert 0 < int(process.stdout.readline()) <= 20
            process.kill()

    def test_loopback_and_nothing_else(self, runsc: Path) -> None:
        program = (
            "import socket\n"
            "server = socket.create_server(('127.0.0.1', 0))\n"
            "client = socket.create_connection(server.getsockname())\n"
            "server.accept()[0].sendall(b'echo')\n"
            "print(client.recv(4), [name for _, name in socket.if_nameindex()])\n"
        )
        assert run(["/usr/bin/python3", "-ISc", program], level="L3").stdout == b"b'echo' ['lo']\n"

    @pytest.mark.parametrize("platform_name", ["systrap", "ptrace"])
    def test_platforms(self, runsc: Path, platform_name: str) -> None:
        with Sandbox(level="L3", gvisor={"platform": platform_name}) as box:
            assert box.exec(["/bin/sh", "-c", "echo $((6 * 7))"]).stdout == b"42\n"
            assert box.level.awarded == "L3"

    def test_awaited_and_pooled(self, runsc: Path) -> None:
        async def main() -> None:
            async with AsyncSandbox(level="L3") as box:
                results = await asyncio.gather(*(box.exec(["echo", str(number)]) for number in range(20)))
                assert [result.stdout.text().strip() for result in results] == [str(number) for number in range(20)]

        asyncio.run(main())
        with Pool(level="L3", size=2) as pool, pool.claim() as box:
            assert box.exec(["true"]).ok


class TestImage:
    def test_a_folder_is_its_root(self, runsc: Path, tmp_path: Path) -> None:
        import shutil

        busybox = shutil.which("busybox")
        if busybox is None:
            pytest.skip("busybox-static is not installed")
        tmp_path.chmod(0o755)
        (tmp_path / "bin").mkdir()
        shutil.copy(busybox, tmp_path / "bin" / "busybox")
        (tmp_path / "bin" / "sh").symlink_to("busybox")
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "issue").write_text("of the image\n")
        with Sandbox(level="L3", image=str(tmp_path)) as box:
            script = "busybox cat /etc/issue; busybox ls /usr; echo x > /bin/new; busybox touch /tmp/x && echo own"
            result = box.exec(["/bin/sh", "-c", script])
            assert result.stdout == b"of the image\nown\n"
            assert box.level.awarded == "L3"


class TestRefused:
    def test_what_a_sentry_can_not_do(self, runsc: Path) -> None:
        with pytest.raises(SpecError, match="does not fit"):
            run(["true"], level="L3", memory_mib=32)
        with pytest.raises(ProtectionUnavailable, match=r"files\.landlock"):
            run(["true"], level="L3", protections={"landlock": "required"})
        with pytest.raises(SpecError, match="namespaces"):
            run(["true"], level="L1", runtime="gvisor", namespaces="none")
        with pytest.raises(SpecError, match="caps the level"):
            run(["true"], level="L3", network="host")
        with pytest.raises(RuntimeUnavailable, match="does not reach L3"):
            run(["true"], level="L3", runtime="process")
        with pytest.raises(RuntimeUnavailable, match="reaches L4"):
            run(["true"], level="L4")
        with pytest.raises(SpecError):
            run(["true"], level="L3", gvisor={"platform": "other"})

    def test_the_platform_kvm_without_hardware(self, runsc: Path) -> None:
        if kvm_facts().kind == "hardware":
            pytest.skip("host: this one has the hardware")
        with pytest.raises(RuntimeUnavailable, match="hardware"):
            run(["true"], level="L3", gvisor={"platform": "kvm"})

    def test_the_host_s_network_caps_it(self, newest: Path) -> None:
        result = run(["/bin/sh", "-c", "cat /proc/net/dev | wc -l"], level="L1", runtime="gvisor", network="host")
        assert (result.level.awarded, result.exit.code) == ("L1", 0)


def test_an_oci_layout(runsc: Path, tmp_path: Path) -> None:
    layers = (archive_of(make_image(tmp_path / "root")), archive(entry("etc/upper", b"above\n")))
    layout_of(tmp_path / "layout", *layers)
    result = run(["/bin/cat", "/etc/upper"], level="L3", image=str(tmp_path / "layout"), workdir="/")
    assert (result.stdout, result.runtime) == (b"above\n", "gvisor")
