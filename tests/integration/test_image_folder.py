"""`image` as a folder with a root file system: it is what the box has, and the host is what it hasn't."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from immure import ExecFailed, Result, Sandbox, SetupFailed, SpecError, run
from immure.engine.prepare import prepare
from immure.plan.launch import Launch

from .command_line import CommandLine, shell
from .images import make_root

pytestmark = pytest.mark.rootless

SECRET = "of the host alone"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "root")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder of the host that everybody may read, with a file in it."""
    place = tmp_path / "secret"
    place.mkdir()
    (place / "file").write_text(SECRET)
    return place


def output(root: Path, script: str, **keywords: Any) -> str:
    """What a script wrote in a box of the image, to both streams."""
    result: Result = run(shell(f"exec 2>&1; {script}"), image=root, **keywords)
    return result.stdout.text()


# What it shows.


def test_its_commands_run_on_its_files(root: Path) -> None:
    assert output(root, "cat /etc/passwd /etc/os-release /readme") == (
        "root:x:0:0:root of the image:/:/bin/sh\nID=made-for-a-test\nat the top\n"
    )
    assert output(root, "id -u; pwd; echo $PATH $HOME") == (
        "1000\n/tmp\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /tmp\n"
    )
    assert run(["/sbin/true"], image=root).ok, "by a link of its root"


def test_the_level_is_reached(root: Path) -> None:
    result = run(["true"], image=root)
    assert (str(result.level.asked), str(result.level.awarded)) == ("L2", "L2")
    with Sandbox(image=root) as box:
        assert box.evidence().awarded == "L2"


def test_what_boxes_have_of_their_own_is_not_taken(root: Path) -> None:
    for name in ("proc", "dev", "sys", "tmp", ".immure"):
        (root / name).mkdir()
        (root / name / "planted").write_text("x")
    os.mkfifo(root / "fifo")
    names = output(root, "ls -A /").split()
    assert {"proc", "dev", "tmp", ".immure", "bin", "etc", "home", "run", "srv", "root", "mnt"} <= set(names)
    assert not {"sys", "fifo"} & set(names)
    assert output(root, "for one in proc dev tmp .immure; do ls -A /$one; done | cat").count("planted") == 0
    assert output(root, "echo x > /dev/null && echo $(cat /proc/self/comm)") == "cat\n"


def test_nothing_is_added_to_its_etc(root: Path) -> None:
    assert output(root, "ls /etc") == "os-release\npasswd\n"


def test_an_empty_folder_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExecFailed) as caught:
        run(["/bin/sh"], image=tmp_path / "empty")
    assert caught.value.exit_status == 127
    result = run(["/bin/busybox", "ls", "/"], image=tmp_path / "empty", mounts=[("/bin/busybox", "/bin/busybox")])
    assert {"bin", "dev", "etc", "proc", "tmp"} <= set(result.stdout.text().split())


def test_a_tree_with_a_box_for_each_command(root: Path) -> None:
    with Sandbox(image=root) as box:
        box.files.write("/tmp/a", b"from the host")
        assert box.exec(["cat", "/tmp/a"]).stdout == b"from the host"
        assert box.files.read("/etc/os-release") == b"ID=made-for-a-test\n"


# What of the host is not there.


def test_the_hosts_programs_are_not_there(root: Path, cli: CommandLine) -> None:
    assert Path("/usr/bin/env").exists(), "the control"
    with pytest.raises(ExecFailed) as caught:
        run(["/usr/bin/env"], image=root)
    assert caught.value.exit_status == 127
    assert str(root) in str(caught.value.hint)
    ended = cli.run("--image", root, "--", "/usr/bin/env")
    assert (ended.returncode, ended.stdout) == (127, b"")
    assert cli.run("--image", root, "--", "/bin/env").returncode == 0, "the control"


