"""The rules that follow from a box's mounts, and the kernels that are too old for them."""

from __future__ import annotations

import pytest
from hosts import clauses, compiled, make_facts, make_spec, mounts

from immure.errors import ProtectionUnavailable
from immure.policy.landlock import FILE_RIGHTS, Fs, handled_fs, scopes

CHANGING = Fs.WRITE_FILE | Fs.TRUNCATE | Fs.REMOVE_FILE | Fs.REMOVE_DIR | Fs.MAKE_REG | Fs.MAKE_DIR | Fs.REFER


def rules(spec_fields: dict[str, object] | None = None, *, abi: int = 7, files: tuple[str, ...] = ()) -> dict[str, Fs]:
    plan = compiled(make_spec(**(spec_fields or {})), make_facts(landlock_abi=abi), files=files)
    assert plan.landlock is not None
    return {rule.path: Fs(rule.access) for rule in plan.landlock.rules}


@pytest.mark.parametrize("abi", [0, 1, 2])
@pytest.mark.parametrize("protections", [{}, {"landlock": "required"}, {"landlock": "best_effort"}])
def test_l2_needs_the_abi_with_truncation(abi: int, protections: dict[str, str]) -> None:
    with pytest.raises(ProtectionUnavailable) as caught:
        compiled(make_spec(level="L2", protections=protections), make_facts(landlock_abi=abi))
    error = caught.value
    assert error.protection == "files.landlock"
    assert error.need == "Landlock ABI 3 (Linux 6.2)"
    assert error.have == (f"ABI {abi}" if abi else "no Landlock")


@pytest.mark.parametrize("abi", [0, 1, 2])
def test_l1_needs_it_too_unless_opted_down(abi: int) -> None:
    facts = make_facts(landlock_abi=abi)
    with pytest.raises(ProtectionUnavailable):
        compiled(make_spec(level="L1"), facts)
    plan = compiled(make_spec(level="L1", protections={"landlock": "best_effort"}), facts)
    assert (plan.landlock is None) == (abi == 0)
    if plan.landlock is not None:
        assert plan.landlock.handled_fs == handled_fs(abi)


def test_no_landlock_is_reported() -> None:
    plan = compiled(make_spec(level="L1", protections={"landlock": "best_effort"}), make_facts(landlock_abi=0))
    assert clauses(plan)["files.landlock"] == ("unenforceable", "nothing")


@pytest.mark.parametrize("abi", [1, 2])
def test_an_old_landlock_is_not_reported_as_exact(abi: int) -> None:
    plan = compiled(make_spec(level="L1", protections={"landlock": "best_effort"}), make_facts(landlock_abi=abi))
    (clause,) = [one for one in plan.report if one.clause == "files.landlock"]
    assert clause.got == "approximated"
    assert "truncat" in clause.why


@pytest.mark.parametrize("abi", [3, 4, 5, 6, 7, 8, 9])
def test_every_right_of_the_abi_is_handled(abi: int) -> None:
    plan = compiled(make_spec(), make_facts(landlock_abi=abi))
    assert plan.landlock is not None
    assert plan.landlock.handled_fs == handled_fs(abi)
    assert plan.landlock.scoped == scopes(abi)
    assert all(rule.access & ~plan.landlock.handled_fs == 0 for rule in plan.landlock.rules)
    assert clauses(plan)["files.landlock"] == ("exact", f"landlock/{abi}")


def test_off_is_off() -> None:
    plan = compiled(make_spec(level="L1", files={"landlock": "off"}), make_facts(landlock_abi=0))
    assert plan.landlock is None
    assert clauses(plan)["files.landlock"] == ("exact", "nothing to do")


def test_only_private_space_can_be_changed() -> None:
    changeable = {path for path, access in rules().items() if access & (CHANGING & ~(Fs.WRITE_FILE | Fs.TRUNCATE))}
    assert changeable == {"/tmp", "/dev/shm"}
    writable = {path for path, access in rules().items() if access & Fs.WRITE_FILE}
    assert writable == {"/tmp", "/dev/shm", "/proc", "/dev"}


def test_programs_run_from_the_image_and_from_mounts_alone() -> None:
    found = rules({"files": mounts({"source": "/a", "target": "/a"})})
    assert {path for path, access in found.items() if access & Fs.EXECUTE} == {
        "/usr",
        "/etc/alternatives",
        "/tmp",
        "/dev/shm",
        "/a",
    }


def test_the_root_can_be_listed_and_no_more() -> None:
    assert rules()["/"] == Fs.READ_DIR


def test_ioctl_on_devices_is_for_dev_alone() -> None:
    assert {path for path, access in rules().items() if access & Fs.IOCTL_DEV} == {"/dev"}


@pytest.mark.parametrize(
    ("entry", "target", "changes"),
    [
        ({"source": "/src", "target": "/a/b"}, "/a/b", False),
        ({"source": "/src", "target": "//a/./b/"}, "/a/b", False),
        ({"source": "/src", "target": "/a", "access": "rw"}, "/a", True),
        ({"tmpfs": "/a"}, "/a", True),
    ],
)
def test_a_mount_gets_a_rule_at_its_target(entry: dict[str, object], target: str, changes: bool) -> None:
    access = rules({"files": mounts(entry)})[target]
    assert bool(access & CHANGING) == changes
    assert access & (Fs.READ_FILE | Fs.READ_DIR | Fs.EXECUTE) == Fs.READ_FILE | Fs.READ_DIR | Fs.EXECUTE


@pytest.mark.parametrize(("access", "writes"), [("ro", False), ("rw", True)])
def test_the_rule_of_a_file_has_rights_of_files_alone(access: str, writes: bool) -> None:
    """The kernel refuses a rule with folders' rights on a file."""
    entries = mounts({"source": "/d", "target": "/d"}, {"source": "/f", "target": "/f", "access": access})
    found = rules({"files": entries}, files=("/f",))
    assert found["/f"] & ~FILE_RIGHTS == 0
    assert bool(found["/f"] & Fs.WRITE_FILE) == writes
    assert found["/d"] & Fs.READ_DIR


def test_no_rule_covers_the_sentinel() -> None:
    plan = compiled(make_spec(files=mounts({"source": "/a", "target": "/a", "access": "rw"})))
    assert plan.landlock is not None
    sentinel = plan.landlock.sentinel
    above = {rule.path: rule.access for rule in plan.landlock.rules if sentinel.startswith(rule.path.rstrip("/") + "/")}
    assert above == {"/": Fs.READ_DIR}
    assert any(getattr(op, "path", "") == sentinel.lstrip("/") for op in plan.template)


def test_tcp_is_handled_where_there_is_no_network_namespace() -> None:
    def handled(abi: int, **fields: object) -> int:
        plan = compiled(make_spec(level="L1", **fields), make_facts(landlock_abi=abi))
        assert plan.landlock is not None
        return plan.landlock.handled_net

    none = {"processes": {"namespaces": "none"}}
    assert handled(7, **none) == 0b11
    assert handled(3, **none) == 0
    assert handled(7, **none, network={"mode": "host"}) == 0
    assert handled(7) == 0
