from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import fastwarc.warc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator

from core.errors import InvalidInput
from core.segments import Pointer
from core.segments.warc import WarcSegment, cut, records

NOW = datetime(2026, 11, 23, 12, 30, 1, 234567, UTC)
REQUEST = b"GET /page HTTP/1.1\r\nHost: example.org\r\nUser-Agent: filigrane\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nServer: x\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html\r\n\r\n"
FEW = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


class Read(NamedTuple):
    """What both readers must agree on."""

    type: str
    uri: str
    length: int
    body: bytes


def through_warcio(data: bytes) -> Iterator[Read]:
    for record in ArchiveIterator(io.BytesIO(data), check_digests="raise"):
        fields = record.rec_headers
        body = record.raw_stream.read()
        yield Read(record.rec_type, fields.get_header("WARC-Target-URI") or "", int(fields.get_header("Content-Length")), body)


def through_fastwarc(data: bytes) -> Iterator[Read]:
    for record in fastwarc.warc.ArchiveIterator(io.BytesIO(data), parse_http=False):
        headers: Any = record.headers
        if "WARC-Block-Digest" in headers and record.record_type != fastwarc.warc.WarcRecordType.revisit:
            assert record.verify_block_digest()
        record.parse_http()
        if record.record_type == fastwarc.warc.WarcRecordType.response:
            assert record.verify_payload_digest()
        yield Read(headers["WARC-Type"], headers.get("WARC-Target-URI") or "", int(headers["Content-Length"]), record.reader.read())


def both(data: bytes) -> list[Read]:
    read = list(through_warcio(data))
    assert list(through_fastwarc(data)) == read
    assert len(list(records(io.BytesIO(data)))) == len(read)
    return read


def header(data: bytes, number: int, name: str) -> str:
    return list(records(io.BytesIO(data)))[number].fields[name]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0.warc.gz"


def write(path: Path, url: str = "http://example.org/", response: bytes = RESPONSE, body: bytes = b"<p>", **kinds: Any) -> Pointer:
    path.unlink(missing_ok=True)
    with WarcSegment(path, "filigrane/0.1") as segment:
        return segment.add_exchange(url, NOW, REQUEST, response, body, **kinds)


