"""Who owns what a box writes: on the host the source's owner, in the box the box's user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from immure import Sandbox, run

from .command_line import python, shell

OWNER = [(0, 0), (4321, 8765), (1000, 1000), (65_534, 65_534), (2_000_000_000, 2_000_000_001)]


@pytest.fixture(params=OWNER, ids=str)
def owned(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, tuple[int, int]]:
    owner: tuple[int, int] = request.param
    folder = tmp_path / "owned"
    folder.mkdir(mode=0o700)
    (folder / "file").write_text("content")
    (folder / "file").chmod(0o600)
    for path in (folder, folder / "file"):
        os.chown(path, *owner)
    return folder, owner


def owner_of(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


@pytest.mark.root
def test_what_a_box_writes_belongs_to_the_owner_of_the_source(owned: tuple[Path, tuple[int, int]]) -> None:
    folder, owner = owned
    script = shell(
        "cat /work/file; echo x > /work/new; mkdir /work/d; ln -s x /work/l; mkfifo /work/p; echo y >> /work/file"
    )
    result = run(script, mounts=[(folder, "/work", "rw")])
    assert (result.exit.code, result.stdout, result.stderr) == (0, b"content", b"")
    for name in ("new", "d", "l", "p", "file"):
        assert owner_of(folder / name) == owner, name


@pytest.mark.root
def test_the_owner_is_the_user_of_the_box(owned: tuple[Path, tuple[int, int]]) -> None:
    folder, _ = owned
    show = ["stat", "-c", "%u:%g", "/work", "/work/file"]
    assert run(show, mounts=[(folder, "/work", "ro")]).stdout == b"1000:1000\n" * 2
    assert run(show, mounts=[(folder, "/work", "ro")], user=7).stdout == b"7:7\n" * 2
    assert run(show, mounts=[(folder, "/work", "ro")], user=0).stdout == b"0:0\n" * 2


@pytest.mark.root
def test_other_users_of_the_box_can_not_write_as_anybody(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with Sandbox(mounts=[(folder, "/work", "rw")]) as box:
        result = box.exec(shell("echo x > /work/other"), user=33)
        assert not result.ok
        assert b"Value too large" in result.stderr, "EOVERFLOW: the id has no counterpart on the file system"
        assert box.exec(shell("echo x > /work/own")).ok
    assert [path.name for path in folder.iterdir()] == ["own"]


@pytest.mark.root
def test_files_of_others_keep_their_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, owner in (("own", 4321), ("other", 5555), ("host-root", 0)):
        (folder / name).write_text(name)
        (folder / name).chmod(0o600)
        os.chown(folder / name, owner, owner)
    os.chown(folder, 4321, 4321)
    mounts = [(folder, "/work", "rw")]
    assert run(["cat", "/work/own"], mounts=mounts).ok
    for name in ("other", "host-root"):
        assert not run(["cat", f"/work/{name}"], mounts=mounts).ok, name
        assert not run(["chmod", "644", f"/work/{name}"], mounts=mounts, user=0).ok, name
        assert not run(["chown", "1000", f"/work/{name}"], mounts=mounts, user=0).ok, name
    assert run(["stat", "-c", "%u", "/work/other"], mounts=mounts).stdout == b"65534\n"


@pytest.mark.root
def test_no_file_can_be_given_away(tmp_path: Path) -> None:
    program = python(
        "import os\n"
        "open('/work/f','w').close()\n"
        "for owner in {0, 1, 33, 1001, 65534} - {os.getuid()}:\n"
        "    try: os.chown('/work/f', owner, owner); print('given to', owner)\n"
        "    except OSError: pass"
    )
    folder = tmp_path / "own"
    folder.mkdir()
    os.chown(folder, 4321, 4321)
    for user in (0, 1000):
        assert run(program, mounts=[(folder, "/work", "rw")], user=user).stdout == b""
    assert owner_of(folder / "f") == (4321, 4321)


@pytest.mark.rootless
def test_setuid_and_setgid_files_can_not_be_planted(tmp_path: Path) -> None:
    program = python(
        "import os,ctypes\n"
        "os.chdir('/work')\n"
        "libc = ctypes.CDLL(None)\n"
        "for bits in (0o4755, 0o2755, 0o6755):\n"
        "    name = oct(bits)\n"
        "    open(name, 'w').close()\n"
        "    for how in (lambda: os.chmod(name, bits),\n"
        "                lambda: os.close(os.open('c'+name, os.O_CREAT|os.O_WRONLY, bits)),\n"
        "                lambda: os.mknod('n'+name, 0o100000|bits),\n"
        "                lambda: os.fchmod(os.open(name, os.O_RDONLY), bits),\n"
        "                lambda: os.mkdir('d'+name, bits)):\n"
        "        try: how()\n"
        "        except OSError: pass\n"
    )
    folder = tmp_path / "own"
    folder.mkdir()
    for user in (0, 1000):
        assert run(program, mounts=[(folder, "/work", "rw")], user=user).ok
    planted = [path.name for path in folder.iterdir() if path.is_file() and path.stat().st_mode & 0o6000]
    assert planted == []
    assert any(folder.iterdir()), "the control: plain files were made"


@pytest.mark.rootless
def test_a_plain_users_file_is_his_afterwards(tmp_path: Path) -> None:
    assert run(shell("echo x > /work/new"), mounts=[(tmp_path, "/work", "rw")]).ok
    assert (tmp_path / "new").stat().st_uid == os.geteuid()
