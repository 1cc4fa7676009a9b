"""Boxes in a Sentry that stay for one attempt after the other: a start costs as much as several attempts."""

from __future__ import annotations

import immure
from security.attempt import Attempt
from security.boxes import attempt_in_box
from security.build import copied_attempts
from security.report import Report, parsed
from security.scenes import Stage

# What a box gets of its caller when it is made, so that one made before has nothing to find.
_AT_THE_START = {"environment", "leaky_descriptors"}


class KeptBoxes:
    """One L3 box for each set of mounts, until `close`. An attempt gets its own where what it is after needs one."""

    def __init__(self) -> None:
        self._boxes: dict[tuple[tuple[str, str, str], ...], immure.Sandbox] = {}

    def attempt(self, attempt: Attempt, stage: Stage) -> Report:
        if stage.stdin is not None or _AT_THE_START & set(attempt.scenes):
            return attempt_in_box(attempt, stage, level="L3")
        result = self.box(stage).exec(stage.command("/attempts", attempt, stage.inside), timeout_s=60)
        return parsed(attempt.name, result.stdout.text(), f"{result.exit}, {result.stderr.text()}")

    def box(self, stage: Stage) -> immure.Sandbox:
        key = tuple(stage.mounts)
        if key in self._boxes and not self._boxes[key]._box.alive():
            # Whatever ended it has failed its own test.
            self._boxes.pop(key).close()
        if key not in self._boxes:
            mounts = [*key, (str(copied_attempts()), "/attempts", "ro")]
            box = immure.Sandbox(level="L3", network="none", user=1000, mounts=mounts)
            self._boxes[key] = box
            assert box.evidence().awarded == "L3"
        return self._boxes[key]

    def close(self) -> None:
        for box in self._boxes.values():
            box.close()
        self._boxes.clear()