def blocks(data: bytes) -> list[bytes]:
    """What is in the records, without their own heads."""
    members = [gzip.decompress(data[member.offset : member.end]) for _, member in records(io.BytesIO(data))]
    return [member.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n\r\n") for member in members]


def block(path: Path, pointer: Pointer) -> tuple[bytes, bytes]:
    """The blocks of an exchange: request, response."""
    request, response = blocks(path.read_bytes()[pointer.offset : pointer.end])
    return request, response


def test_an_exchange(path: Path) -> None:
    pointer = write(path, ip="2001:db8::1")
    data = path.read_bytes()
    assert [(record.type, record.uri) for record in both(data)] == [
        ("warcinfo", ""),
        ("request", "http://example.org/"),
        ("response", "http://example.org/"),
    ]
    request, response = (list(records(io.BytesIO(data)))[number].fields for number in (1, 2))
    assert request["warc-concurrent-to"] == response["warc-record-id"]
    assert response["warc-concurrent-to"] == request["warc-record-id"]
    assert response["warc-date"] == request["warc-date"] == "2026-11-23T12:30:01.234567Z"
    assert response["warc-ip-address"] == "2001:db8::1"
    assert response["content-type"] == "application/http; msgtype=response"
    assert "warc-truncated" not in response
    assert block(path, pointer) == (REQUEST, RESPONSE + b"<p>")
    assert pointer.end == len(data)


def test_warcinfo_says_who_wrote_it(path: Path) -> None:
    with WarcSegment(path, "filigrane/0.1", {"robots": "obey"}):
        pass
    lines = blocks(path.read_bytes())[0].decode().split("\r\n")
    assert "software: filigrane/0.1" in lines
    assert "robots: obey" in lines


def test_chunking_is_undone_in_the_head_and_kept_aside(path: Path) -> None:
    _, response = block(path, write(path, response=CHUNKED, body=b"four"))
    assert response == (
        b"HTTP/1.1 200 OK\r\nX-Archive-Orig-Transfer-Encoding: chunked\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nfour"
    )


def test_a_body_cut_has_its_own_length(path: Path) -> None:
    pointer = write(path, response=b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n", body=b"cut", truncated="length")
    assert block(path, pointer)[1] == b"HTTP/1.1 200 OK\r\nX-Archive-Orig-content-length: 9000\r\nContent-Length: 3\r\n\r\ncut"
    assert header(path.read_bytes(), 2, "warc-truncated") == "length"


@pytest.mark.parametrize("head", [RESPONSE, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n\r\n"])
def test_a_head_that_fits_stays_as_it_was(path: Path, head: bytes) -> None:
    assert block(path, write(path, response=head))[1] == head + b"<p>"


def test_content_encoding_is_kept(path: Path) -> None:
    packed = gzip.compress(b"<p>" * 100)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert block(path, write(path, response=head, body=packed))[1] == head + packed
    decoded = [record.content_stream().read() for record in ArchiveIterator(io.BytesIO(path.read_bytes()))]
    assert decoded[-1] == b"<p>" * 100


def test_revisits(path: Path) -> None:
    not_modified = b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"
    with WarcSegment(path, "filigrane/0.1") as segment:
        segment.add_revisit(
            "http://a/1", NOW, REQUEST, RESPONSE, b"<p>", refers_to_url="http://a/0", refers_to_date=NOW - timedelta(days=1)
        )
        segment.add_revisit("http://a/2", NOW, REQUEST, not_modified, None)
    data = path.read_bytes()
    same, unchanged = (list(records(io.BytesIO(data)))[number].fields for number in (2, 4))
    assert [record.type for record in both(data)] == ["warcinfo", "request", "revisit", "request", "revisit"]
    assert same["warc-profile"] == "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"
    assert (same["warc-refers-to-target-uri"], same["warc-refers-to-date"]) == ("http://a/0", "2026-11-22T12:30:01.234567Z")
    assert same["warc-payload-digest"].startswith("sha256:")
    assert unchanged["warc-profile"] == "http://netpreserve.org/warc/1.1/revisit/server-not-modified"
    assert "warc-payload-digest" not in unchanged
    assert int(unchanged["content-length"]) == len(not_modified)


URLS = st.tuples(st.sampled_from(["http://", "https://"]), st.text(max_size=60)).map("".join)
DATES = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]), min_value=datetime(1990, 1, 1))  # noqa: DTZ001
HEADS = st.one_of(
    st.sampled_from([RESPONSE, CHUNKED, b""]), st.binary(max_size=60).map(lambda tail: RESPONSE[:-2] + tail), st.binary(max_size=60)
)
BODIES = st.one_of(
    st.binary(max_size=300), st.sampled_from([b"\r\n\r\n", b"WARC/1.1\r\n", b"\r\n\r\nWARC/1.1\r\nWARC-Type: response\r\n\r\n"])
)


@FEW
@given(url=URLS, date=DATES, request=HEADS, response=HEADS, body=BODIES, ip=st.none() | st.text(max_size=20))
def test_whatever_comes_two_readers_agree(
    path: Path, url: str, date: datetime, request: bytes, response: bytes, body: bytes, ip: str | None
) -> None:
    path.unlink(missing_ok=True)
    with WarcSegment(path, "filigrane/0.1") as segment:
        pointer = segment.add_exchange(url, date, request, response, body, ip=ip)
        segment.add_revisit(url, date, request, response, body, refers_to_url=url, refers_to_date=date)
    data = path.read_bytes()
    read = both(data)
    assert [record.type for record in read] == ["warcinfo", "request", "response", "request", "revisit"]
    assert block(path, pointer)[1].endswith(b"\r\n" + body)
    if re.fullmatch(r"[a-z0-9:/?&=%._~-]*", url):
        assert {record.uri for record in read[1:]} == {url}


@pytest.mark.parametrize(
    "evil", ["\r\nWARC-Type: resource", "\nInjected: yes", "\rInjected: yes", "\x0b\x0c\x1cInjected: yes", "\u2028Injected: yes"]
)
def test_no_value_begins_a_header_line(path: Path, evil: str) -> None:
    with WarcSegment(path, f"filigrane{evil}", {f"name{evil}": f"value{evil}"}) as segment:
        raw = evil.encode()
        segment.add_exchange(f"http://a/{evil}", NOW, REQUEST[:-2] + raw, RESPONSE[:-2] + raw, raw, ip=f"1.1.1.1{evil}")
        segment.add_revisit("http://a/", NOW, REQUEST, RESPONSE, raw, refers_to_url=f"http://a/{evil}")
    data = path.read_bytes()
    assert [record.type for record in both(data)] == ["warcinfo", "request", "response", "request", "revisit"]
    heads = [gzip.decompress(data[member.offset : member.end]).partition(b"\r\n\r\n")[0] for _, member in records(io.BytesIO(data))]
    for head in heads:
        assert not re.search(rb"[\r\n\v\f\x1c](injected|warc-type: resource)", head.lower())


@pytest.mark.parametrize("url", ["", "ftp://a/", "javascript:alert(1)", "file:///etc/passwd", " http://a/"])
def test_other_urls_are_refused(path: Path, url: str) -> None:
    with pytest.raises(InvalidInput):
        write(path, url)


def test_naive_dates_are_refused(path: Path) -> None:
    with WarcSegment(path, "filigrane/0.1") as segment, pytest.raises(InvalidInput):
        segment.add_exchange("http://a/", NOW.replace(tzinfo=None), REQUEST, RESPONSE, b"")


@FEW
@given(bodies=st.lists(st.binary(max_size=200), max_size=3), lost=st.integers(0, 1500), known=st.integers(0, 3))
def test_any_end_is_cut_to_whole_exchanges(path: Path, bodies: list[bytes], lost: int, known: int) -> None:
    path.unlink(missing_ok=True)
    with WarcSegment(path, "filigrane/0.1") as segment:
        ends = [segment.size, *(segment.add_exchange("http://a/", NOW, REQUEST, RESPONSE, body).end for body in bodies)]
    whole = path.read_bytes()
    path.write_bytes(left := whole[: max(0, len(whole) - lost)])
    limit = ends[known] if known < len(ends) else len(whole)
    size = cut(path, limit)
    assert size == max((end for end in ends if end <= min(limit, len(left))), default=0)
    assert path.read_bytes() == whole[:size]
    with WarcSegment(path, "filigrane/0.1") as segment:
        segment.add_exchange("http://a/after", NOW, REQUEST, RESPONSE, b"after")
    read = both(path.read_bytes())
    assert [record.type for record in read] == ["warcinfo"] + ["request", "response"] * (len(read) // 2)


@FEW
@given(junk=st.binary(max_size=300), flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), max_size=4))
def test_junk_is_cut_away(path: Path, junk: bytes, flips: list[tuple[int, int]]) -> None:
    write(path)
    data = bytearray(path.read_bytes() + junk)
    for at, bits in flips:
        data[at % len(data)] ^= bits
    path.write_bytes(data)
    size = cut(path, len(data))
    if size:
        both(path.read_bytes())


