"""`immure serve`: the daemon's process from its beginning to its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from socket import socket as Socket

from immure.daemon import sockets
from immure.daemon.machines import Machines
from immure.errors import RuntimeUnavailable
from immure.runtimes.firecracker import claims
from immure.runtimes.firecracker.programs import find_programs

#: What is under way may come to its end, when the daemon is told to end.
_GRACE_S = 10
_THREADS = 64
_MOMENT_S = 2.0


def serve(*, socket: str | None, listen: str | None, token_file: str | None) -> int:
    """Serves until SIGTERM or SIGINT, and then ends all machines. Raises what keeps it from beginning."""
    programs = find_programs(os.environ)
    _find_framework()
    place = os.environ.get(claims.SETTING) or claims.PLACE
    tcp = token = None
    if listen is not None:
        token = sockets.read_token(token_file)
        tcp = sockets.listen_tcp(listen)
    unix = sockets.UnixListener(socket)
    try:
        _sweep(place)
        # What a daemon was just starting when it was killed has its lock for a moment longer.
        again = threading.Timer(_MOMENT_S, _sweep, [place])
        again.daemon = True
        again.start()
        _run(Machines(programs, place), unix, tcp, token)
    finally:
        unix.close()
        if tcp is not None:
            tcp.close()
    return 0


def _run(machines: Machines, unix: sockets.UnixListener, tcp: Socket | None, token: bytes | None) -> None:
    import uvicorn
    from litestar.concurrency import set_asyncio_executor

    from immure.daemon.app import make_app, with_token

    # Calls wait for their machines, each in a thread: some that are silent must not stop the others.
    set_asyncio_executor(ThreadPoolExecutor(_THREADS, "immure-call"))
    app = make_app(machines)
    gated = app if token is None else with_token(app, token, unix.path)
    config = uvicorn.Config(
        gated,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    # uvicorn raises what ended it once more, when all is done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    listening = [unix.socket] if tcp is None else [unix.socket, tcp]
    _say(f"listening at {unix.path}" + (f" and {_name(tcp)}" if tcp is not None else ""))
    try:
        uvicorn.Server(config).run(sockets=listening)
    finally:
        # Where the application's own end has not come to it.
        machines.close()


def _sweep(place: str) -> None:
    swept = claims.sweep(place)
    if swept:
        _say(f"what {swept} machines of a daemon that was killed have left is removed")


def _find_framework() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("litestar", "uvicorn") if find_spec(name) is None]
    if missing:
        raise RuntimeUnavailable(
            "`immure serve` needs its web framework",
            need="the packages litestar and uvicorn",
            have=f"no {' and no '.join(missing)}",
            hint="pip install 'immure[daemon]'",
        )


def _name(tcp: Socket) -> str:
    host, port = tcp.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say(what: str) -> None:
    sys.stderr.write(f"immure serve: {what}\n")
    sys.stderr.flush()
