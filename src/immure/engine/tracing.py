"""From the names of trace points to a box's Sentry that reports them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from immure.engine import cache
from immure.engine.denials import denial_points
from immure.errors import RuntimeUnavailable, SpecError
from immure.policy.seccomp.abi import find_abi
from immure.policy.seccomp.syscalls import numbers
from immure.runtimes.gvisor.trace import (
    DEFAULT_CONTEXT,
    Offer,
    Trace,
    choose_points,
    default_points,
)

if TYPE_CHECKING:
    from immure.runtimes.base import Box
    from immure.runtimes.gvisor.box import GVisorBox
    from immure.runtimes.gvisor.session import SentrySession

_offers: dict[str, Offer] = {}


class Wanted(msgspec.Struct, frozen=True):
    """What is to be reported: points, or the default ones, and beside what each always says fields of two kinds.

    With `denials` the points are those at which it is seen what was refused.
    """

    points: tuple[str, ...] | None = None
    context: tuple[str, ...] | None = None
    optional: tuple[str, ...] = ()
    denials: bool = False


def wanted(points: Sequence[str] | None, context: Sequence[str] | None, optional: Sequence[str]) -> Wanted:
    """The same from a caller's sequences. Raises SpecError for a string, which is one too."""
    for path, names in (("points", points), ("context", context), ("optional", optional)):
        if isinstance(names, str):
            raise SpecError("these are several names", path=path, need="a list of names", have=repr(names))
    return Wanted(
        tuple(points) if points is not None else None,
        tuple(context) if context is not None else None,
        tuple(optional),
    )


def check_traceable(runtime: str, level: str) -> None:
    """Raises RuntimeUnavailable for a box that has no kernel of its own in user space."""
    if runtime != "gvisor":
        raise RuntimeUnavailable(
            "only a box with a Sentry can be traced",
            need="level L3 (runtime gvisor)",
            have=f"a box of level {level} (runtime {runtime})",
            hint='make it with level="L3"',
        )


def begin_session(box: Box, level: str, wanted: Wanted) -> SentrySession:
    """A session that has not begun. Raises RuntimeUnavailable, SpecError and BoxError."""
    check_traceable(box.launch.runtime, level)
    from immure.runtimes.gvisor.box import GVisorBox
    from immure.runtimes.gvisor.session import SentrySession

    assert isinstance(box, GVisorBox)
    offer = _offer(box)
    if wanted.denials:
        points = denial_points(offer)
    elif wanted.points is None:
        points = default_points(offer)
    else:
        points = choose_points(wanted.points, offer, numbers=numbers(find_abi(os.uname().machine)))
    offered = {field for name in points for field in offer.points[name].context_fields}
    context = wanted.context
    if context is None:
        context = tuple(field for field in DEFAULT_CONTEXT if field in offered)
    return SentrySession(box, points, offer, context=context, optional=wanted.optional)


def open_trace(box: Box, level: str, wanted: Wanted, max_events: int, max_bytes: int) -> Trace:
    """The events of a box from now on. Raises as `begin_session`, and SpecError for bounds that there are not."""
    session = begin_session(box, level, wanted)
    return Trace(session.listening, session, max_events=max_events, max_bytes=max_bytes)


def _offer(box: GVisorBox) -> Offer:
    """What the runsc of a box can report, asked for once for each content of that program."""
    key = "trace-" + cache.key_of(box.launch.programs)
    offer = _offers.get(key) or _stored(key)
    if offer is None:
        from immure.runtimes.gvisor.session import read_offer

        offer = read_offer(box)
        cache.store(key, msgspec.msgpack.encode(offer))
    _offers[key] = offer
    return offer


def _stored(key: str) -> Offer | None:
    content = cache.load(key)
    if not isinstance(content, bytes):
        return None
    try:
        return msgspec.msgpack.decode(content, type=Offer)
    except msgspec.DecodeError:
        return None