def test_a_link_at_the_top_leads_nowhere_on_the_host(root: Path, secret: Path) -> None:
    (root / "file").symlink_to(secret / "file")
    (root / "folder").symlink_to(secret)
    (root / "up").symlink_to("../" * 20 + str(secret).lstrip("/"))
    assert (root / "file").read_text() == (root / "up" / "file").read_text() == SECRET, "the control"
    seen = output(root, "cat /file /folder/file /up/file; ls /folder /up; readlink /file")
    assert SECRET not in seen
    assert seen.count("No such file") == 5
    assert seen.endswith(f"{secret}/file\n"), "the link itself is as it was"


@pytest.mark.parametrize(
    "links",
    [
        {"etc": "/etc"},
        {"usr": "../../.."},
        {"etc": "/proc/1/root/etc", "usr": "/proc/self/root/.."},
        {"home": "/", "run": "..", "srv": "."},
        {"etc": "etc", "var": "opt", "opt": "var"},
    ],
    ids=str,
)
def test_an_image_whose_folders_are_links_shows_nothing_of_the_host(
    links: dict[str, str], root: Path, secret: Path
) -> None:
    for name, target in links.items():
        if (root / name).exists():
            shutil.rmtree(root / name)
        (root / name).symlink_to(target)
    hidden = str(secret / "file").lstrip("/")
    tries = " ".join(f"/{name}/{hidden} /{name}/hostname /{name}/passwd" for name in links)
    assert SECRET not in (seen := output(root, f"cat {tries}; cat /{hidden}"))
    assert Path("/etc/passwd").read_text() not in seen


def test_links_deep_in_an_image_lead_nowhere_on_the_host(root: Path, secret: Path) -> None:
    (root / "usr" / "out").symlink_to(secret)
    (root / "usr" / "up").symlink_to("../" * 30 + str(secret).lstrip("/"))
    assert SECRET not in output(root, "cat /usr/out/file /usr/up/file")


