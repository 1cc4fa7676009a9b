"""Files and folders: mounted, not mounted, on stdin, or left open by mistake."""

from __future__ import annotations

import ctypes
import os
import pwd
import secrets
import shlex
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from security.calls import AT_FDCWD, call
from security.scenes import Stage, scene

# Every box has mounts there by itself, so that they tell nothing about the host.
_OWN_MOUNT_POINTS = ("/proc", "/dev", "/tmp", "/usr")


@scene
def workspace(stage: Stage) -> Iterator[None]:
    """A writable mount, and next to it on the host a secret that anyone may read."""
    area = stage.new_folder("area")
    work = stage.new_folder("area/work")
    secret = area / "secret"
    secret.write_text(secrets.token_hex())
    secret.chmod(0o666)
    stage.mount("work", work, "/work", "rw")
    stage.give(secret=str(secret))
    stage.checks.append(lambda: _assert_harmless(work))
    try:
        yield
    finally:
        # The folders stay: a box that has them goes on.
        secret.unlink(missing_ok=True)
        _empty(work)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _assert_harmless(folder: Path) -> None:
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        assert not mode & (stat.S_ISUID | stat.S_ISGID), f"{stat.filemode(mode)} {path.name} was left on the host"
        assert not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)), f"the device {path.name} was left on the host"
        assert "security.capability" not in os.listxattr(path, follow_symlinks=False)


@scene
def host_symlink(stage: Stage) -> Iterator[None]:
    """A link in the workspace that the host made, to a file outside of it."""
    Path(stage.outside["work"], "symlink").symlink_to(stage.outside["secret"])
    stage.give_each("symlink", inside="/work/symlink", outside=f"{stage.outside['work']}/symlink")
    yield


@scene
def file_handle(stage: Stage) -> Iterator[None]:
    """The handle of the secret, as name_to_handle_at gives it: `type:bytes`."""
    room = 128
    handle = ctypes.create_string_buffer(room.to_bytes(4, "little"), 8 + room)
    call("name_to_handle_at", AT_FDCWD, stage.outside["secret"].encode(), handle, (ctypes.c_int * 1)(), 0)
    size, kind = (
        int.from_bytes(handle.raw[:4], "little"),
        int.from_bytes(handle.raw[4:8], "little", signed=True),
    )
    stage.give(handle=f"{kind}:{handle.raw[8 : 8 + size].hex()}")
    yield


@scene
def sealed(stage: Stage) -> Iterator[None]:
    """A read-only mount. The control has the same folder, writable, or bound read-only where it may mount."""
    folder = stage.new_folder("sealed")
    (folder / "text").write_text("original")
    (folder / "other").write_text("other")
    stage.mount("sealed", folder, "/sealed", "ro")
    path = shlex.quote(str(folder))
    stage.prelude.append(f"mount --bind {path} {path} && mount -o remount,bind,ro {path}")
    stage.checks.append(lambda: _assert_unchanged(folder))
    yield


