"""A channel through a machine's port, many times to and fro: each word comes, and none waits for the next one."""

from __future__ import annotations

import select
from typing import Any

import pytest

from immure import PIPE, Sandbox

pytestmark = pytest.mark.rootless
#: Of a guest that polled its port twice in one call, one in some 2,000 to 10,000 was only heard with the next.
COUNT = 10_000
PATIENCE_S = 20.0


def test_no_word_waits_for_the_next(kernel: Any, image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMURE_KERNEL", str(kernel))
    count = "n=0; while read -r line; do n=$((n+1)); echo $n; done"
    with (
        Sandbox(runtime="qemu", level="L3", image=str(image), workdir="/") as box,
        box.start(["/bin/sh", "-c", count], stdin=PIPE) as counting,
    ):
        assert counting.stdin is not None
        for number in range(1, COUNT + 1):
            counting.stdin.write(b"x\n")
            assert select.select([counting.stdout.fileno()], [], [], PATIENCE_S)[0], number
            assert counting.stdout.readline() == b"%d\n" % number
