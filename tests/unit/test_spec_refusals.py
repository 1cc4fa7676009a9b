"""Documents that are refused: the error names the path, what is wrong there, and what may have been meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from immure.errors import SpecError
from immure.spec.loading import load_document

DOCUMENTS = Path(__file__).parent / "bad_specs"
HEAD = "apiVersion: immure.dev/v1\nkind: Sandbox\n"

REFUSED = [
    # Keys that nobody knows, with the nearest one.
    ("spce: {}", "$", "did you mean 'spec'?"),
    ("metadata: {nam: x}", "$.metadata", "did you mean 'name'?"),
    ("spec: {netwrk: {}}", "$.spec", "did you mean 'network'?"),
    ("spec: {files: {mount: []}}", "$.spec.files", "did you mean 'mounts'?"),
    ("spec: {files: {mounts: [{sorce: a, target: /b}]}}", "$.spec.files.mounts[0]", "did you mean 'source'?"),
    (
        "spec: {files: {mounts: [{tmpfs: /x}, {tmpfs: /y, size_mb: 1}]}}",
        "$.spec.files.mounts[1]",
        "did you mean 'size_mib'?",
    ),
    ("spec: {processes: {usr: 1}}", "$.spec.processes", "did you mean 'user'?"),
    ("spec: {processes: {capabilities: {ad: []}}}", "$.spec.processes.capabilities", "did you mean 'add'?"),
    ("spec: {limits: {memory: 64}}", "$.spec.limits", "did you mean 'memory_mib'?"),
    ("spec: {limits: {xyzzy: 64}}", "$.spec.limits", "one of memory_mib, cpus, pids"),
    ("spec: {syscalls: {profil: default}}", "$.spec.syscalls", "did you mean 'profile'?"),
    # Keys that are there twice.
    ("spec: {level: L2, level: L1}", "$", "the key `level` is there twice"),
    ("spec: {}\nspec: {}", "$", "lines 3 and 4"),
    ("spec: {files: {mounts: [{tmpfs: /x, tmpfs: /y}]}}", "$", "the key `tmpfs` is there twice"),
    # Aliases that unfold to more than anyone writes.
    (
        "spec: {syscalls: {profile: {a: &a [1, 1, 1, 1, 1, 1, 1, 1], b: &b [*a, *a, *a, *a, *a, *a, *a, *a],"
        " c: &c [*b, *b, *b, *b, *b, *b, *b, *b], d: &d [*c, *c, *c, *c, *c, *c, *c, *c],"
        " e: &e [*d, *d, *d, *d, *d, *d, *d, *d], f: [*e, *e, *e, *e, *e, *e, *e, *e]}}}",
        "$",
        "too large once its aliases are unfolded",
    ),
    # Values that a key does not have.
    ("spec: {level: L9}", "$.spec.level", "one of L0, L1, L2, L3, L4"),
    ("spec: {network: {mode: hots}}", "$.spec.network.mode", "did you mean 'host'?"),
    ("spec: {files: {landlock: maybe}}", "$.spec.files.landlock", "one of auto, off"),
    ("spec: {protections: {pids: perhaps}}", "$.spec.protections.pids", "one of required, best_effort"),
    ("spec: {env: {A: x, B: 1}}", "$.spec.env.B", "expected `str`, got `int`"),
    # Wrong types.
    ("spec: []", "$.spec", "expected `object`, got `array`"),
    ("spec: null", "$.spec", "got `null`"),
    ("spec: {level: 2}", "$.spec.level", "expected `str`, got `int`"),
    ("spec: {command: ls}", "$.spec.command", "expected `array`, got `str`"),
    ("spec: {command: [ls, 1]}", "$.spec.command[1]", "expected `str`, got `int`"),
    ("spec: {env: [A]}", "$.spec.env", "expected `object`, got `array`"),
    ("spec: {files: {mounts: {source: a}}}", "$.spec.files.mounts", "expected `array`, got `object`"),
    ("spec: {files: {mounts: [/x]}}", "$.spec.files.mounts[0]", "expected `object`, got `str`"),
    ("spec: {processes: {user: root}}", "$.spec.processes.user", "have: 'root'"),
    ("spec: {processes: {user: true}}", "$.spec.processes.user", "got `bool`"),
    ("spec: {limits: {memory_mib: '64'}}", "$.spec.limits.memory_mib", "have: '64'"),
    ("spec: {limits: {memory_mib: 64.5}}", "$.spec.limits.memory_mib", "got `float`"),
    ("spec: {limits: {cpus: yes}}", "$.spec.limits.cpus", "got `bool`"),
    ("spec: {syscalls: {profile: 5}}", "$.spec.syscalls.profile", "got `int`"),
    # Words that are none of the known ones.
    ("spec: {level: L9}", "$.spec.level", "'L9'"),
    ("spec: {runtime: docker}", "$.spec.runtime", "'docker'"),
    ("spec: {image: debian}", "$.spec.image", "write ./debian"),
    ("spec: {image: ''}", "$.spec.image", "have: ''"),
    ("spec: {image: hosts}", "$.spec.image", "'hosts'"),
    ("spec: {image: 5}", "$.spec.image", "got `int`"),
    ("spec: {network: {mode: bridge}}", "$.spec.network.mode", "'bridge'"),
    ("spec: {files: {landlock: maybe}}", "$.spec.files.landlock", "'maybe'"),
    ("spec: {processes: {namespaces: some}}", "$.spec.processes.namespaces", "'some'"),
    ("spec: {processes: {no_new_privileges: false}}", "$.spec.processes.no_new_privileges", "False"),
    (
        "spec: {files: {mounts: [{source: a, target: /b, access: write}]}}",
        "$.spec.files.mounts[0].access",
        "'write'",
    ),
    # Out of range.
    ("spec: {processes: {user: -1}}", "$.spec.processes.user", ">= 0"),
    ("spec: {processes: {user: 65536}}", "$.spec.processes.user", "<= 65535"),
    ("spec: {limits: {memory_mib: 3}}", "$.spec.limits.memory_mib", ">= 4"),
    ("spec: {limits: {cpus: 0}}", "$.spec.limits.cpus", ">= 0.01"),
    ("spec: {limits: {cpus: .nan}}", "$.spec.limits.cpus", "nan"),
    ("spec: {limits: {pids: 0}}", "$.spec.limits.pids", ">= 1"),
    ("spec: {limits: {disk_mib: 16777217}}", "$.spec.limits.disk_mib", "<= 16777216"),
    ("spec: {limits: {timeout_s: 0}}", "$.spec.limits.timeout_s", "> 0"),
    ("spec: {limits: {timeout_s: .inf}}", "$.spec.limits.timeout_s", "<= 31536000"),
    ("spec: {limits: {output_mib: -1}}", "$.spec.limits.output_mib", "> 0"),
    ("spec: {files: {mounts: [{tmpfs: /x, size_mib: 0}]}}", "$.spec.files.mounts[0].size_mib", ">= 1"),
    # Forms.
    ("spec: {workdir: work}", "$.spec.workdir", "'work'"),
    ("spec: {files: {mounts: [{source: a, target: b}]}}", "$.spec.files.mounts[0].target", "'b'"),
    ("spec: {files: {mounts: [{tmpfs: tmp}]}}", "$.spec.files.mounts[0].tmpfs", "'tmp'"),
    ("metadata: {name: 'Bad name'}", "$.metadata.name", "'Bad name'"),
    ("metadata: {name: ''}", "$.metadata.name", "''"),
    # A mount is one of two things.
    ("spec: {files: {mounts: [{}]}}", "$.spec.files.mounts[0]", "needs `source` and `target`, or `tmpfs`"),
    ("spec: {files: {mounts: [{source: a}]}}", "$.spec.files.mounts[0]", "needs `source` and `target`"),
    ("spec: {files: {mounts: [{target: /a}]}}", "$.spec.files.mounts[0]", "needs `source` and `target`"),
    ("spec: {files: {mounts: [{tmpfs: /a, source: b}]}}", "$.spec.files.mounts[0]", "`tmpfs` and `size_mib` alone"),
    ("spec: {files: {mounts: [{tmpfs: /a, access: rw}]}}", "$.spec.files.mounts[0]", "`tmpfs` and `size_mib` alone"),
    (
        "spec: {files: {mounts: [{source: a, target: /b, size_mib: 1}]}}",
        "$.spec.files.mounts[0]",
        "`size_mib` is for tmpfs",
    ),
]


@pytest.mark.parametrize(("text", "path", "fragment"), REFUSED, ids=[text for text, _, _ in REFUSED])
def test_refused_with_path_and_reason(text: str, path: str, fragment: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_document((HEAD + text).encode(), name="bad.yaml")
    assert caught.value.path == path
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("name", "path", "fragment"),
    [
        ("not-yaml.yaml", "$", "not-yaml.yaml can't be read"),
        ("not-toml.toml", "$", "not-toml.toml can't be read"),
        ("not-json.json", "$", "not-json.json can't be read"),
        ("not-text.yaml", "$", "not-text.yaml can't be read"),
        ("empty.yaml", "$", "holds no sandbox"),
        ("a-list.json", "$", "have: list"),
        ("no-version.yaml", "$", "missing required field `apiVersion`"),
        ("other-version.yaml", "$.apiVersion", "'immure.dev/v2'"),
        ("other-kind.yaml", "$.kind", "'Pod'"),
    ],
)
def test_a_file_that_is_no_sandbox_is_refused(name: str, path: str, fragment: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_document((DOCUMENTS / name).read_bytes(), name=name)
    assert caught.value.path == path
    assert fragment in str(caught.value)


def test_every_bad_document_is_looked_at() -> None:
    assert len(list(DOCUMENTS.iterdir())) == 9


@pytest.mark.parametrize(
    ("text", "path", "fragment"),
    [
        ("spec: {env: {A: 1}}", "$.spec.env", "expected `str`, got `int`"),
        ("spec: {env: {A: null}}", "$.spec.env", "got `null`"),
        ("spec: {protections: {landlock: maybe}}", "$.spec.protections", "'maybe'"),
    ],
)
def test_a_bad_value_in_a_table_names_the_table(text: str, path: str, fragment: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_document((HEAD + text).encode(), name="bad.yaml")
    assert caught.value.path.startswith(path)
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("text", "path", "fragment"),
    [
        ("spec: {protections: {landlok: best_effort}}", "$.spec.protections", "did you mean 'landlock'?"),
        ("spec: {protections: {1: best_effort}}", "$.spec.protections", "expected `str`, got `int`"),
        ("spec: {env: {1: a}}", "$.spec.env", "expected `str`, got `int`"),
        ("spec: {1: a}", "$.spec", "expected `str`"),
    ],
)
def test_a_bad_key_of_a_table_names_the_table(text: str, path: str, fragment: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_document((HEAD + text).encode(), name="bad.yaml")
    assert caught.value.path == path
    assert fragment in str(caught.value)
