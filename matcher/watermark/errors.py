"""What the watermark library raises on purpose.

    WatermarkError
    ├── RegistrationInvalid   bytes that are no registration, or not one that can be used here
    ├── KeyInvalid            bytes that are no RSA key, or none that registrations are sealed to
    └── PictureInvalid        a file that is no picture, or none that can be marked

`code` is stable and machine-readable; the message is one sentence for a person.
"""

from __future__ import annotations

from typing import ClassVar


class WatermarkError(Exception):
    """Base of what the watermark library raises on purpose."""

    default_code: ClassVar[str] = "watermark"

    def __init__(self, details: str, *, code: str | None = None) -> None:
        super().__init__(details)
        self.details = details
        self.code = code or self.default_code


class RegistrationInvalid(WatermarkError, ValueError):
    """Codes: not_a_registration, registration_too_new, registration_damaged, registration_of_another_key; where one is to lend its
    small picture to another, registration_of_another_picture; where one has none, original_required."""

    default_code = "registration_damaged"


class KeyInvalid(WatermarkError, ValueError):
    """Codes: not_a_key, key_too_short, key_too_long."""

    default_code = "not_a_key"


class PictureInvalid(WatermarkError, ValueError):
    """Codes: invalid_image (damaged), unsupported_media (no picture of a kind that is marked), image_too_small, image_too_large."""

    default_code = "invalid_image"
