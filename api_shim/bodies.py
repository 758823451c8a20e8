"""Request bodies: JSON, forms and raw bytes, also where a client sends one under the name of another.

Well-known clients do: curl's `--data '{...}'` is JSON under the form type, and a fixed Content-Type header with `files=` is multipart under
image/jpeg, without the boundary that the header should name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api_shim.errors import InvalidFields, ParseError
from core.errors import UnsupportedMedia

_JSON: Final = "application/json"
_URLENCODED: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_DISGUISED: Final = re.compile(rb"--([\x21-\x7e]{1,70})\r\nContent-Disposition:", re.IGNORECASE)
_FORM_LIKE: Final = re.compile(rb"[A-Za-z_][\w.%+-]*=[^{}\[\]\"\s]*")
_MAX_FIELDS: Final = 100

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(slots=True)
class Part:
    """One part of a multipart body."""

    name: str = ""
    filename: str | None = None
    data: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Fields:
    values: dict[str, Any]
    file: Part | None
    typed: bool
    """From JSON, where numbers are numbers; form fields are text."""


def media_type(content_type: str) -> str:
    """The type alone, in lower case: without parameters."""
    return content_type.partition(";")[0].strip().lower()


def fields(content_type: str, body: bytes) -> Fields:
    """What a body says, as names and values.

    Raises:
        ParseError: not JSON (an object), not a form.
        UnsupportedMedia: neither of the types.
    """
    kind = media_type(content_type)
    disguised = _DISGUISED.match(body)
    if kind == _MULTIPART or disguised:
        return _multipart(_boundary(content_type, disguised), body)
    if kind not in (_JSON, _URLENCODED, ""):
        raise UnsupportedMedia(f"{kind} is not read here; send JSON")
    if _FORM_LIKE.match(body) and (kind == _URLENCODED or _FORM_LIKE.fullmatch(body.strip())):
        return Fields(_form(body), None, typed=False)
    return Fields(_json(body), None, typed=True)


def parse(cls: type[T], given: Fields) -> T:
    """The fields as a struct; unknown ones are ignored. Raises InvalidFields, with every wrong one."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for known in msgspec.structs.fields(cls):
        if known.encode_name not in given.values:
            if known.required:
                problems[known.encode_name] = "is required"
            continue
        try:
            values[known.name] = msgspec.convert(given.values[known.encode_name], known.type, strict=given.typed)
        except msgspec.ValidationError as error:
            problems[known.encode_name] = str(error)
    if problems:
        raise InvalidFields(problems)
    return cls(**values)


def is_multipart(content_type: str, body: bytes) -> bool:
    return media_type(content_type) == _MULTIPART or _DISGUISED.match(body) is not None


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ParseError("the body is JSON, but not an object")
    return cast("dict[str, Any]", value)


def _form(body: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise ParseError("the body is not a form") from error
    return dict(pairs)


def _boundary(content_type: str, disguised: re.Match[bytes] | None) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if boundary is None and disguised is not None:
        boundary = disguised[1]
    if not boundary:
        raise ParseError("the multipart body names no boundary")
    return boundary


def _multipart(boundary: bytes, body: bytes) -> Fields:
    parts = _parts(boundary, body)
    files = [part for part in parts if part.filename is not None and part.name == "file"]
    try:
        values = {part.name: bytes(part.data).decode() for part in parts if part not in files}
    except UnicodeDecodeError as error:
        raise ParseError("a field of the form is not UTF-8") from error
    if len(files) > 1:
        raise ParseError("one file at a time")
    return Fields(cast("dict[str, Any]", values), files[0] if files else None, typed=False)


class _Collector:
    """Puts the parser's events together."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._header = bytearray()
        self._value = bytearray()

    def part_begin(self) -> None:
        if len(self.parts) >= _MAX_FIELDS:
            raise ParseError(f"more than {_MAX_FIELDS} fields")
        self.parts.append(Part())

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self.parts[-1].name = options.get(b"name", b"").decode(errors="replace")
            self.parts[-1].filename = options[b"filename"].decode(errors="replace") if b"filename" in options else None
        self._header.clear()
        self._value.clear()

    def end(self) -> None:
        self.ended = True


def _parts(boundary: bytes, body: bytes) -> list[Part]:
    collector = _Collector()
    callbacks: Mapping[str, Any] = {
        "on_part_begin": collector.part_begin,
        "on_part_data": collector.part_data,
        "on_header_field": collector.header_field,
        "on_header_value": collector.header_value,
        "on_header_end": collector.header_end,
        "on_end": collector.end,
    }
    try:
        parser = MultipartParser(boundary, cast("Any", callbacks))
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise ParseError("the multipart body is damaged") from error
    if not collector.ended:
        raise ParseError("the multipart body is cut")
    return collector.parts
