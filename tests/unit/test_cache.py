"""The cache: used where it is this user's alone, and nowhere else."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immure.engine import cache

pytestmark = pytest.mark.rootless

VALUE = ([("a", b"b")], (1, 2.5, None, True, "x"), {"k": b"v"})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache's folder will be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "immure"


def test_what_was_stored_is_loaded() -> None:
    cache.store("a", VALUE)
    assert cache.load("a") == VALUE
    assert cache.load("b") is None


def test_the_folder_and_its_files_are_private(home: Path) -> None:
    old = os.umask(0)
    try:
        cache.store("a", VALUE)
    finally:
        os.umask(old)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [(one.name, stat.S_IMODE(one.stat().st_mode)) for one in home.iterdir()] == [("a", 0o600)]


def test_a_new_value_takes_the_place_of_the_old(home: Path) -> None:
    cache.store("a", VALUE)
    cache.store("a", "new")
    assert cache.load("a") == "new"
    assert [one.name for one in home.iterdir()] == ["a"]


def test_it_does_not_grow_without_end(home: Path) -> None:
    for number in range(300):
        cache.store(f"entry-{number}", number)
        os.utime(home / f"entry-{number}", (number, number))
    assert len(list(home.iterdir())) <= 257
    assert cache.load("entry-0") is None
    assert cache.load("entry-299") == 299


def test_the_folder_is_in_the_home_without_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache.store("a", VALUE)
    assert (tmp_path / "home/.cache/immure/a").is_file()
    assert cache.load("a") == VALUE


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o707, 0o750, 0o705, 0o777])
def test_a_folder_that_others_can_enter_is_not_used(home: Path, mode: int) -> None:
    cache.store("a", VALUE)
    home.chmod(mode)
    assert cache.folder() is None
    assert cache.load("a") is None
    cache.store("b", VALUE)
    assert not (home / "b").exists()
    home.chmod(0o700)
    assert cache.load("a") == VALUE


def test_a_folder_of_somebody_else_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store("a", VALUE)
    somebody_else = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    assert cache.folder() is None
    assert cache.load("a") is None
    cache.store("b", VALUE)
    assert not (home / "b").exists()


@pytest.mark.root
def test_a_file_of_somebody_else_is_not_used(home: Path) -> None:
    cache.store("a", VALUE)
    os.chown(home / "a", 12345, 0)
    assert cache.load("a") is None


@pytest.mark.parametrize("mode", [0o660, 0o602, 0o640, 0o604])
def test_a_file_that_others_can_reach_is_not_used(home: Path, mode: int) -> None:
    cache.store("a", VALUE)
    (home / "a").chmod(mode)
    assert cache.load("a") is None


def test_a_folder_that_is_a_link_is_not_used(home: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    home.symlink_to(real)
    cache.store("a", VALUE)
    assert cache.folder() is None
    assert list(real.iterdir()) == []


def test_a_file_that_is_a_link_is_not_used(home: Path) -> None:
    cache.store("a", VALUE)
    (home / "b").symlink_to("a")
    assert cache.load("b") is None


def test_to_store_does_not_follow_a_link(home: Path, tmp_path: Path) -> None:
    cache.store("a", VALUE)
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    (home / "b").symlink_to(victim)
    (home / f".c.{os.getpid()}").symlink_to(victim)
    cache.store("b", VALUE)
    cache.store("c", VALUE)
    assert victim.read_bytes() == b"kept"
    assert cache.load("b") == VALUE


def test_a_folder_that_is_a_file_is_not_used(home: Path) -> None:
    home.write_bytes(b"")
    cache.store("a", VALUE)
    assert cache.load("a") is None


def test_a_place_that_can_not_be_made_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.store("a", VALUE)
    assert cache.load("a") is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=4))
def test_short_content_of_any_kind_is_nothing_or_a_value(home: Path, content: bytes) -> None:
    cache.store("a", VALUE)
    (home / "a").write_bytes(content)
    cache.load("a")


def test_content_that_was_cut_is_nothing(home: Path) -> None:
    cache.store("a", VALUE)
    whole = (home / "a").read_bytes()
    for length in range(len(whole)):
        (home / "a").write_bytes(whole[:length])
        assert cache.load("a") is None, length


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 8, b"[\x02\x00\x00\x00", b"(" + bytes(4) + b"junk"])
def test_content_that_is_no_value(home: Path, content: bytes) -> None:
    cache.store("a", VALUE)
    (home / "a").write_bytes(content)
    assert cache.load("a") in (None, ())


# Keys.


def test_a_key_is_its_parts() -> None:
    assert cache.key_of("a", ["b"], None) == cache.key_of("a", ["b"], None)
    keys = {cache.key_of(*parts) for parts in (("a",), ("b",), ("a", "b"), ("ab",), (["a", "b"],), (b"a",), (1,), ())}
    assert len(keys) == 8
    assert all(key.isalnum() and len(key) == 32 for key in keys)


def test_equal_parts_have_one_key_however_they_came_about() -> None:
    """Neither interning nor the number of references is part of a value."""
    literal = ["-f", sys.intern("a.yaml")]
    made = ["".join("-f"), "".join(["a.", "yaml"])]
    held_twice = [made, made[1]]
    assert literal == held_twice[0]
    assert cache.key_of(literal) == cache.key_of(made) == cache.key_of(list(made)) == cache.key_of(["-f", "a.yaml"])


def test_a_change_of_the_form_is_a_change_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.key_of("a")
    monkeypatch.setattr(cache, "FORM", cache.FORM + 1)
    assert cache.key_of("a") != before


def host_key() -> str:
    return cache.key_of(cache.host_key())


def test_a_host_has_one_key() -> None:
    assert host_key() == host_key()


def test_another_process_finds_the_same_key() -> None:
    code = "from immure.engine import cache; print(cache.key_of(cache.host_key()))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert children == [host_key() + "\n"] * 2


@pytest.mark.parametrize("file", ["/proc/sys/kernel/random/boot_id", "/proc/self/cgroup"])
def test_another_boot_or_cgroup_is_another_key(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_key()
    read = cache._read
    monkeypatch.setattr(cache, "_read", lambda path: b"other" if path == file else read(path))
    assert host_key() != before


def test_another_delegation_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit is given its cgroup while the host runs, and the next run of it has the same membership."""
    for name in ("cgroup.controllers", "one/cgroup.subtree_control", "one/main/cgroup.subtree_control"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    read = cache._read
    monkeypatch.setattr(cache, "_CGROUPS", (str(tmp_path / "not here"), str(tmp_path)))
    monkeypatch.setattr(cache, "_read", lambda path: b"0::/one/main\n" if path == "/proc/self/cgroup" else read(path))
    keys = [host_key()]
    (tmp_path / "one/cgroup.subtree_control").write_text("memory")
    keys.append(host_key())
    access = os.access
    owned = str(tmp_path / "one")
    monkeypatch.setattr(os, "access", lambda path, mode: path != owned and access(path, mode))
    keys.append(host_key())
    assert len({*keys}) == 3
    assert host_key() == keys[-1]


@pytest.mark.parametrize("name", ["geteuid", "getegid"])
def test_another_user_is_another_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_key()
    other = getattr(os, name)() + 1
    monkeypatch.setattr(os, name, lambda: other)
    assert host_key() != before


def test_another_program_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "immure-init"
    program.write_bytes(b"one")
    monkeypatch.setenv("IMMURE_INIT", str(program))
    first = host_key()
    program.write_bytes(b"another")
    second = host_key()
    program.unlink()
    assert len({first, second, host_key()}) == 3


@pytest.mark.parametrize("path", ["/etc", "/etc/subuid", "/etc/subgid", "/"])
def test_another_root_or_another_range_is_another_key(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_key()
    identity = cache._identity
    monkeypatch.setattr(cache, "_identity", lambda name: ("other",) if name == path else identity(name))
    assert host_key() != before
