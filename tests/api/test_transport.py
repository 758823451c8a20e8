"""Groups A, B, C and G: what holds for every request. The numbers are those of the conformance list."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from api_shim.middleware import Requests
from tests.api.conftest import Api

GETS = ["/account", "/media", "/matches/web", "/crawling/sessions", "/crawling/batches"]
UNBUILT = [
    ("GET", "/matches"),
    ("GET", "/matches/press"),
    ("GET", "/matches/credit"),
    ("GET", "/matches/user"),
    ("GET", "/searches"),
    ("GET", "/searches/HTnqefQkb7jq"),
    ("DELETE", "/searches/HTnqefQkb7jq"),
    ("GET", "/searches/HTnqefQkb7jq/matches"),
    ("GET", "/domains/blacklist"),
    ("POST", "/domains/blacklist"),
    ("DELETE", "/domains/blacklist"),
]


def check_error(response: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """061, 062, 065, 030, 014"""
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert body["status_code"] == status
    assert body["details"]
    assert body["detail"] == body["details"]
    assert response.headers["X-Request-Id"]
    assert response.headers["Content-Type"] == "application/json"
    if code is not None:
        assert body["code"] == code
    return body


@pytest.mark.parametrize("path", GETS)
def test_002_both_forms_of_a_path_are_equal(api: Api, path: str) -> None:
    assert api.get(path).status_code == 200
    assert api.get(path).json() == api.get(f"{path}/").json()


@pytest.mark.parametrize(("method", "path"), UNBUILT)
def test_017_documented_and_not_built_is_501_after_authentication(api: Api, method: str, path: str) -> None:
    for form in (path, f"{path}/"):
        check_error(api.call(method, form), 501, "not_implemented")
    check_error(api.http.request(method, f"/api/v1{path}"), 401)


def test_004_unknown_versions(api: Api) -> None:
    for version in ("v2", "v3", "v9"):
        check_error(api.http.get(f"/api/{version}/account/", headers={"Authorization": f"Token {api.token}"}), 404)


def test_006_unsupported_type(api: Api) -> None:
    check_error(api.put(f"/media/{api.home}/x", content=b"hello", headers={"Content-Type": "text/plain"}), 415)


def test_007_accept(api: Api) -> None:
    for accept in ("text/html", "image/*", "application/json;q=0"):
        check_error(api.get("/account", headers={"Accept": accept}), 406)
    for accept in ("*/*", "application/json", "application/*", "text/html, application/json;q=0.9", ""):
        assert api.get("/account", headers={"Accept": accept}).status_code == 200


def test_008_wrong_method(api: Api) -> None:
    for method, path in (
        ("PUT", "/account/"),
        ("DELETE", "/searches/"),
        ("POST", "/matches/web/"),
        ("GET", "/media/_move"),
        ("GET", "/uploads"),
    ):
        response = api.call(method, path)
        check_error(response, 405)
        assert response.headers["Allow"]


def test_009_empty_body(api: Api) -> None:
    for method, path in (("POST", "/crawling/sessions"), ("POST", "/searches"), ("PUT", f"/media/{api.home}/x.jpg")):
        check_error(api.call(method, path, content=b"", headers={"Content-Type": "application/json"}), 411)


def test_010_011_no_length(api: Api) -> None:
    check_error(api.put(f"/media/{api.home}/x.jpg", content=iter([b"abc"]), headers={"Content-Type": "image/jpeg"}), 411)


def test_020_too_large(api: Api) -> None:
    check_error(api.post("/crawling/sessions", content=b" " * (2 << 20)), 400, "payload_too_large")


def test_021_head_and_options(api: Api) -> None:
    assert api.call("HEAD", "/account").status_code == 200
    assert api.call("HEAD", "/account").content == b""
    options = api.call("OPTIONS", "/account")
    assert options.status_code == 204
    assert "GET" in options.headers["Allow"]


def test_023_no_token(api: Api) -> None:
    for path in (*GETS, "/nowhere", "/media/x", "/searches/x"):
        response = api.http.get(f"/api/v1{path}")
        check_error(response, 401)
        assert response.headers["WWW-Authenticate"] == "Token"


def test_024_025_wrong_tokens(api: Api) -> None:
    wrong = api.token[:-1] + ("0" if api.token[-1] != "0" else "1")
    for value in (f"Token {wrong}", "Token", "Token ", f"Bearer {api.token}", f"Basic {api.token}", api.token, "Token é"):
        for path in ("/account", "/nowhere"):
            check_error(api.http.get(f"/api/v1{path}", headers=[(b"Authorization", value.encode())]), 401)


def test_024_unknown_path_is_404_with_a_token(api: Api) -> None:
    check_error(api.get("/nowhere"), 404)


def test_026_scheme_in_any_case(api: Api) -> None:
    for value in (f"token {api.token}", f"  TOKEN   {api.token}  "):
        assert api.http.get("/api/v1/account", headers={"Authorization": value}).status_code == 200


def test_031_ids_are_distinct(api: Api) -> None:
    ids = {api.http.get("/healthz").headers["X-Request-Id"] for _ in range(50)}
    assert len(ids) == 50


def test_032_the_id_is_in_the_log_and_the_token_is_not(api: Api) -> None:
    with capture_logs() as lines:
        response = api.get("/account?token=secret")
    assert any(line["event"] == "request" and line["status"] == 200 for line in lines)
    assert "secret" not in json.dumps(lines)
    assert api.token not in json.dumps(lines)
    assert response.headers["X-Request-Id"]


def test_064_two_problems_two_entries(api: Api) -> None:
    body = check_error(api.get("/matches/web?date=x&watermarked=maybe"), 400)
    assert {problem["field"] for problem in body["errors"]} == {"date", "watermarked"}
    assert set(body["details"]) == {"date", "watermarked"}


def test_066_errors_below_the_application(api: Api) -> None:
    check_error(api.http.get("/nowhere"), 404)
    check_error(api.http.post("/healthz"), 405)
    check_error(api.get(f"/media/{'x' * 20_000}"), 400)
    check_error(api.get("/media/%FF%FE"), 400)


def test_067_broken_json(api: Api) -> None:
    for body in (b"{", b"[]", b'"x"', b"nul", b"\xff"):
        check_error(api.post("/crawling/sessions", content=body, headers={"Content-Type": "application/json"}), 400, "parse_error")


def test_500_is_json_and_tells_nothing() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError("our own affair")

    with capture_logs() as lines:
        body = check_error(TestClient(Requests(broken)).get("/x"), 500, "internal")
    assert "affair" not in json.dumps(body)
    assert [line["event"] for line in lines] == ["request.failed", "request"]


def test_healthz(api: Api) -> None:
    assert api.http.get("/healthz").json() == {"status": "ok"}
