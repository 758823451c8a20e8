"""Secrets in texts: URLs with credentials, headers, parameters; what is no secret stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import scrub

SECRET = "hunter2-Zx9"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql+psycopg://filigrane:{SECRET}@db.example/filigrane",
        f"cannot connect to postgresql://user:{SECRET}@[::1]:5432/x: refused",
        f"https://a:{SECRET}@host/path and https://{SECRET}@host/",
        f"redis://:{SECRET}@@host",
        f"Authorization: Token {SECRET}{SECRET}",
        f"header was 'bearer {SECRET}.{SECRET}'",
        f"GET /x?a=1&access_token={SECRET}&b=2",
        f"host=db password={SECRET} user=x",
        f"https://s3.example/b/k?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}",
        f'{{"sasl_plain_password": "{SECRET}", "security_protocol": "SSL"}}',
        f"{{'sasl_plain_password': '{SECRET}'}}",
    ],
)
def test_credentials_are_hidden_wherever_they_stand(text: str) -> None:
    assert SECRET not in scrub.text(text)
    assert scrub.HIDDEN in scrub.text(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://www.example.org/people/@jo?page=2",
        "FILIGRANE_SECRET_KEY: needs 16 characters or more, drawn at random",
        "the token is missing",
        "jo@example.org wrote",
        "http://127.0.0.1:8000/api/v1/media/",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrub.text(text) == text


@given(st.text(alphabet="abcXYZ019%!$&*+,;=:@~._-", min_size=6).filter(lambda text: text.strip("@*") != ""))
def test_no_password_of_a_url_survives(password: str) -> None:
    assert scrub.text(f"see postgresql://user:{password}@host/db now") == f"see postgresql://{scrub.HIDDEN}@host/db now"


@given(st.text(max_size=3000))
def test_any_text_is_read_in_time(text: str) -> None:
    scrub.text(text * 3)


def test_exceptions_and_sets_inside_of_events_are_cleaned_too() -> None:
    seen = {"why": OSError(f"https://u:{SECRET}@h/"), "all": {f"https://u:{SECRET}@h/"}}
    assert SECRET not in repr(scrub.named(None, seen))
