"""Errors as HTTP says them: a status, and the error object of every JSON document."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from msgspec import Struct

from immure.daemon.bodies import Error, ErrorDocument
from immure.daemon.machines import NoMachine
from immure.errors import BoxLost, ImmureError, RuntimeUnavailable, SpecError, VmmRefused, WrongState

#: The first that fits.
_STATUSES: tuple[tuple[type[ImmureError], int], ...] = (
    (NoMachine, 404),
    (SpecError, 400),
    (WrongState, 409),
    (RuntimeUnavailable, 503),
    (BoxLost, 502),
)
_WORDS = {
    401: ("IMM-AUTH", "a bearer token is needed"),
    404: ("IMM-NO-ROUTE", "there is nothing of that path"),
    405: ("IMM-NO-METHOD", "this can't be done with that path"),
    413: ("IMM-TOO-LONG", "the body is too long"),
}


class _Refused(Struct, frozen=True):
    message: str
    key: str = ""


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorDocument]:
    """What a request that failed is answered with. What is not foreseen says nothing of its inside."""
    if isinstance(error, ImmureError):
        return Response(ErrorDocument(_of(error)), status_code=_status(error))
    if isinstance(error, ValidationException):
        return Response(ErrorDocument(_of(_invalid(error))), status_code=400)
    if isinstance(error, RecursionError):
        return Response(ErrorDocument(_of(SpecError("the body is nested too deeply"))), status_code=400)
    if isinstance(error, HTTPException) and error.status_code < 500:
        code, words = _WORDS.get(error.status_code, ("IMM-HTTP", "the request can't be understood"))
        return Response(
            ErrorDocument(Error(code, words, have=f"{request.method} {request.url.path[:200]}: {error.detail[:200]}")),
            status_code=error.status_code,
            headers=error.headers,
        )
    request.logger.error("immure serve: %s", repr(error), exc_info=error)
    return Response(ErrorDocument(Error("IMM-ERROR", "an error of the daemon itself")), status_code=500)


def _status(error: ImmureError) -> int:
    if isinstance(error, VmmRefused):
        return error.status if 400 <= error.status < 500 else 502
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def _of(error: ImmureError) -> Error:
    return Error(error.code, error.message, error.need, error.have, error.hint)


def _invalid(error: ValidationException) -> SpecError:
    """Of what a body's model refused, the first."""
    found = msgspec.convert(error.extra or [], list[_Refused])
    if not found:
        return SpecError(error.detail, need="a body that can be read")
    key = found[0].key
    # Of the whole body the framework says the name of our own parameter.
    path = key if key.startswith("$") else f"$.{key}" if key not in ("", "data") else "$"
    return SpecError(found[0].message, path=path)
