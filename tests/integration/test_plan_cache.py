"""The command line's cache of plans: used when it may be, and never when it may not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from .command_line import CommandLine

pytestmark = pytest.mark.rootless


@pytest.fixture
def cli(fresh_cli: CommandLine) -> CommandLine:
    return fresh_cli


def plans(cli: CommandLine) -> list[str]:
    return sorted(path.name for path in cli.cache.glob("run-*"))


def cached(folder: Path) -> list[str]:
    """What is in it."""
    return sorted(path.name for path in folder.iterdir())


def was_compiled(cli: CommandLine, *words: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> bool:
    """Whether this run imported what compiles plans. It must succeed."""
    ended = cli.run(*words, env={**(env or {}), "PYTHONPROFILEIMPORTTIME": "1"}, cwd=cwd)  # type: ignore[arg-type]
    assert ended.returncode == 0, ended.stderr
    return b"immure.plan.compile" in ended.stderr


def test_the_second_run_uses_it(cli: CommandLine) -> None:
    first = cli.run("-e", "A=1", "--", "sh", "-c", "echo $A; pwd; id; exit 3")
    assert len(plans(cli)) == 1
    again = cli.run("-e", "A=1", "--", "sh", "-c", "echo $A; pwd; id; exit 3")
    assert (first.returncode, first.stdout, first.stderr) == (again.returncode, again.stdout, again.stderr)
    assert len(plans(cli)) == 1
    assert not was_compiled(cli, "-e", "A=1", "--", "true")
    assert was_compiled(cli, "-e", "A=2", "--", "true"), "the control"


def test_the_command_is_not_part_of_it(cli: CommandLine) -> None:
    assert cli.run("--", "echo", "one").stdout == b"one\n"
    assert cli.run("--", "echo", "two").stdout == b"two\n"
    assert len(plans(cli)) == 1


def test_private_and_owned(cli: CommandLine) -> None:
    old = os.umask(0)
    try:
        cli.run("--", "true")
    finally:
        os.umask(old)
    assert stat.S_IMODE(cli.cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in cli.cache.iterdir()} == {0o600}
    assert not list(cli.cache.glob(".*")), "no half-written file"


def test_another_document_is_noticed(cli: CommandLine, tmp_path: Path) -> None:
    spec = tmp_path / "box.yaml"
    text = "apiVersion: immure.dev/v1\nkind: Sandbox\nspec: {env: {WHO: %s}}\n"
    for name in ("one", "two", "one"):
        spec.write_text(text % name)
        assert cli.run("-f", spec, "--", "printenv", "WHO").stdout == name.encode() + b"\n"
    assert not was_compiled(cli, "-f", spec, "--", "true")
    spec.unlink()
    assert cli.run("-f", spec, "--", "true").returncode == 125


def test_another_profile_is_noticed(cli: CommandLine, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    base = '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": [%s], "action": "SCMP_ACT_ALLOW"}]}'
    import immure.policy.seccomp as seccomp

    names = sorted({name for rule in seccomp.load_preset("default").syscalls for name in rule.names})
    for refused, status in ((None, 0), ("mkdir", 1), (None, 0)):
        allowed = ", ".join(f'"{name}"' for name in names if name != refused)
        profile.write_text(base % allowed)
        ended = cli.run("--seccomp", profile, "--", "mkdir", "/tmp/x")
        assert ended.returncode == status, (refused, ended.stderr)
    profile.unlink()
    assert cli.run("--seccomp", profile, "--", "true").returncode == 125


def test_a_profile_named_by_a_document_is_noticed(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "box.yaml").write_text(
        "apiVersion: immure.dev/v1\nkind: Sandbox\nspec: {syscalls: {profile: profile.json}, level: L1}\n"
    )
    profile = tmp_path / "profile.json"
    profile.write_text("not a profile")
    assert cli.run("-f", tmp_path / "box.yaml", "--", "true").returncode == 125
    profile.write_text('{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}')
    assert cli.run("-f", tmp_path / "box.yaml", "--", "true").returncode != 0


def test_another_value_of_a_variable_is_noticed(cli: CommandLine) -> None:
    for value in ("one", "two", "one", ""):
        ended = cli.run("-e", "TAKEN", "--", "printenv", "TAKEN", env={"TAKEN": value})
        assert ended.stdout == value.encode() + b"\n"
    assert not was_compiled(cli, "-e", "TAKEN", "--", "true", env={"TAKEN": ""})
    assert cli.run("-e", "TAKEN", "--", "true").returncode == 125


def test_another_folder_to_start_from_is_noticed(cli: CommandLine, tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "mark").write_text(name)
        assert cli.run("-v", ".:/work", "--", "cat", "mark", cwd=folder).stdout == name.encode()
    assert not was_compiled(cli, "-v", ".:/work", "--", "true", cwd=tmp_path / "one")


def test_a_folder_that_took_the_place_of_another(cli: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    for name in ("one", "two"):
        folder.mkdir()
        (folder / "mark").write_text(name)
        assert cli.run("-v", f"{folder}:/work", "--", "cat", "mark").stdout == name.encode()
        folder.rename(tmp_path / name)
    assert cli.run("-v", f"{folder}:/work", "--", "true").returncode == 125
    folder.write_text("a file now")
    ended = cli.run("-v", f"{folder}:/work", "--", "cat", "/work")
    assert ended.returncode == 125 or ended.stdout == b"a file now"


def test_another_home_is_noticed(cli: CommandLine, tmp_path: Path) -> None:
    spec = tmp_path / "box.yaml"
    spec.write_text(
        "apiVersion: immure.dev/v1\nkind: Sandbox\nspec: {files: {mounts: [{source: ~/data, target: /work}]}}\n"
    )
    for name in ("one", "two"):
        data = tmp_path / name / "data"
        data.mkdir(parents=True)
        (data / "mark").write_text(name)
        ended = cli.run("-f", spec, "--", "cat", "/work/mark", env={"HOME": str(tmp_path / name)})
        assert ended.stdout == name.encode()


def test_options_that_differ_have_plans_that_differ(cli: CommandLine) -> None:
    words = [[], ["-u", "5"], ["-w", "/usr"], ["--pids", "9", "--best-effort", "pids"], ["-q"], ["-i"], ["--name", "x"]]
    for one in words:
        assert cli.run(*one, "--", "true").returncode == 0
    assert len(plans(cli)) == len(words)
    assert cli.run("-u", "5", "--", "id", "-u").stdout == b"5\n"
    assert cli.run("--name", "x", "--", "hostname").stdout == b"x\n"
    assert cli.run("-i", "--", "cat", input=b"typed").stdout == b"typed"
    assert cli.run("--", "cat", input=b"typed").stdout == b""


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o777])
def test_a_folder_that_others_may_enter_is_not_used(mode: int, cli: CommandLine) -> None:
    cli.cache.mkdir(parents=True)
    cli.cache.chmod(mode)
    assert cli.run("--", "true").returncode == 0
    assert cached(cli.cache) == []
    assert stat.S_IMODE(cli.cache.stat().st_mode) == mode


@pytest.mark.root
def test_a_folder_of_somebody_else_is_not_used(cli: CommandLine) -> None:
    assert not was_compiled(cli, "--", "true") or not was_compiled(cli, "--", "true")
    os.chown(cli.cache, 4321, 4321)
    before = plans(cli)
    assert was_compiled(cli, "--", "true")
    assert plans(cli) == before


def test_a_link_in_place_of_the_folder_is_not_used(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cli.cache.parent.mkdir(parents=True, exist_ok=True)
    cli.cache.symlink_to(tmp_path / "elsewhere")
    assert cli.run("--", "true").returncode == 0
    assert cached(tmp_path / "elsewhere") == []


def test_a_file_that_others_may_write_is_not_used(cli: CommandLine) -> None:
    cli.run("--", "true")
    path = cli.cache / plans(cli)[0]
    assert not was_compiled(cli, "--", "true")
    path.chmod(0o622)
    assert was_compiled(cli, "--", "true")


@pytest.mark.root
def test_a_file_of_somebody_else_is_not_used(cli: CommandLine) -> None:
    cli.run("--", "true")
    os.chown(cli.cache / plans(cli)[0], 4321, 4321)
    assert was_compiled(cli, "--", "true")


def test_a_link_in_place_of_a_file_is_not_used(cli: CommandLine, tmp_path: Path) -> None:
    cli.run("--", "true")
    path = cli.cache / plans(cli)[0]
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert was_compiled(cli, "--", "true")


def test_a_damaged_file_is_not_used(cli: CommandLine) -> None:
    import marshal

    cli.run("--", "true")
    path = cli.cache / plans(cli)[0]
    whole = path.read_bytes()
    damaged = [b"", b"\0", whole[:1], whole[: len(whole) // 2], whole[:-1], b"garbage" * 100]
    damaged += [marshal.dumps(value) for value in (None, 5, (), {})]
    for content in damaged:
        path.write_bytes(content)
        ended = cli.run("--", "echo", "fine")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"fine\n", b""), content[:60]


def test_damaged_facts_are_not_used(cli: CommandLine) -> None:
    cli.run("--", "true")
    for path in cli.cache.glob("facts-*"):
        for content in (b"", b"garbage", b"\xe9\x00\x00\x00\x00"):
            path.write_bytes(content)
            for name in plans(cli):
                (cli.cache / name).unlink()
            assert cli.run("--", "echo", "fine").stdout == b"fine\n"


@pytest.mark.parametrize("place", ["/proc/self/no", "/dev/null", "relative"])
def test_without_a_place_for_it_all_works(place: str, tmp_path: Path) -> None:
    nowhere = CommandLine(Path(place))
    for _ in range(2):
        ended = nowhere.run("--", "echo", "fine", cwd=tmp_path)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"fine\n", b"")


def test_another_native_program_is_noticed(cli: CommandLine, tmp_path: Path) -> None:
    import shutil

    from immure.host.native import native_program

    cli.run("--", "true")
    other = tmp_path / "immure-init"
    shutil.copy2(native_program(), other)
    assert was_compiled(cli, "--", "true", env={"IMMURE_INIT": str(other)})
    assert cli.run("--", "true", env={"IMMURE_INIT": "/no/such/program"}).returncode == 125


def test_many_at_once_with_an_empty_cache(cli: CommandLine) -> None:
    processes = [cli.start("--", "echo", str(number)) for number in range(8)]
    for number, process in enumerate(processes):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, b"%d\n" % number, b"")
    assert len(plans(cli)) == 1
    assert not list(cli.cache.glob(".*"))
