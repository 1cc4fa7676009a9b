"""Options of `immure run` to a spec. Nothing is run: each case stops where the plan would be made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hosts import make_spec, mounts

from immure.cli import run
from immure.cli.commands import dispatch
from immure.errors import ImmureError
from immure.spec.models import SandboxSpec


class Seen(NamedTuple):
    spec: SandboxSpec
    base: Path
    hostname: str


Typed = Callable[..., Seen]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def typed(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """What the options come to; fails with the complaint where they are refused."""

    def dispatched(*options: str) -> Seen:
        seen: list[Seen] = []

        def plan_of(spec: SandboxSpec, *, base: Path, hostname: str) -> None:
            seen.append(Seen(spec, base, hostname))
            raise ImmureError("far enough")

        monkeypatch.setattr(run, "plan_of", plan_of)
        assert dispatch(["run", "--dry-run", *options, "--", "true"]) == 125
        complaint = capsys.readouterr().err
        assert seen, complaint
        return seen[0]

    return dispatched


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What is complained of."""

    def dispatched(*options: str) -> str:
        assert dispatch(["run", "--dry-run", *options, "--", "true"]) == 125
        return capsys.readouterr().err

    return dispatched


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ([], {}),
        (["--level", "L1", "--net", "host"], {"level": "L1", "network": {"mode": "host"}}),
        (["--runtime", "process", "--image", "host"], {"runtime": "process"}),
        (["-w", "/w", "-u", "7"], {"workdir": "/w", "processes": {"user": 7}}),
        (
            ["--memory", "64", "--cpus", "1.5", "--pids", "9", "--disk", "8", "--timeout", "2", "--max-output", "1"],
            {"limits": {"memory_mib": 64, "cpus": 1.5, "pids": 9, "disk_mib": 8, "timeout_s": 2, "output_mib": 1}},
        ),
        (
            ["--best-effort", "memory", "--best-effort", "pids"],
            {"protections": {"memory": "best_effort", "pids": "best_effort"}},
        ),
        (["--tmpfs", "/a"], {"files": mounts({"tmpfs": "/a"})}),
        (["--tmpfs", "/a:64"], {"files": mounts({"tmpfs": "/a", "size_mib": 64})}),
        (["-v", "/s:/a"], {"files": mounts({"source": "/s", "target": "/a"})}),
        (["-v", "/s:/a:ro"], {"files": mounts({"source": "/s", "target": "/a"})}),
        (["-v", "/s:/a:rw"], {"files": mounts({"source": "/s", "target": "/a", "access": "rw"})}),
        (["-v", "/s:/a:review"], {"files": mounts({"source": "/s", "target": "/a", "access": "review"})}),
        (
            ["-v", "/s:/a", "--mount", "/t:/b"],
            {"files": mounts({"source": "/s", "target": "/a"}, {"source": "/t", "target": "/b"})},
        ),
        (["-e", "A=b"], {"env": {"A": "b"}}),
        (["-e", "A="], {"env": {"A": ""}}),
        (["-e", "A=b=c"], {"env": {"A": "b=c"}}),
        (["-e", "A=b", "-e", "A=c"], {"env": {"A": "c"}}),
        (["--seccomp", "/p.json"], {"syscalls": {"profile": "/p.json"}}),
    ],
    ids=str,
)
def test_options_are_a_spec(options: list[str], fields: dict[str, object], typed: Typed) -> None:
    assert typed(*options).spec == make_spec(**fields)


@pytest.mark.parametrize(("source", "real"), [("a", "a"), ("./a", "a"), ("a/b", "a/b"), (".", ".")])
def test_a_relative_source_starts_here(source: str, real: str, typed: Typed, here: Path) -> None:
    (mount,) = typed("-v", f"{source}:/x").spec.files.mounts
    assert Path(mount.source or "") == here / real


def test_a_relative_profile_starts_here(typed: Typed, here: Path) -> None:
    assert typed("--seccomp", "p.json").spec.syscalls.profile == str(here / "p.json")


def test_a_presets_name_stays_a_name(typed: Typed, here: Path) -> None:
    (here / "strict").write_text("a file of that name")
    assert typed("--seccomp", "strict").spec.syscalls.profile == "strict"
    assert typed("--seccomp", "./strict").spec.syscalls.profile == str(here / "strict")


