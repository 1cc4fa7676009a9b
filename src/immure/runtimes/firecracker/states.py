"""Which calls the state of a machine forbids, after the two controllers of Firecracker's src/vmm/src/rpc_interface.rs.

A call is named by its method and the fixed part of its path, an action or a wanted state by its own name.
"""

from __future__ import annotations

from typing import Final

from immure.errors import WrongState
from immure.runtimes.firecracker.models import State

_FRESH: Final = frozenset[State]({"Not started"})
_STARTED: Final = frozenset[State]({"Running", "Paused"})
_PAUSED: Final = frozenset[State]({"Paused"})

#: In which states each call is possible. A call that is not here is so in each.
ALLOWED: Final[dict[str, frozenset[State]]] = {
    "PUT /balloon": _FRESH,
    "PUT /boot-source": _FRESH,
    "PUT /cpu-config": _FRESH,
    "PUT /drives": _FRESH,
    "PUT /entropy": _FRESH,
    "PUT /logger": _FRESH,
    "PUT /machine-config": _FRESH,
    "PATCH /machine-config": _FRESH,
    "PUT /metrics": _FRESH,
    "PUT /mmds/config": _FRESH,
    "PUT /network-interfaces": _FRESH,
    "PUT /vsock": _FRESH,
    "PUT /snapshot/load": _FRESH,
    "InstanceStart": _FRESH,
    "PATCH /balloon": _STARTED,
    "GET /balloon/statistics": _STARTED,
    "PATCH /balloon/statistics": _STARTED,
    "PATCH /drives": _STARTED,
    "PATCH /network-interfaces": _STARTED,
    "FlushMetrics": _STARTED,
    "SendCtrlAltDel": _STARTED,
    "Paused": _STARTED,
    "Resumed": _STARTED,
    "PUT /snapshot/create": _PAUSED,
}

#: What may have been said before a snapshot is loaded; all else counts as configuration of another machine.
BEFORE_LOAD: Final = frozenset({"PUT /logger", "PUT /metrics", "PUT /mmds", "PATCH /mmds", "PUT /snapshot/load"})

_WHAT_TO_DO: Final[dict[frozenset[State], str]] = {
    _FRESH: "configure a machine before InstanceStart; a machine that has started stays as it was made",
    _STARTED: "start the machine first: InstanceStart, or load a snapshot",
    _PAUSED: "pause the machine first",
}


def check(call: str, state: State, configured: frozenset[str] = frozenset()) -> None:
    """Raises WrongState where `call` is not possible in `state`, after the calls in `configured`."""
    allowed = ALLOWED.get(call)
    if allowed is not None and state not in allowed:
        raise WrongState(call, need=" or ".join(sorted(allowed)), have=state, hint=_WHAT_TO_DO[allowed])
    if call == "PUT /snapshot/load" and not configured <= BEFORE_LOAD:
        raise WrongState(
            call,
            need="a machine of which nothing but logger and metrics is configured",
            have=", ".join(sorted(configured - BEFORE_LOAD)),
            hint="load the snapshot into a new machine",
        )


def changes(call: str) -> bool:
    """Whether a call configures something."""
    return call.startswith(("PUT ", "PATCH "))


def after(call: str, state: State, resumed: bool = False) -> State:
    """The state that a call leads to where it succeeds; `resumed`: a snapshot's machine is to run at once."""
    if call in ("InstanceStart", "Resumed"):
        return "Running"
    if call == "Paused":
        return "Paused"
    if call == "PUT /snapshot/load":
        return "Running" if resumed else "Paused"
    return state
