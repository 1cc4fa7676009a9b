"""What a user who is not root hears of `immure serve`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.rootless
def test_a_plain_user_has_no_jailer() -> None:
    if os.geteuid() == 0:
        pytest.skip("rootless: this is root")
    done = subprocess.run([sys.executable, "-m", "immure", "serve"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Firecracker's jailer can't be run by this user" in done.stderr
    assert "runtime qemu" in done.stderr
