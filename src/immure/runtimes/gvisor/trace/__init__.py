"""What the Sentry saw: trace points, the stream of their events, and what they say."""

from __future__ import annotations

from immure.runtimes.gvisor.trace.events import (
    DROPPED,
    MALFORMED,
    UNKNOWN,
    TraceCredentials,
    TraceEvent,
    TraceProcess,
)
from immure.runtimes.gvisor.trace.intake import TraceCounts
from immure.runtimes.gvisor.trace.session import (
    CHOSEN_CONTEXT,
    DEFAULT_CONTEXT,
    DEFAULT_POINTS,
    Offer,
    Point,
    choose_points,
    default_points,
    init_config,
    make_session,
    read_dropped,
    read_metadata,
)
from immure.runtimes.gvisor.trace.stream import MAX_BYTES, MAX_EVENTS, Trace

__all__ = [
    "CHOSEN_CONTEXT",
    "DEFAULT_CONTEXT",
    "DEFAULT_POINTS",
    "DROPPED",
    "MALFORMED",
    "MAX_BYTES",
    "MAX_EVENTS",
    "UNKNOWN",
    "Offer",
    "Point",
    "Trace",
    "TraceCounts",
    "TraceCredentials",
    "TraceEvent",
    "TraceProcess",
    "choose_points",
    "default_points",
    "init_config",
    "make_session",
    "read_dropped",
    "read_metadata",
]
