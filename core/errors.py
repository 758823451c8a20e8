"""The one tree of errors.

    FiligraneError
    ├── InvalidInput (400)          what came from outside is wrong; the details say what to do
    │   ├── AddressRefused          netguard did not allow the address
    │   └── InvalidImage            the bytes are no picture that can be read within the limits
    ├── Unauthorized (401)
    ├── Forbidden (403)
    ├── NotFound (404)
    │   └── ObjectMissing           no object under that key
    ├── Conflict (409)
    │   └── StaleLease              the lease's epoch is not ours any more: stop, touch nothing
    ├── UnsupportedMedia (415)
    ├── NotBuilt (501)              documented, not built yet
    └── Unavailable (503)           a dependency is away; try again after `retry_after` seconds
        └── Corrupt                 stored bytes do not match their checksum

`code` is stable and machine-readable, `details` is one sentence for a person.
"""

from __future__ import annotations

from typing import ClassVar


class FiligraneError(Exception):
    """Base of every error that this project raises on purpose."""

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal"

    def __init__(self, details: str, *, code: str | None = None) -> None:
        super().__init__(details)
        self.details = details
        self.code = code or self.default_code


class InvalidInput(FiligraneError):
    status = 400
    default_code = "invalid"


class AddressRefused(InvalidInput):
    default_code = "address_refused"


class InvalidImage(InvalidInput):
    default_code = "invalid_image"


class Unauthorized(FiligraneError):
    status = 401
    default_code = "unauthorized"


class Forbidden(FiligraneError):
    status = 403
    default_code = "forbidden"


class NotFound(FiligraneError):
    status = 404
    default_code = "not_found"


class ObjectMissing(NotFound):
    default_code = "object_missing"


class Conflict(FiligraneError):
    status = 409
    default_code = "conflict"


class StaleLease(Conflict):
    default_code = "stale_lease"


class UnsupportedMedia(FiligraneError):
    status = 415
    default_code = "unsupported_media"


class NotBuilt(FiligraneError):
    status = 501
    default_code = "not_implemented"


class Unavailable(FiligraneError):
    status = 503
    default_code = "unavailable"

    def __init__(self, details: str, *, code: str | None = None, retry_after: int = 1) -> None:
        super().__init__(details, code=code)
        self.retry_after = retry_after


class Corrupt(Unavailable):
    default_code = "corrupt"
