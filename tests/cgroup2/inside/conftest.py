"""What tests in the guest get: the command line, and the check that nothing is left behind."""

import pytest

pytest.register_assert_rewrite("cgroup2.inside.refusals")

from integration.conftest import cli, nothing_left, orphans_are_ours, shared_cli  # noqa: E402

__all__ = ["cli", "nothing_left", "orphans_are_ours", "shared_cli"]
