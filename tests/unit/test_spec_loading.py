"""YAML, TOML and JSON into the same document, and whatever else into a SpecError."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from immure.errors import SpecError
from immure.spec.loading import load_document
from immure.spec.models import Document, Level

YAML = b"""
apiVersion: immure.dev/v1
kind: Sandbox
metadata: {name: grader}
spec:
  level: L1
  command: [python3, main.py]
  env: {LANG: C.UTF-8}
  workdir: /work
  syscalls: {profile: ./profile.json}
  files:
    landlock: auto
    mounts:
      - {source: ., target: /work, access: rw}
      - {tmpfs: /scratch, size_mib: 64}
  network: {mode: host}
  processes: {user: 7, capabilities: {add: [NET_RAW], drop: [ALL]}}
  limits: {memory_mib: 512, cpus: 1.5, pids: 128, disk_mib: 99, timeout_s: 60, output_mib: 0.5}
  protections: {landlock: required, memory: best_effort}
"""
TOML = b"""
apiVersion = "immure.dev/v1"
kind = "Sandbox"
[metadata]
name = "grader"
[spec]
level = "L1"
command = ["python3", "main.py"]
env = {LANG = "C.UTF-8"}
workdir = "/work"
syscalls = {profile = "./profile.json"}
network = {mode = "host"}
processes = {user = 7, capabilities = {add = ["NET_RAW"], drop = ["ALL"]}}
limits = {memory_mib = 512, cpus = 1.5, pids = 128, disk_mib = 99, timeout_s = 60, output_mib = 0.5}
protections = {landlock = "required", memory = "best_effort"}
[spec.files]
landlock = "auto"
mounts = [{source = ".", target = "/work", access = "rw"}, {tmpfs = "/scratch", size_mib = 64}]
"""
HEAD = b"apiVersion: immure.dev/v1\nkind: Sandbox\n"


def test_every_field_is_read() -> None:
    document = load_document(YAML, name="grader.yaml")
    spec = document.spec
    assert document.metadata.name == "grader"
    assert (spec.level, spec.command, spec.env, spec.workdir) == (
        Level.L1,
        ("python3", "main.py"),
        {"LANG": "C.UTF-8"},
        "/work",
    )
    assert spec.syscalls.profile == "./profile.json"
    first, second = spec.files.mounts
    assert (first.source, first.target, first.access) == (".", "/work", "rw")
    assert (second.tmpfs, second.size_mib) == ("/scratch", 64)
    assert (spec.network.mode, spec.processes.user, spec.processes.capabilities.add) == ("host", 7, ("NET_RAW",))
    assert (spec.limits.memory_mib, spec.limits.cpus, spec.limits.timeout_s) == (512, 1.5, 60)
    assert spec.protections == {"landlock": "required", "memory": "best_effort"}


def test_the_three_forms_say_the_same() -> None:
    from_yaml = load_document(YAML, name="a.yaml")
    assert load_document(TOML, name="a.toml") == from_yaml
    assert load_document(msgspec.json.encode(msgspec.yaml.decode(YAML)), name="a.json") == from_yaml


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "sandbox", "a.txt", "-"])
def test_yaml_is_what_has_no_other_suffix(name: str) -> None:
    assert load_document(HEAD, name=name) == Document(api_version="immure.dev/v1", kind="Sandbox")


def test_the_suffix_decides() -> None:
    with pytest.raises(SpecError, match=r"a\.json can't be read"):
        load_document(YAML, name="a.json")
    with pytest.raises(SpecError, match=r"a\.toml can't be read"):
        load_document(YAML, name="a.toml")


def test_a_document_survives_its_own_json() -> None:
    document = load_document(YAML, name="a.yaml")
    assert load_document(msgspec.json.encode(document), name="a.json") == document


@given(st.binary(max_size=200), st.sampled_from(["a.yaml", "a.toml", "a.json"]))
def test_bytes_of_any_kind_are_read_or_refused(content: bytes, name: str) -> None:
    try:
        load_document(content, name=name)
    except SpecError as error:
        assert error.path.startswith("$")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = st.sampled_from(
    ["level", "command", "env", "workdir", "syscalls", "files", "network", "processes", "limits", "protections"]
)


@given(st.dictionaries(_FIELDS, _VALUES, max_size=3))
def test_values_of_any_kind_are_taken_or_refused_with_their_path(fields: dict[str, object]) -> None:
    content = msgspec.json.encode({"apiVersion": "immure.dev/v1", "kind": "Sandbox", "spec": fields})
    try:
        document = load_document(content, name="a.json")
    except SpecError as error:
        assert error.path.startswith("$")
        assert str(error).startswith(error.path)
    else:
        assert document.kind == "Sandbox"


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_nesting_without_end_is_refused(name: str) -> None:
    with pytest.raises(SpecError):
        load_document(b"[" * 100_000, name=name)


def test_a_document_that_holds_itself_is_refused() -> None:
    with pytest.raises(SpecError):
        load_document(HEAD + b"spec: &a {env: *a}", name="a.yaml")


def test_no_object_is_made_from_a_tag() -> None:
    with pytest.raises(SpecError, match="tag"):
        load_document(HEAD + b"spec: !!python/object/apply:os.getpid []", name="a.yaml")


def test_a_key_that_json_has_twice_is_refused() -> None:
    with pytest.raises(SpecError, match=r"\$\.spec: the key `level` is there twice"):
        load_document(b'{"spec": {"level": "L2", "level": "L1"}}', name="a.json")