def _assert_unchanged(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["other", "text"]
    assert (folder / "text").read_text() == "original"
    assert (folder / "text").stat().st_mtime > 0


@scene
def base_folders(stage: Stage) -> Iterator[None]:
    """Folders of the image that nobody may write to."""
    image = ["/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/proc", "/dev"]
    stage.give_each("folders", inside=image, outside=[str(stage.new_folder("base"))])
    stage.checks.append(lambda: _assert_absent(image, "immure-was-here"))
    yield


def _assert_absent(folders: list[str], name: str) -> None:
    assert not [folder for folder in folders if Path(folder, name).exists()]


@scene
def scratch(stage: Stage) -> Iterator[None]:
    """Private writable space; a mount point where the control may mount."""
    stage.give_each("scratch", inside="/tmp", outside=str(stage.new_folder("scratch")))
    yield


@scene
def device_folder(stage: Stage) -> Iterator[None]:
    stage.give_each("folder", inside="/dev", outside=str(stage.new_folder("devices")))
    yield


@scene
def stdin_file(stage: Stage) -> Iterator[None]:
    """A file on stdin, open for reading, that everyone may write to, with a neighbour."""
    file = stage.new_folder("input") / "file"
    file.write_text("as it was")
    file.chmod(0o666)
    file.with_name("neighbour").write_text(secrets.token_hex())
    stage.give(neighbour="neighbour")
    stage.stdin = os.open(file, os.O_RDONLY)
    stage.checks.append(lambda: _assert_text(file, "as it was"))
    try:
        yield
    finally:
        os.close(stage.stdin)


def _assert_text(file: Path, text: str) -> None:
    assert file.read_text() == text


@scene
def stdin_directory(stage: Stage) -> Iterator[None]:
    folder = stage.new_folder("input")
    folder.with_name("neighbour").write_text(secrets.token_hex())
    stage.give(neighbour="neighbour")
    stage.stdin = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    # Python doesn't start with a folder there.
    stage.redirect = "9<&0 </dev/null"
    try:
        yield
    finally:
        os.close(stage.stdin)


@scene
def leaky_descriptors(stage: Stage) -> Iterator[None]:
    """A file, a folder and a socket of the caller's that it forgot to close on exec."""
    forgotten = [os.open("/etc/passwd", os.O_RDONLY), os.open("/", os.O_RDONLY | os.O_DIRECTORY)]
    forgotten += [end.detach() for end in socket.socketpair()]
    for descriptor in forgotten:
        os.set_inheritable(descriptor, True)
    try:
        yield
    finally:
        for descriptor in forgotten:
            os.close(descriptor)


@scene
def host_mounts(stage: Stage) -> Iterator[None]:
    """Where the host has mounts and a box has none of its own."""
    points = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()} - {"/"}
    stage.give(points=[point for point in points if not point.startswith(_OWN_MOUNT_POINTS)])
    yield


@scene
def host_accounts(stage: Stage) -> Iterator[None]:
    """All accounts but those that a generated passwd may have."""
    stage.give(accounts=[account.pw_name for account in pwd.getpwall() if account.pw_name not in ("root", "nobody")])
    yield


@scene
def home(stage: Stage) -> Iterator[None]:
    """A file in the caller's home folder."""
    with tempfile.NamedTemporaryFile("w", dir=Path.home(), prefix=".immure-") as file:
        file.write(secrets.token_hex())
        file.flush()
        stage.give(file=file.name)
        yield


@scene
def environment(stage: Stage) -> Iterator[None]:
    name = f"IMMURE_SECRET_{secrets.token_hex(4)}".upper()
    os.environ[name] = secrets.token_hex()
    stage.give(variable=name)
    try:
        yield
    finally:
        del os.environ[name]


@scene
def masked(stage: Stage) -> Iterator[None]:
    """A file of /proc that has been covered."""
    stage.prelude.append("mount --bind /dev/null /proc/keys")
    stage.give(path="/proc/keys")
    yield


@scene
def planted_device(stage: Stage) -> Iterator[None]:
    """A mounted folder with a device in it; not in /tmp, which is `nodev` on some hosts."""
    with _folder_for_all() as folder:
        os.mknod(folder / "node", stat.S_IFCHR | 0o666, os.makedev(1, 11))
        (folder / "node").chmod(0o666)
        stage.mounts.append((str(folder), "/planted", "rw"))
        stage.give_each("device", inside="/planted/node", outside=str(folder / "node"))
        yield


@scene
def setuid_in_mount(stage: Stage) -> Iterator[None]:
    """A mounted folder with a setuid program of root's; not in /tmp, which is `nosuid` on some hosts."""
    with _folder_for_all() as folder:
        program = Path(shutil.copy("/usr/bin/cat", folder / "program"))
        program.chmod(0o4755)
        stage.mounts.append((str(folder), "/planted", "ro"))
        stage.give_each("program", inside="/planted/program", outside=str(program))
        yield


def _folder_for_all() -> tempfile.TemporaryDirectory[str]:
    return _Folder(dir="/var/tmp", prefix="immure-")


class _Folder(tempfile.TemporaryDirectory[str]):
    def __enter__(self) -> Path:  # type: ignore[override]
        path = Path(super().__enter__())
        path.chmod(0o755)
        return path


@scene
def setuid_of_the_image(stage: Stage) -> Iterator[None]:
    programs = [Path("/usr/bin", name) for name in ("su", "passwd", "mount", "newgrp", "chfn")]
    stage.give(program=str(next(program for program in programs if program.stat().st_mode & stat.S_ISUID)))
    yield


@scene
def programs(stage: Stage) -> Iterator[None]:
    """The compiled programs of `programs/`."""
    from security.build import built_programs

    stage.mount("programs", built_programs(), "/programs", "ro")
    yield
