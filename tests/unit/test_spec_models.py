"""Defaults, and that nothing changes once it is made."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
from hosts import make_spec

from immure.errors import SpecError
from immure.spec.loading import convert
from immure.spec.models import PROTECTIONS, Level, Limits, Metadata, Mount, SandboxSpec


def test_the_defaults_are_the_decided_ones() -> None:
    spec = SandboxSpec()
    assert spec == make_spec()
    assert (spec.level, spec.runtime, spec.image) == (Level.L2, "auto", "host")
    assert (spec.command, spec.env, spec.workdir) == ((), {}, None)
    assert (spec.syscalls.profile, spec.files.landlock, spec.files.mounts) == ("default", "auto", ())
    assert spec.network.mode == "none"
    assert (spec.processes.user, spec.processes.namespaces, spec.processes.no_new_privileges) == (1000, "all", True)
    assert (spec.processes.capabilities.add, spec.processes.capabilities.drop) == ((), ("ALL",))
    assert spec.limits == Limits()
    assert spec.protections == {}
    assert Metadata().name == "immure"


def test_a_limit_that_was_not_written_is_none() -> None:
    limits = SandboxSpec().limits
    assert {getattr(limits, name) for name in limits.__struct_fields__} == {None}


def test_a_mount_is_read_only_unless_it_says_otherwise() -> None:
    assert Mount(source="a", target="/a").access == "ro"


def test_specs_do_not_share_an_environment() -> None:
    assert SandboxSpec().env is not SandboxSpec().env


@pytest.mark.parametrize("name", SandboxSpec.__struct_fields__)
def test_a_spec_is_frozen(name: str) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        setattr(SandboxSpec(), name, None)


def test_the_protections_are_those_of_the_model() -> None:
    names, _ = get_args(get_type_hints(SandboxSpec)["protections"])
    assert get_args(names) == PROTECTIONS
    for name in PROTECTIONS:
        assert make_spec(protections={name: "best_effort"}).protections == {name: "best_effort"}


def test_levels_are_in_their_order() -> None:
    assert sorted(Level) == [Level.L0, Level.L1, Level.L2, Level.L3, Level.L4]
    assert str(Level.L2) == "L2"


@pytest.mark.parametrize(
    ("limit", "least", "most"),
    [
        ("memory_mib", 4, 16_777_216),
        ("cpus", 0.01, 4096),
        ("pids", 1, 4_194_304),
        ("disk_mib", 1, 16_777_216),
        ("timeout_s", 0.001, 31_536_000),
        ("output_mib", 0.001, 1_048_576),
    ],
)
def test_both_ends_of_a_range_belong_to_it(limit: str, least: float, most: float) -> None:
    for value in (least, most):
        assert getattr(make_spec(limits={limit: value}).limits, limit) == value


@pytest.mark.parametrize("name", ["a", "a-b", "0", "a" * 63])
def test_names_that_a_host_may_have(name: str) -> None:
    assert convert({"name": name}, Metadata).name == name


@pytest.mark.parametrize("name", ["-a", "a-", "A", "a_b", "a.b", "a" * 64, "a b", "ä", "a\n"])
def test_names_that_no_host_may_have(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        convert({"name": name}, Metadata, path="$.metadata")
    assert caught.value.path == "$.metadata.name"