def test_a_variable_without_a_value_is_this_processs(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "a=b")
    assert typed("-e", "MINE").spec.env == {"MINE": "a=b"}


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (["-v", "a"], "'a'"),
        (["-v", "a:"], "'a:'"),
        (["-v", ":/a"], "':/a'"),
        (["-v", ""], "a mount has a source and a target"),
        (["-v", "a:/b:ro:x"], "'a:/b:ro:x'"),
        (["-v", "a:/b:write"], "$.spec.files.mounts[0].access"),
        (["-v", "a:b"], "$.spec.files.mounts[0].target"),
        (["--tmpfs", "a"], "$.spec.files.mounts[0].tmpfs"),
        (["--tmpfs", "/a:big"], "'/a:big'"),
        (["--tmpfs", "/a:-1"], "'/a:-1'"),
        (["--tmpfs", "/a:1.5"], "'/a:1.5'"),
        (["--tmpfs", "/a:0"], "$.spec.files.mounts[0].size_mib"),
        (["-e", "=x"], "a variable needs a name"),
        (["-e", ""], "a variable needs a name"),
        (["-e", "SURELY_NOT_SET_HERE"], "SURELY_NOT_SET_HERE is not set here"),
        (["--level", "L9"], "$.spec.level"),
        (["--runtime", "docker"], "$.spec.runtime"),
        (["--image", "alpine"], "$.spec.image"),
        (["--net", "bridge"], "$.spec.network.mode"),
        (["-w", "work"], "$.spec.workdir"),
        (["-u", "-1"], "$.spec.processes.user"),
        (["-u", "65536"], "$.spec.processes.user"),
        (["--memory", "1"], "$.spec.limits.memory_mib"),
        (["--cpus", "nan"], "$.spec.limits.cpus"),
        (["--timeout", "0"], "$.spec.limits.timeout_s"),
        (["--timeout", "inf"], "$.spec.limits.timeout_s"),
        (["--max-output", "-1"], "$.spec.limits.output_mib"),
        (["--preset", "cobol"], "'cobol'"),
        (["-f", "missing.yaml"], "missing.yaml can't be read"),
        (["--name", "Bad name"], "'Bad name'"),
        (["--name", "a" * 64], "name"),
    ],
    ids=str,
)
def test_a_bad_option_is_refused(options: list[str], fragment: str, refused: Callable[..., str]) -> None:
    complaint = refused(*options)
    assert fragment in complaint
    assert complaint.startswith("immure: ")


def test_a_size_in_other_digits_is_refused(refused: Callable[..., str]) -> None:
    assert "a whole number" in refused("--tmpfs", "/a:²")


DOCUMENT = """
apiVersion: immure.dev/v1
kind: Sandbox
metadata: {name: grader}
spec:
  level: L1
  command: [false]
  env: {A: a, B: b}
  files: {mounts: [{source: in, target: /in}, {source: /out, target: /out, access: rw}]}
  limits: {memory_mib: 64, pids: 9}
  protections: {memory: best_effort}
""".replace("[false]", "['false']")


@pytest.fixture
def document(here: Path) -> str:
    (here / "box").mkdir()
    (here / "box/a.yaml").write_text(DOCUMENT)
    return "box/a.yaml"


def test_a_document_is_taken_as_it_is(document: str, typed: Typed, here: Path) -> None:
    seen = typed("-f", document)
    assert (seen.hostname, seen.base) == ("grader", here / "box")
    assert seen.spec.limits.memory_mib == 64
    assert seen.spec.env == {"A": "a", "B": "b"}


def test_options_go_over_a_document(document: str, typed: Typed) -> None:
    seen = typed("-f", document, "--level", "L2", "--memory", "65", "--name", "other")
    assert (seen.spec.level, seen.spec.limits.memory_mib, seen.spec.limits.pids) == ("L2", 65, 9)
    assert seen.hostname == "other"


def test_mounts_are_added_to_a_documents(document: str, typed: Typed, here: Path) -> None:
    seen = typed("-f", document, "-v", "more:/more")
    sources = [Path(seen.base, mount.source or "") for mount in seen.spec.files.mounts]
    # The document's own start at the document, the typed ones here.
    assert sources == [here / "box/in", Path("/out"), here / "more"]


def test_variables_are_added_to_a_documents(document: str, typed: Typed) -> None:
    assert typed("-f", document, "-e", "B=c", "-e", "C=d").spec.env == {"A": "a", "B": "c", "C": "d"}


def test_protections_are_added_to_a_documents(document: str, typed: Typed) -> None:
    seen = typed("-f", document, "--best-effort", "pids")
    assert seen.spec.protections == {"memory": "best_effort", "pids": "best_effort"}


def test_the_python_preset_shows_the_interpreter(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", "/opt/venv")
    monkeypatch.setattr("sys.base_prefix", "/opt/python")
    seen = typed("--preset", "python", "-v", "/s:/a")
    assert [(one.source, one.target, one.access) for one in seen.spec.files.mounts] == [
        ("/opt/python", "/opt/python", "ro"),
        ("/opt/venv", "/opt/venv", "ro"),
        ("/s", "/a", "ro"),
    ]


def test_the_python_preset_adds_nothing_for_the_hosts_own(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", "/usr")
    monkeypatch.setattr("sys.base_prefix", "/usr/local")
    assert typed("--preset", "python").spec.files.mounts == ()


def test_no_command_at_all(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["run", "--dry-run"]) == 125
    assert "there is no command" in capsys.readouterr().err
