"""Bodies as clients really send them (190, 225, 227, 228)."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_shim import bodies
from api_shim.errors import InvalidFields, ParseError
from core.errors import InvalidInput, UnsupportedMedia

PARTS = (
    b'--x1\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8data\r\n'
    b'--x1\r\nContent-Disposition: form-data; name="sync"; filename="sync"\r\n\r\n0\r\n--x1--\r\n'
)


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x1", 'Multipart/Form-Data; boundary="x1"', "image/jpeg", ""])
def test_225_228_multipart_under_any_name(content_type: str) -> None:
    fields = bodies.fields(content_type, PARTS)
    assert fields.values == {"sync": "0"}
    assert fields.file is not None
    assert (fields.file.filename, bytes(fields.file.data)) == ("a.jpg", b"\xff\xd8data")


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "application/json; charset=utf-8", ""])
def test_190_227_json_and_forms_under_either_type(content_type: str) -> None:
    assert bodies.fields(content_type, b' {"url": "http://a/?b=c&d=e"}').values == {"url": "http://a/?b=c&d=e"}
    assert bodies.fields(content_type, b"url=http%3A%2F%2Fa%2F&sync=0").values == {"url": "http://a/", "sync": "0"}


def test_what_is_refused() -> None:
    for content_type, body in (
        ("application/json", b"[1]"),
        ("application/json", b'{"a": 1'),
        ("application/x-www-form-urlencoded", b"\xff"),
        ("multipart/form-data", b"a"),
        ("multipart/form-data; boundary=x1", PARTS[:-20]),
        ("multipart/form-data; boundary=x2", PARTS),
        ("multipart/form-data; boundary=x1", PARTS.replace(b"--x1--\r\n", PARTS)),
    ):
        with pytest.raises(ParseError):
            bodies.fields(content_type, body)
    with pytest.raises(UnsupportedMedia):
        bodies.fields("text/plain", b"{}")


@given(
    st.sampled_from(["multipart/form-data; boundary=x1", "application/json", "application/x-www-form-urlencoded", "image/jpeg"]),
    st.binary(),
)
def test_any_bytes_are_read_or_refused(content_type: str, body: bytes) -> None:
    with contextlib.suppress(InvalidInput, UnsupportedMedia):
        bodies.fields(content_type, body)


@given(st.integers(0, len(PARTS)), st.binary(max_size=3))
def test_damaged_forms_are_read_or_refused(position: int, noise: bytes) -> None:
    with contextlib.suppress(ParseError):
        bodies.fields("multipart/form-data; boundary=x1", PARTS[:position] + noise + PARTS[position + len(noise) :])


@given(st.dictionaries(st.text(), st.text()))
def test_json_round_trips(values: dict[str, str]) -> None:
    assert bodies.fields("application/json", json.dumps(values).encode()).values == values


class Thing(msgspec.Struct):
    number: int
    flag: bool = False


def test_all_wrong_fields_are_named() -> None:
    with pytest.raises(InvalidFields) as error:
        bodies.parse(Thing, bodies.fields("application/json", b'{"flag": 3}'))
    assert set(error.value.fields) == {"number", "flag"}
    assert bodies.parse(Thing, bodies.fields("", b"number=3&flag=true&other=x")) == Thing(3, True)
    with pytest.raises(InvalidFields):
        bodies.parse(Thing, bodies.fields("application/json", b'{"number": "3"}'))