@pytest.mark.parametrize(
    ("name", "put_in_place"), [("opt", "folder"), ("readme", "file"), ("readme", "folder"), ("opt", "file")]
)
def test_a_link_that_takes_an_entrys_place_before_the_start(
    name: str, put_in_place: str, root: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the image and the box: what somebody else puts there is never followed."""

    def prepare_and_swap(*arguments: Any, **keywords: Any) -> Launch:
        launch = prepare(*arguments, **keywords)
        (root / name).rename(root / "away")
        (root / name).symlink_to(secret if put_in_place == "folder" else secret / "file")
        return launch

    monkeypatch.setattr("immure.engine.command.prepare", prepare_and_swap)
    try:
        assert SECRET not in output(root, f"cat /{name} /{name}/file")
    except SetupFailed as error:
        assert name in str(error)
    assert (root / name).is_symlink(), "it was swapped"


# It can't be changed, and gives no rights.


def test_it_is_read_only(root: Path) -> None:
    before = sorted(path.relative_to(root) for path in root.rglob("*"))
    for script in (
        "echo x > /etc/passwd",
        "echo x > /new",
        "echo x > /usr/share/new",
        "echo x > /readme",
        "rm /bin/cat",
        "mkdir /var/lib/x",
        "chmod 777 /etc/passwd",
        "touch /readme",
        "ln /etc/passwd /etc/more",
        "ln -sf /tmp /etc/new",
    ):
        assert not run(shell(script), image=root).ok, script
    assert sorted(path.relative_to(root) for path in root.rglob("*")) == before
    assert (root / "readme").read_text() == "at the top\n"


def test_private_space_can_be_written(root: Path) -> None:
    assert output(root, "echo one > /tmp/x; echo two > /dev/shm/x; cat /tmp/x /dev/shm/x") == "one\ntwo\n"
    assert not (root / "tmp").exists()


def test_setuid_gives_nothing(root: Path) -> None:
    program = root / "bin" / "busybox-setuid"
    shutil.copy(root / "bin" / "busybox", program)
    program.chmod(0o6755)
    assert program.stat().st_mode & stat.S_ISUID, "the control"
    shutil.copy(program, root / "busybox-top")
    (root / "busybox-top").chmod(0o6755)
    for path in ("/bin/busybox-setuid", "/busybox-top"):
        seen = output(root, f"{path} id; {path} cat /proc/self/status")
        assert seen.startswith("uid=1000 gid=1000")
        lines = dict(line.split(":\t", 1) for line in seen.splitlines() if ":\t" in line)
        assert lines["Uid"].split() == lines["Gid"].split() == ["1000"] * 4
        assert set(lines["CapEff"]) == set(lines["CapPrm"]) == {"0"}


@pytest.mark.root
def test_devices_of_an_image_can_not_be_opened(root: Path) -> None:
    for name in ("lib/zero", "zero"):
        os.mknod(root / name, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        (root / name).chmod(0o666)
    assert (root / "lib" / "zero").open("rb").read(2) == b"\0\0", "the control"
    assert "ermission denied" in output(root, "dd if=/lib/zero count=1")
    assert "No such file" in output(root, "dd if=/zero count=1")


@pytest.mark.root
def test_owners_are_nobody_and_closed_files_stay_closed(root: Path) -> None:
    (root / "etc" / "shadow").write_text(SECRET)
    (root / "closed").write_text(SECRET)
    for path in (root / "etc" / "shadow", root / "closed"):
        path.chmod(0o600)
    assert SECRET not in output(root, "cat /etc/shadow /closed")
    assert SECRET not in output(root, "cat /etc/shadow /closed", user=0)
    assert output(root, "ls -ln /etc/shadow").split()[2:4] == ["65534", "65534"]


# Mounts.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "shown"
    place.mkdir()
    (place / "file").write_text("content")
    return place


def test_mounts_where_the_image_has_nothing(folder: Path, root: Path) -> None:
    for target in ("/work", "/data/in/it", "/home/user", "/tmp/given", "/tmp"):
        assert output(root, f"cat {target}/file", mounts=[(folder, target)]) == "content"
    assert output(root, "echo x > new; cat new", mounts=[(folder, "/work", "rw")]) == "x\n"
    assert not (root / "work").exists()


def test_mounts_on_what_the_image_has(folder: Path, root: Path) -> None:
    for target in ("/opt", "/var/lib", "/usr"):
        assert output(root, f"cat {target}/file", mounts=[(folder, target)]) == "content"
    with pytest.raises(ExecFailed):
        run(["/bin/busybox"], image=root, mounts=[(folder, "/sbin")])
    assert output(root, "cat /readme /etc/passwd", mounts=[(folder / "file", "/readme")]).startswith("contentroot:")
    assert output(root, "cat /etc/passwd", mounts=[(folder / "file", "/etc/passwd")], workdir="/") == "content"
    assert output(root, "echo x > /var/tmp/x; cat /var/tmp/x", mounts=[{"tmpfs": "/var/tmp"}]) == "x\n"
    # A tmpfs on a folder of the image makes room for more.
    mounts = [{"tmpfs": "/opt"}, (folder, "/opt/a/b")]
    assert output(root, "cat /opt/a/b/file", mounts=mounts) == "content"


@pytest.mark.parametrize(
    ("target", "have"),
    [
        ("/var/lib/missing", "/var/lib/missing: No such file or directory"),
        ("/usr/no/such", "/usr/no: No such file or directory"),
        ("/var/run/x", "/var/run is a symbolic link to /run"),
        ("/sbin/x", "/bin/x: No such file or directory"),
        ("/readme", "/readme is a file"),
        ("/etc/passwd/x", "/etc/passwd is a file"),
    ],
)
def test_a_mount_that_finds_no_place_in_the_image(target: str, have: str, folder: Path, root: Path) -> None:
    for index, mount in ((1, (folder, target)), (1, {"tmpfs": target})):
        with pytest.raises(SpecError) as caught:
            run(["true"], image=root, mounts=[(folder, "/work"), mount])
        assert caught.value.path.startswith(f"$.spec.files.mounts[{index}].")
        assert caught.value.have == have
        assert caught.value.need
        assert caught.value.hint
    assert not (root / "usr" / "no").exists()


def test_a_mount_by_a_link_of_the_image_stays_in_the_box(folder: Path, root: Path, secret: Path) -> None:
    (root / "out").symlink_to(secret)
    (root / "up").symlink_to("../" * 20 + str(secret).lstrip("/"))
    before = sorted(secret.iterdir())
    for target in ("/out/new", "/up/new", "/out"):
        assert output(root, f"cat {target}/file", mounts=[(folder, target)]) == "content"
    assert sorted(secret.iterdir()) == before, "nothing was made where the link leads on the host"


# Where it comes from.


def test_relative_paths(root: Path, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "box.yaml").write_text(
        "apiVersion: immure.dev/v1\nkind: Sandbox\nspec: {image: ./root, command: [cat, /readme]}\n"
    )
    for where in (tmp_path, root, Path("/")):
        assert cli.run("-f", tmp_path / "box.yaml", cwd=where).stdout == b"at the top\n"
    for name in ("./root", "root/", "../" + tmp_path.name + "/root"):
        assert cli.run("--image", name, "--", "cat", "/readme", cwd=tmp_path).stdout == b"at the top\n"
    assert cli.run("--image", "~/root", "--", "cat", "/readme", env={"HOME": str(tmp_path)}).stdout == b"at the top\n"
    assert cli.run("--image", ".", "--", "cat", "/readme", cwd=root).stdout == b"at the top\n"
    ended = cli.run("--image", "root", "--", "true", cwd=tmp_path)
    assert ended.returncode == 125
    assert b"./root" in ended.stderr
    monkeypatch.chdir(tmp_path)
    for image in ("./root", Path("root"), str(root)):
        assert run(["cat", "/readme"], image=image).stdout == b"at the top\n"


def test_a_dry_run_lists_it(root: Path, cli: CommandLine) -> None:
    text = cli.run("--dry-run", "--image", root, "--", "true").stdout.decode()
    for line in (
        f"image: bind {root}/bin on bin (ro,nosuid,nodev)",
        f"image: bind {root}/readme on readme (ro,nosuid,nodev)",
        "image: ln -s bin sbin",
        "landlock: /etc <Fs.EXECUTE|READ_FILE|READ_DIR",
    ):
        assert line in text, text
    assert "/usr/lib" not in text


def test_the_hosts_root_is_no_image(cli: CommandLine) -> None:
    for name in ("/", "/usr/..", "/proc/self/root"):
        ended = cli.run("--image", name, "--", "true")
        assert ended.returncode == 125
        assert b"root of this host" in ended.stderr


# What is remembered.


def test_another_folder_of_that_name_is_another_image(root: Path, tmp_path: Path) -> None:
    for number in range(3):
        assert output(root, "cat /readme") == ("at the top\n" if not number else f"{number}\n")
        root.rename(tmp_path / f"away{number}")
        make_root(root)
        (root / "readme").write_text(f"{number + 1}\n")


def test_a_file_at_the_top_that_is_replaced_is_seen_by_the_next_box(root: Path) -> None:
    assert output(root, "cat /readme") == "at the top\n"
    (root / "new").write_text("replaced\n")
    (root / "new").rename(root / "readme")
    assert output(root, "cat /readme") == "replaced\n"


def test_the_command_lines_cache_notices_a_change(root: Path, tmp_path: Path, fresh_cli: CommandLine) -> None:
    def seen() -> tuple[str, bool]:
        ended = fresh_cli.run(
            "--image", root, "--", "sh", "-c", "cat /readme; ls -d /added", env={"PYTHONPROFILEIMPORTTIME": "1"}
        )
        return ended.stdout.decode(), b"immure.plan.compile" in ended.stderr

    assert seen() == ("at the top\n", True)
    assert seen() == ("at the top\n", False)
    (root / "added").mkdir()
    assert seen() == ("at the top\n/added\n", True)
    assert seen() == ("at the top\n/added\n", False)
    root.rename(tmp_path / "away")
    make_root(root)
    assert seen() == ("at the top\n", True)
    shutil.rmtree(root)
    assert fresh_cli.run("--image", root, "--", "sh", "-c", "cat /readme; ls -d /added").returncode == 125
