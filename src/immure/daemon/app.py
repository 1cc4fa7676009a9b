"""The daemon's application: routes, errors, what a request must bring, and the description of it all."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import Litestar
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from immure import __version__
from immure.daemon import faults
from immure.daemon.machines import Machines
from immure.daemon.routes import Vms

#: Bodies are configuration.
MOST_BODY_BYTES = 64 * 1024
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]


def make_app(machines: Machines) -> Litestar:
    """The application, which ends the machines when it ends."""
    return Litestar(
        [Vms],
        state=State({"machines": machines}),
        exception_handlers={Exception: faults.answer},
        request_max_body_size=MOST_BODY_BYTES,
        on_shutdown=[machines.close],
        openapi_config=OpenAPIConfig(
            title="immure /vms",
            version=__version__,
            description="Virtual machines over HTTP: one jailed process of Firecracker each.",
            path="/openapi",
            render_plugins=[JsonRenderPlugin(path="/vms.json")],
        ),
        debug=False,
    )


def with_token(app: Application, token: bytes, socket: str) -> Application:
    """The same, but what does not come over the Unix socket of that path must bring the token. RFC 6750."""
    wanted = b"Bearer " + token

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("server") == (socket, None) or _brings(scope, wanted):
            await app(scope, receive, send)
            return
        await _refuse(send)

    return gate


def _brings(scope: Scope, wanted: bytes) -> bool:
    brought = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    return len(brought) == 1 and hmac.compare_digest(brought[0], wanted)


async def _refuse(send: Send) -> None:
    error = {
        "code": "IMM-AUTH",
        "message": "a bearer token is needed here",
        "need": "the header `Authorization: Bearer TOKEN`, with the daemon's token",
        "have": "none, or another",
        "hint": "the token is in the daemon's --token-file; on its Unix socket none is needed",
    }
    content = msgspec.json.encode({"error": error, "schema": "immure.error/v1"})
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": content})
