"""Evidence as users get it."""

from __future__ import annotations

import hashlib

import msgspec
from hosts import launched, make_spec
from readbacks import HOST, PROGRAMS, Items, expected, item, line, number, plain_readback, readback

from immure.evidence.levels import L2_PARTS
from immure.evidence.models import Evidence, make_evidence
from immure.evidence.readback import judge

LAUNCH = launched(make_spec())


def evidence(items: Items) -> Evidence:
    return make_evidence("abc", LAUNCH, items, judge(items, expected(), HOST))


def test_all_that_was_measured_is_told() -> None:
    found = evidence(readback())
    assert (found.schema, found.box, found.taken) == ("immure.evidence/v1", "abc", "before_first_command")
    assert (found.boundary, found.accelerated, found.hardware) == ("kernel", False, False)
    assert (found.plan_sha256, found.host_sha256) == (LAUNCH.plan_sha256, LAUNCH.host_sha256)
    assert (found.awarded, found.capped_by, found.mac) == ("L2", (), "landlock/7")
    assert {one.part for one in found.parts} == L2_PARTS
    assert all(one.held for one in found.parts)


def test_the_host_readback() -> None:
    host = evidence(readback()).host
    assert host.uid_map == host.gid_map == "0 1879048192      65536"
    assert host.namespaces == {name.removeprefix("ns/"): inode + 1000 for name, inode in HOST.items()}
    assert host.no_new_privs is True
    assert host.capabilities == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
    assert host.seccomp_sha256 == hashlib.sha256(b"".join(PROGRAMS)).hexdigest()
    assert host.seccomp_why == ""
    assert host.cgroup == "0::/"


def test_a_plain_user_gets_no_hash_but_the_reason() -> None:
    host = evidence(plain_readback()).host
    assert host.seccomp_sha256 is None
    assert "root alone" in host.seccomp_why


def test_what_caps_the_level_is_named() -> None:
    items = readback()
    item("sentinel.after", number(0))(items, {}, {})
    found = evidence(items)
    assert (found.awarded, found.capped_by, found.mac) == ("L1", ("files.mac",), None)
    (part,) = [one for one in found.parts if not one.held]
    assert (part.part, part.why) == ("files.mac", "the sentinel was not stopped by Landlock")
    line("NoNewPrivs", "0")(items, {}, {})
    found = evidence(items)
    assert (found.awarded, found.capped_by) == ("L0", ("identity.no_new_privs",))
    assert found.host.no_new_privs is False


def test_what_was_not_read_is_empty_and_not_made_up() -> None:
    found = evidence({})
    assert found.awarded == "L0"
    assert (found.host.uid_map, found.host.namespaces, found.host.capabilities) == ("", {}, {})
    assert (found.host.no_new_privs, found.host.seccomp_sha256) == (False, None)


def test_it_is_a_document() -> None:
    document = msgspec.json.decode(msgspec.json.encode(evidence(readback())))
    assert set(document) == {
        "schema", "box", "plan_sha256", "host_sha256", "taken", "boundary", "accelerated", "hardware", "mac", "host",
        "parts", "awarded", "capped_by",
    }  # fmt: skip
    assert msgspec.convert(document, Evidence) == evidence(readback())
