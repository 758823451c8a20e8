"""Messages: what goes in comes out; what this version does not know is refused, not guessed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.events import (
    SIGHTINGS_PER_MESSAGE,
    Event,
    ImageFound,
    Key,
    MediaChanged,
    MessageInvalid,
    SearchAnswered,
    SearchAsked,
    SearchHit,
    SessionWoken,
    Sighting,
    StoredAt,
    decode,
    encode,
)

NOW = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
words = st.text(max_size=30)
numbers = st.integers(0, 2**62)
moments = st.datetimes(timezones=st.just(UTC))
floats = st.floats(allow_nan=False, allow_infinity=False)

images = st.builds(
    ImageFound,
    account=numbers,
    registry_version=numbers,
    session=numbers,
    cycle=numbers,
    epoch=numbers,
    shared=st.booleans(),
    url=words,
    sha256=words,
    md5=words,
    content_type=words,
    bytes=st.builds(StoredAt, numbers, words, numbers, numbers),
    first_seen=moments,
    request_id=words,
    sightings=st.lists(st.builds(Sighting, words, words), max_size=4).map(tuple),
    width=st.none() | numbers,
    height=st.none() | numbers,
    last_modified=st.none() | moments,
)
changes = st.builds(
    MediaChanged,
    account=numbers,
    version=numbers,
    picture=numbers,
    fingerprint_key=words,
    keys=st.lists(st.builds(Key, numbers, words, st.none() | words), max_size=3).map(tuple),
    deleted=st.booleans(),
)
hits = st.builds(
    SearchHit,
    picture=numbers,
    key_id=words,
    verdict=st.none() | words,
    score=st.none() | floats,
    p_value=st.none() | floats,
    payload=st.none() | numbers,
    mirrored=st.none() | st.booleans(),
    overlap=st.none() | floats,
    transform=st.none() | st.lists(floats, min_size=9, max_size=9).map(tuple),
)
asked = st.builds(
    SearchAsked,
    search=words,
    account=numbers,
    registry_version=numbers,
    key=words,
    transform=words,
    similar=st.booleans(),
    deadline=moments,
    reply_to=words,
    request_id=words,
)
answered = st.builds(SearchAnswered, search=words, hits=st.lists(hits, max_size=2).map(tuple), error_code=st.none() | words)
woken = st.builds(SessionWoken, session=numbers, domain=words)


@given(images | changes | asked | answered | woken)
def test_what_goes_in_comes_out(event: Event) -> None:
    data = encode(event)
    assert decode(data) == event
    assert {"type", "v"} <= msgspec.json.decode(data).keys()


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MessageInvalid) as caught:
        decode(data)
    assert caught.value.code == "message_invalid"


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"session_woken","session":1}',
        b'{"type":"weather","v":1}',
        b'{"session":1,"domain":"a.example","v":1}',
        b'{"type":"session_woken","session":"1","domain":"a.example","v":1}',
        b'{"type":"session_woken","session":1,"domain":"a.example","v":2}',
    ],
    ids=["a field is missing", "unknown type", "no type", "wrong type", "newer"],
)
def test_what_this_version_does_not_know_is_refused(data: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode(data)


def test_fields_that_were_added_later_do_not_stop_an_older_reader() -> None:
    data = b'{"type":"session_woken","session":1,"domain":"a.example","v":1,"reason":"new"}'
    assert decode(data) == SessionWoken(1, "a.example")


def test_every_message_is_frozen_and_versioned() -> None:
    for kind in get_args(Event):
        assert kind.__struct_config__.frozen
        assert "v" in kind.__struct_fields__
        assert kind.__struct_config__.tag


def test_the_largest_message_about_a_picture_is_well_under_a_megabyte() -> None:
    sightings = tuple(Sighting("http://a.example/" + "p" * 1000, "a" * 500) for _ in range(SIGHTINGS_PER_MESSAGE))
    event = ImageFound(
        1, 1, 1, 1, 1, False, "u" * 2000, "e" * 64, "d" * 32, "image/jpeg", StoredAt(0, "k" * 200, 0, 1), NOW, "r", sightings
    )
    assert len(encode(event)) < 1_000_000
