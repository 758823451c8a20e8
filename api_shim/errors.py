"""Errors as the API answers them: one JSON shape for whatever went wrong, on whichever layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec
from starlette.responses import Response

from core.errors import FiligraneError, InvalidInput, Unavailable


class LengthRequired(FiligraneError):
    status = 411
    default_code = "length_required"


class MethodNotAllowed(FiligraneError):
    status = 405
    default_code = "method_not_allowed"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"{method} is not possible here; allowed: {allowed}")
        self.allowed = allowed


class NotAcceptable(FiligraneError):
    status = 406
    default_code = "not_acceptable"


class TooManyRequests(FiligraneError):
    status = 429
    default_code = "too_many_requests"

    def __init__(self, details: str, *, retry_after: int) -> None:
        super().__init__(details)
        self.retry_after = retry_after


class TimedOut(FiligraneError):
    status = 504
    default_code = "timeout"


class RangeNotSatisfiable(FiligraneError):
    status = 416
    default_code = "range_not_satisfiable"

    def __init__(self, length: int) -> None:
        super().__init__(f"the object has {length} bytes, none of them in that range")
        self.length = length


class PayloadTooLarge(InvalidInput):
    default_code = "payload_too_large"


class ParseError(InvalidInput):
    default_code = "parse_error"


class InvalidFields(InvalidInput):
    """One or more parameters are wrong; `fields` says for each what it should be."""

    default_code: ClassVar[str] = "invalid_parameters"

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in fields.items()))
        self.fields = dict(fields)


class FieldProblem(msgspec.Struct, frozen=True):
    field: str
    details: str


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """`detail` repeats `details`, for clients that know REST framework's spelling."""

    status_code: int
    code: str
    details: str | dict[str, list[str]]
    detail: str | dict[str, list[str]]
    errors: list[FieldProblem] | None = None


INTERNAL: Final = FiligraneError("something went wrong on the server; the request id helps its operator to find out what")


def error_body(error: FiligraneError) -> bytes:
    """The JSON document for the error."""
    if isinstance(error, InvalidFields):
        nested = {name: [problem] for name, problem in error.fields.items()}
        problems = [FieldProblem(name, problem) for name, problem in error.fields.items()]
        return msgspec.json.encode(ErrorBody(error.status, error.code, nested, nested, problems))
    return msgspec.json.encode(ErrorBody(error.status, error.code, error.details, error.details))


def error_response(error: FiligraneError) -> Response:
    headers: dict[str, str] = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Token"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allowed
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.length}"
    if isinstance(error, TooManyRequests | Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    return Response(error_body(error), status_code=error.status, headers=headers, media_type="application/json")
