"""One API over real embedded parts for all tests; an account of its own for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from ipaddress import ip_network
from typing import Any

import httpx2
import pytest
from PIL import Image
from starlette.testclient import TestClient

from api_shim.app import create_app
from core.models import Account, Match, Media
from core.repo import accounts, matches, media
from core.repo.matches import MatchDraft
from core.repo.pictures import PictureDraft
from core.services import Services
from core.settings import Settings

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
_numbers = itertools.count(1)


@dataclass
class Api:
    """A client with an account's token."""

    http: TestClient
    services: Services
    account: Account
    token: str

    @property
    def home(self) -> str:
        return self.account.home

    def call(self, method: str, path: str, **named: Any) -> httpx2.Response:
        headers = {"Authorization": f"Token {self.token}", **named.pop("headers", {})}
        return self.http.request(method, f"/api/v1{path}", headers=headers, **named)

    def get(self, path: str, **named: Any) -> httpx2.Response:
        return self.call("GET", path, **named)

    def post(self, path: str, **named: Any) -> httpx2.Response:
        return self.call("POST", path, **named)

    def put(self, path: str, **named: Any) -> httpx2.Response:
        return self.call("PUT", path, **named)

    def patch(self, path: str, **named: Any) -> httpx2.Response:
        return self.call("PATCH", path, **named)

    def delete(self, path: str, **named: Any) -> httpx2.Response:
        return self.call("DELETE", path, **named)

    def folder(self, path: str) -> None:
        assert self.put(f"/media/{path}", headers={"Content-Type": "application/x-directory"}).status_code in (200, 201)

    def picture(self, path: str, *, pixels: str | None = None, key_id: str = "", exclusive: bool | None = None) -> Media:
        """A registered picture, without the work of decoding one."""
        pixels = pixels or f"pixels{next(_numbers)}"
        stem = f"pictures/{self.account.id}/{pixels}/{next(_numbers)}"
        for name in ("fingerprint", "preview.jpg", "thumbnail.jpg"):
            self.services.store.put(f"{stem}/{name}", name.encode())
        draft = PictureDraft(
            pixels, 1280, 853, "© Jo", f"{stem}/fingerprint", f"{stem}/preview.jpg", f"{stem}/thumbnail.jpg", 1000, key_id, None, exclusive
        )
        with self.services.database.write() as tx:
            return media.put_picture(tx, self.account.id, f"{self.home}/{path}", draft, NOW)[0]

    def node(self, path: str) -> Media:
        """What is registered at the path below the home directory."""
        with self.services.database.read() as tx:
            return media.get(tx, self.account.id, f"{self.home}/{path}")

    def match(self, node: Media, **columns: Any) -> Match | None:
        assert node.registration is not None
        number = next(_numbers)
        created = columns.pop("created", NOW + timedelta(seconds=number))
        values: dict[str, Any] = {
            "account_id": self.account.id,
            "picture_id": node.registration.picture_id,
            "key_id": "",
            "sha256": f"{number:064x}",
            "md5": f"{number:032x}",
            "page_url": f"https://example.org/{number}",
            "site": "example.org",
            "query_url": f"https://example.org/{number}.jpg",
            "session_id": 1,
            "watermarked": False,
            "first_seen": NOW,
            "request_id": "r",
            "verdict": "copy",
            "score": 42.0,
        }
        with self.services.database.write() as tx:
            return matches.upsert(tx, MatchDraft(**{**values, **columns}), created)


@pytest.fixture(scope="session")
def shared_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    settings = Settings(
        data=tmp_path_factory.mktemp("api") / "data", allow_networks=(ip_network("127.0.0.0/8"),), public_url="http://static.test"
    )
    with Services.open(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def http(shared_services: Services) -> Iterator[TestClient]:
    with TestClient(create_app(shared_services), raise_server_exceptions=False) as client:
        yield client


def new_account(http: TestClient, services: Services, **named: Any) -> Api:
    with services.database.write() as tx:
        account, token = accounts.create(tx, services.settings.secret, f"jo{next(_numbers)}.test", now=NOW, **named)
    return Api(http, services, account, token)


@pytest.fixture
def api(http: TestClient, shared_services: Services) -> Api:
    return new_account(http, shared_services)


@pytest.fixture
def other(http: TestClient, shared_services: Services) -> Api:
    return new_account(http, shared_services)


def jpeg(seed: int = 0, size: tuple[int, int] = (320, 240)) -> bytes:
    """A small picture with some detail."""
    image = Image.new("RGB", size)
    image.putdata([((x * 7 + seed * 31) % 256, (y * 5 + x) % 256, (x * y + seed) % 256) for y in range(size[1]) for x in range(size[0])])
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