@pytest.mark.parametrize("body", [bytes(20_000_000), os.urandom(300_000), b"ab" * 8192])
def test_large_bodies(path: Path, body: bytes) -> None:
    pointer = write(path, body=body)
    assert [record.length for record in both(path.read_bytes())][2] == len(RESPONSE) + len(body)
    assert cut(path, pointer.end) == pointer.end


def test_a_file_that_is_gone_is_cut_to_nothing(path: Path) -> None:
    assert cut(path, 100) == 0


def test_segments_one_after_the_other_are_an_artifact(tmp_path: Path) -> None:
    """The programs that people have accept it."""
    for number in range(3):
        with WarcSegment(tmp_path / f"{number}", "filigrane/0.1", level=6) as segment:
            for page in range(5):
                segment.add_exchange(f"http://a/{number}/{page}", NOW, REQUEST, CHUNKED, os.urandom(1000) * page, ip="127.0.0.1")
            segment.add_revisit(f"http://a/{number}", NOW, REQUEST, RESPONSE, None)
            segment.sync()
    artifact = tmp_path / "pages.warc.gz"
    artifact.write_bytes(b"".join((tmp_path / f"{number}").read_bytes() for number in range(3)))
    assert len(both(artifact.read_bytes())) == 3 * (1 + 2 * 6)
    programs = Path(sys.executable).parent
    for command in (["gzip", "-t"], [programs / "warcio", "check"], [programs / "fastwarc", "check", "--verify-payloads"]):
        done = subprocess.run([*command, artifact], check=False, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
