"""What is made of a reading of a Sentry's filters."""

from __future__ import annotations

import msgspec
import pytest

from immure.runtimes.gvisor import sentry
from immure.runtimes.gvisor.sentry import SentryReading

#: `return SECCOMP_RET_ALLOW` and `return SECCOMP_RET_KILL_PROCESS`, as packed `struct sock_filter`s.
OPEN, SHUT = bytes.fromhex("0600000000 00ff7f"), bytes.fromhex("0600000000 000080")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([SHUT], b"nothing"),
        ([OPEN, SHUT], b"nothing"),
        ([OPEN], b"execve execveat mount pivot_root init_module bpf keyctl open_by_handle_at setns"),
        (16, b"all"),
        # A kernel without CONFIG_CHECKPOINT_RESTORE says so of all. That there is a filter is seen in the status.
        ([], b"unread"),
    ],
)
def test_what_is_said_of_filters(answer: object, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry, "below", lambda _: [])
    monkeypatch.setattr(sentry, "_begin_reading", lambda pids: pids)
    monkeypatch.setattr(sentry, "_finish", lambda pids: msgspec.msgpack.encode(dict.fromkeys(pids, answer)))
    assert SentryReading(1, root=True)._let_through([7]) == {7: said}
