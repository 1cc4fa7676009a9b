"""`immure run` with a cached plan imports the standard library alone, and little of that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from immure.engine.prepare import host_facts

pytestmark = pytest.mark.rootless

HEAVY = {
    "argparse", "asyncio", "collections", "contextlib", "ctypes", "dataclasses", "enum", "functools", "importlib.util",
    "inspect", "json", "logging", "msgspec", "pathlib", "pkgutil", "re", "rich", "selectors", "shutil", "signal",
    "socket", "subprocess", "tempfile", "threading", "types", "typing", "yaml",
}  # fmt: skip
# Runs the command line, then tells what it imported. Without `site`, whose .pth files import what they like.
CHILD = """
import sys
before = set(sys.modules)
from immure.cli.main import main
status = main(sys.argv[1:])
loaded = sorted(set(sys.modules) - before)
import json
print(json.dumps([status, loaded]))
"""

Run = Callable[..., tuple[int, set[str]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`immure run` with a cache of the test's own: its exit status, and what it imported."""
    facts = host_facts()
    for refused in (facts.user_namespaces, facts.new_proc, facts.ptrace):
        if refused is not None:
            pytest.skip(f"host: no boxes here: {refused.need}: {refused.have}")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "GIVEN": "one",
    }

    def command(*argv: str, verb: str = "run", **changes: str) -> tuple[int, set[str]]:
        child = subprocess.run(
            [sys.executable, "-S", "-c", CHILD, verb, *argv],
            env={**environment, **changes},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=60,
        )
        status, loaded = json.loads(child.stdout.splitlines()[-1])
        return status, set(loaded)

    return command


def was_cached(loaded: set[str]) -> bool:
    return "msgspec" not in loaded


def test_the_second_time_nothing_heavy_is_imported(run: Run) -> None:
    status, first = run("--", "true")
    assert status == 0
    assert {"msgspec", "argparse"} <= first
    status, second = run("--", "true")
    assert status == 0
    assert not second & HEAVY
    ours = {name for name in second if name.startswith("immure")}
    assert "immure.spec.models" not in ours
    assert "immure.plan.compile" not in ours


def test_another_command_under_the_same_options_is_cached_too(run: Run) -> None:
    run("--", "true")
    status, loaded = run("--", "false")
    assert status == 1
    assert was_cached(loaded)


def test_a_command_that_is_not_there_is_told_from_the_cache(run: Run) -> None:
    run("--", "true")
    status, loaded = run("--", "/no/such/thing")
    assert status == 127
    assert was_cached(loaded)


@pytest.mark.parametrize(
    "options", [["-i"], ["-q"], ["--timeout", "30"], ["--tmpfs", "/t:1"], ["-e", "A=b"], ["-w", "/usr"]], ids=str
)
def test_options_that_are_cached(options: list[str], run: Run) -> None:
    assert not was_cached(run(*options, "--", "true")[1])
    assert was_cached(run(*options, "--", "true")[1])
    assert not was_cached(run(*options, "-e", "OTHER=1", "--", "true")[1])


@pytest.mark.parametrize("options", [["--dry-run"], ["--result", "/dev/null"]], ids=str)
def test_options_that_are_not(options: list[str], run: Run) -> None:
    for _ in range(2):
        status, loaded = run(*options, "--", "true")
        assert status == 0
        assert not was_cached(loaded)


def test_a_variable_that_changed_is_looked_at_again(run: Run) -> None:
    options = ["-e", "GIVEN", "--", "sh", "-c", 'test "$GIVEN" = two']
    assert run(*options)[0] == 1
    status, loaded = run(*options, GIVEN="two")
    assert (status, was_cached(loaded)) == (0, False)
    assert was_cached(run(*options, GIVEN="two")[1])


def test_a_document_that_changed_is_looked_at_again(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    text = "apiVersion: immure.dev/v1\nkind: Sandbox\nspec: {{env: {{A: {}}}}}\n"
    check = ["-f", "a.yaml", "--", "sh", "-c", 'test "$A" = two']
    file.write_text(text.format("one"))
    assert run(*check)[0] == 1
    assert was_cached(run(*check)[1])
    file.write_text(text.format("two"))
    status, loaded = run(*check)
    assert (status, was_cached(loaded)) == (0, False)


def test_another_home_is_looked_at_again(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / name).touch()
    mounts = "[{source: ~/data, target: /work/data}]"
    (tmp_path / "a.yaml").write_text(
        f"apiVersion: immure.dev/v1\nkind: Sandbox\nspec: {{files: {{mounts: {mounts}}}}}\n"
    )
    for name in ("one", "two", "one"):
        assert run("-f", "a.yaml", "--", "test", "-e", f"/work/data/{name}", HOME=str(tmp_path / name))[0] == 0


def test_a_source_that_became_something_else_is_looked_at_again(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    mounted = ["-v", "source:/work/source", "-w", "/tmp", "--", "test"]
    assert run(*mounted, "-d", "/work/source")[0] == 0
    source.rmdir()
    source.write_text("now a file")
    assert run(*mounted, "-f", "/work/source")[0] == 0


def test_a_cache_that_others_can_write_is_not_used(run: Run, tmp_path: Path) -> None:
    run("--", "true")
    (tmp_path / "cache/immure").chmod(0o770)
    assert not was_cached(run("--", "true")[1])


def test_a_command_in_a_kept_box_needs_nothing_heavy(run: Run) -> None:
    assert run("--keep", "--name", "desk")[0] == 0
    status, loaded = run("desk", "--", "sh", "-c", "exit 3", verb="exec")
    assert status == 3
    assert not loaded & HEAVY
    status, loaded = run("-e", "A=1", "desk", "--", "true", verb="exec")
    assert status == 0
    assert loaded & HEAVY, "the control: options that are parsed"
    assert run("desk", verb="kill")[0] == 0
