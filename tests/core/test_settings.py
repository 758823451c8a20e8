"""Settings: from the environment, checked, frozen; the secret drawn once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.errors import InvalidInput
from core.settings import PREFIX, Settings, load, table


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FILIGRANE_DATA", str(tmp_path))
    monkeypatch.setenv("FILIGRANE_ALLOW_NETWORKS", "127.0.0.0/8, fd00::/8")
    monkeypatch.setenv("FILIGRANE_SEGMENT_SECONDS", "2.5")
    monkeypatch.setenv("FILIGRANE_PUBLIC_URL", "https://pictures.example/")
    settings = load()
    assert (settings.data, settings.segment_seconds, settings.public_url) == (tmp_path, 2.5, "https://pictures.example")
    assert settings.allow_networks == (ip_network("127.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DATABASE_URL", "mysql://user:pass@host/db", "postgresql"),
        ("DATABASE_URL", "postgresql://user:pass@host/db", "psycopg"),
        ("STORE_URL", "s3:///prefix", "s3://BUCKET"),
        ("BUS_URL", "kafka://", "kafka://HOST"),
        ("KAFKA_OPTIONS", "pass@word", "JSON object"),
        ("KAFKA_API_VERSION", "new", "should match"),
        ("TOPIC_PREFIX", "a/b", "should match"),
        ("DATABASE_URL", "sqlite://", "sqlite:///PATH"),
        ("STORE_URL", "file:///", "file:///PATH"),
        ("STORE_URL", "file://host/folder", "file:///PATH"),
        ("BUS_URL", "local:elsewhere", "is local:"),
        ("PUBLIC_URL", "pictures.example", "should match"),
        ("SECRET_KEY", "pass@short", "16 characters"),
        ("SECRET_KEY", "change-me-to-random-pass@", "draw a secret of your own"),
        ("DATABASE_URL", "postgresql+psycopg://filigrane:change-me-pass@db/filigrane", "draw a secret of your own"),
        ("METRICS_LISTEN", "9100", "should match"),
        ("SEGMENT_SECONDS", "inf", "finite"),
        ("ALLOW_NETWORKS", "127.0.0.1/8", "has host bits set"),
        ("SEGMENT_SECONDS", "0", "greater than 0"),
        ("TOPIC_PARTITIONS", "many", "valid integer"),
    ],
)
def test_what_is_wrong_names_its_variable_and_nothing_secret(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(InvalidInput, match=said) as caught:
        load()
    assert caught.value.code == "settings_invalid"
    assert PREFIX + name in caught.value.details
    assert "pass@" not in str(caught.value) + str(caught.value.__cause__)


def test_the_servers_are_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILIGRANE_SECRET_KEY", "k" * 16)
    monkeypatch.setenv("FILIGRANE_DATABASE_URL", "postgresql+psycopg://user:pass@host/db")
    monkeypatch.setenv("FILIGRANE_STORE_URL", "s3://bucket/prefix")
    monkeypatch.setenv("FILIGRANE_BUS_URL", "kafka://one:9092,two:9092")
    monkeypatch.setenv("FILIGRANE_KAFKA_OPTIONS", '{"security_protocol": "SSL", "sasl_plain_password": "pass@word"}')
    settings = load()
    assert settings.kafka_options["security_protocol"] == "SSL"
    assert "pass" not in repr(settings)


def test_machines_that_share_a_database_need_one_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILIGRANE_DATABASE_URL", "postgresql+psycopg://user:pass@host/db")
    with pytest.raises(InvalidInput, match="FILIGRANE_SECRET_KEY") as caught:
        load()
    assert "pass@" not in caught.value.details


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(PREFIX + name.upper(), "")
    assert load() == Settings.model_construct()


def test_they_are_frozen_and_never_show_the_key() -> None:
    settings = Settings(secret_key="a-key-that-nobody-sees")
    with pytest.raises(ValidationError):
        settings.public_url = "http://elsewhere"
    assert "a-key-that-nobody-sees" not in repr(settings) + str(settings)
    assert settings.secret == b"a-key-that-nobody-sees"


def test_the_secret_is_drawn_once_whoever_asks(tmp_path: Path) -> None:
    data = tmp_path / "new"
    with ThreadPoolExecutor(8) as threads:
        drawn = set(threads.map(lambda _: Settings(data=data).secret, range(16)))
    assert len(drawn) == 1
    assert len(drawn.pop()) == 64
    assert (data / "secret").stat().st_mode & 0o777 == 0o600
    assert data.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in data.iterdir()] == ["secret"]


def test_the_table_shows_every_setting() -> None:
    lines = table().splitlines()
    assert len(lines) == 2 + len(Settings.model_fields)
    for name in Settings.model_fields:
        assert any(f"`{PREFIX}{name.upper()}`" in line for line in lines)
    assert all(line.count("|") == 4 for line in lines)


def test_the_documentation_has_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text().endswith("\n\n" + table()), "docs/settings.md has to end with core.settings.table()"
