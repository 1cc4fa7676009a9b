"""CPython's own tests of system calls pass in a box as they pass outside.

They come with Debian's libpython3.11-testsuite. Outside they run as a user without privileges, since the box's user
has none.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mustwork.boxes import in_box

_SUITE = Path("/usr/lib/python3.11/test/test_os.py")

# The report is last on standard output; what the tests print is kept only for a run that has none.
_RUN = """
cd "$(mktemp -d)"
/usr/bin/python3 -m test --junit-xml report.xml test_os test_subprocess test_signal > log 2>&1
cat report.xml || cat log
"""

# What passes outside and not in the box, each with the reason.
JUSTIFIED = {
    "test.test_os.MakedirTests.test_exist_ok_s_isgid_directory": "skipped: the guard refuses setgid, as it must",
    **dict.fromkeys(
        (
            "test.test_os.FileTests.test_splice",
            "test.test_os.FileTests.test_splice_offset_in",
            "test.test_os.FileTests.test_splice_offset_out",
            "test.test_os.TestSendfile.test_keywords",
            "test.test_os.TestSendfile.test_send_at_certain_offset",
            "test.test_os.TestSendfile.test_send_whole_file",
        ),
        "the guard refuses splice and sendfile, by which a pipe's lock can be held",
    ),
}

# The same where a plain user's box maps few ids: the kernel says EINVAL, not EPERM, to one that isn't mapped.
JUSTIFIED_WITH_FEW_IDS = {
    "test.test_os.ChownFileTests.test_chown_without_permission": "changes the owner to nobody",
    "test.test_subprocess.POSIXProcessTestCase.test_group": "becomes the group nogroup",
    "test.test_subprocess.POSIXProcessTestCase.test_user": "becomes the user nobody",
}


def _outcomes(report: str) -> dict[str, str]:
    outcomes = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            outcome = "failed"
        elif "skipped" in kinds or case.get("status") != "run":
            outcome = "skipped"
        else:
            outcome = "passed"
        outcomes[case.get("name", "")] = outcome
    return outcomes


def _outside() -> str:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    result = subprocess.run(
        [*nobody, "/bin/sh", "-c", _RUN],
        env={"PATH": os.environ["PATH"], "HOME": "/tmp", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
    )
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not _SUITE.exists(), reason="libpython3.11-testsuite isn't installed")
def test_what_passes_outside_passes_in_the_box() -> None:
    with ThreadPoolExecutor() as both:
        outside = both.submit(_outside)
        inside = both.submit(in_box, ["/bin/sh", "-c", _RUN], limits={"timeout_s": 500})
        expected, found = _outcomes(outside.result()), _outcomes(inside.result())
    assert Counter(expected.values())["passed"] > 500, "the suite outside is whole"
    differ = {
        name: f"{expected[name]} outside, {found.get(name, 'missing')} in the box"
        for name in expected
        if expected[name] == "passed" and found.get(name) != "passed"
    }
    justified = JUSTIFIED if _nobody_is_mapped() else {**JUSTIFIED, **JUSTIFIED_WITH_FEW_IDS}
    assert not differ.keys() - justified.keys(), differ


def _nobody_is_mapped() -> bool:
    lines = in_box(["/bin/cat", "/proc/self/uid_map"]).splitlines()
    return any(int(first) <= 65534 < int(first) + int(count) for first, _, count in map(str.split, lines))
