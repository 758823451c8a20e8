"""What the API gives out of an S3 store, and what the store gives out itself."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api_shim.app import create_app
from api_shim.links import static_hash
from core.errors import InvalidInput
from core.models import Static
from core.objectstore.s3 import S3Store
from core.services import Services
from core.settings import Settings
from tests.api.conftest import NOW
from tests.api.test_transport import check_error
from tests.servers import s3

DATA = os.urandom(3_000_000)
KEY = "batches/1/1/1/images.tar"


@pytest.fixture
def services(tmp_path: Path, s3_settings: dict[str, str]) -> Iterator[Services]:
    with Services.open(Settings(data=tmp_path / "data", **s3_settings)) as opened:  # type: ignore[arg-type]
        opened.store.put(KEY, DATA)
        yield opened


def test_static_addresses(services: Services) -> None:
    assert isinstance(services.store, S3Store)
    row = Static(key=KEY, content_type="application/x-tar", filename="é.tar", created=NOW)
    with services.database.write() as tx:
        tx.add(row)
        tx.flush()
    address = f"/static/{row.id},{static_hash(services.settings.secret, row.id, row.key)}"
    with TestClient(create_app(services), raise_server_exceptions=False) as http:
        whole = http.get(address)
        assert whole.content == DATA
        assert http.head(address).headers["Content-Length"] == str(len(DATA))
        assert http.head(address).headers["ETag"] == whole.headers["ETag"]
        assert http.get(address, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
        part = http.get(address, headers={"Range": "bytes=1000000-2999999", "If-Range": whole.headers["ETag"]})
        assert (part.status_code, part.content) == (206, DATA[1_000_000:])
        check_error(http.get(address, headers={"Range": f"bytes={len(DATA)}-"}), 416)
        check_error(http.get(f"/objects/{KEY}?expires=9999999999&signature=x"), 404)
        services.store.delete([KEY])
        check_error(http.get(address), 404)


def test_anybody_can_open_a_presigned_address(services: Services) -> None:
    url = services.store.url(KEY, timedelta(minutes=5), filename='odd "name" é.tar')
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == DATA
        assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''odd%20%22name%22%20%C3%A9.tar"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": "bytes=5-9"})) as answer:
        assert answer.read() == DATA[5:10]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.replace("images.tar", "pages.warc.gz"))
    for wrong in (timedelta(0), timedelta(days=8)):
        with pytest.raises(InvalidInput):
            services.store.url(KEY, wrong)


def test_plain_boto3_downloads_an_artifact(services: Services, s3_server: s3.Bucket, tmp_path: Path) -> None:
    """Its own check of the checksum included; also of a joined one."""
    services.store.put("a", large := os.urandom(9 << 20))
    services.store.join([KEY, "a", "a"], "batches/1/1/1/joined")
    prefix = services.settings.store_url.removeprefix(f"s3://{s3_server.name}/")
    client = s3_server.client()
    answer = client.get_object(Bucket=s3_server.name, Key=f"{prefix}/{KEY}", ChecksumMode="ENABLED")
    assert answer["Body"].read() == DATA
    assert answer["ChecksumSHA256"]
    client.download_file(s3_server.name, f"{prefix}/batches/1/1/1/joined", str(tmp_path / "joined"))
    assert hashlib.sha256((tmp_path / "joined").read_bytes()).digest() == hashlib.sha256(DATA + large + large).digest()
