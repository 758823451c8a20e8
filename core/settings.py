"""What an operator sets: FILIGRANE_* in the environment, nothing else."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from contextlib import suppress
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.disk import private_folder, sync_folder
from core.errors import InvalidInput

PREFIX: Final = "FILIGRANE_"
Network = IPv4Network | IPv6Network
_FORMS: Final = {
    "database_url": (r"sqlite:///.+|postgresql\+psycopg://.+", "sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"),
    "store_url": (r"file:///.+|s3://[^/]+(/.*)?", "file:///PATH or s3://BUCKET/PREFIX"),
    "bus_url": (r"local:|kafka://[^/]+", "local: or kafka://HOST:PORT,HOST:PORT"),
}
_SECRET_LENGTH: Final = 16
PLACEHOLDER: Final = "change-me"
"""What stands for every secret in deploy/; nothing starts with it."""


class Settings(BaseSettings):
    """The settings of a process; frozen."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True)

    data: Path = Field(default=Path("filigrane-data"), description="Folder of the embedded parts and of local files.")
    database_url: str = Field(
        default="",
        repr=False,
        description="Database, `postgresql+psycopg://user:password@host/database`; empty: SQLite in the data folder.",
    )
    database_connections: int = Field(default=10, ge=1, le=1000, description="Most connections of a process to PostgreSQL.")
    store_url: str = Field(
        default="", description="Object store, `file:///folder` or `s3://bucket/prefix`; empty: a folder in the data folder."
    )
    s3_endpoint_url: str = Field(
        default="", description="Where an S3 that is not Amazon's answers; credentials come by boto3's usual chain."
    )
    bus_url: str = Field(default="local:", description="Bus, `kafka://host:port,host:port`; `local:` is a durable log in the data folder.")
    kafka_api_version: str = Field(
        default="", pattern=r"^(\d+(\.\d+)*)?$", description="Version of the brokers, such as `3.9`; empty: they are asked."
    )
    kafka_options: Annotated[dict[str, Any], NoDecode] = Field(
        default={}, repr=False, description="More options of the Kafka clients, a JSON object: TLS, SASL, timeouts."
    )
    topic_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,100}$", description="Begins the name of every topic and group.")
    public_url: str = Field(
        default="http://127.0.0.1:8000",
        pattern=r"^https?://[^/\s]",
        description="Where clients reach the API: the start of every URL in its answers.",
    )
    secret_key: str = Field(
        default="",
        repr=False,
        description="Key of tokens and capabilities, 16 characters or more; empty: drawn once into the data folder (mode 0600).",
    )
    allow_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(), description="Networks (CIDR, with commas) that crawling and remote URLs may reach although they are private."
    )
    topic_partitions: int = Field(default=8, ge=1, le=1024, description="Partitions of each topic.")
    crawler_sessions: int = Field(default=500, ge=1, description="Most sessions that a crawler runs at once; its memory grows with them.")
    segment_seconds: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="How long a segment of pictures stays open; pages take six times as long."
    )
    crawled_days: int = Field(
        default=0,
        ge=0,
        description="Days that a crawled picture can be searched after it was last found on a page; 0: as long as its session's artifacts.",
    )
    crawled_cache: float = Field(
        default=16.0,
        gt=0,
        allow_inf_nan=False,
        description="GiB of the local disk on which a matcher keeps the crawled pictures' features near at hand.",
    )
    upload_hours: float = Field(
        default=24.0,
        gt=0,
        le=8760,
        allow_inf_nan=False,
        description="Hours that what was uploaded or watermarked over the API can be downloaded.",
    )
    watermarking_daily: int = Field(
        default=10_000, ge=0, description="Pictures that an account may have watermarked over the API in 24 hours."
    )

    registry_shards: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Parts that what is registered is divided into, each held by matchers of its own (docs/operations.md).",
    )
    registry_shard: int = Field(default=0, ge=0, description="Which of these parts a matcher holds, from 0 on.")

    metrics_listen: str = Field(
        default="",
        pattern=r"^(\S+:\d{1,5})?$",
        description="Where a role answers `/metrics`, `/healthz` and `/readyz`, `host:port`; empty: nowhere. Under `serve` each role "
        "takes the next port: scheduler, api, crawler, matcher.",
    )

    @field_validator("allow_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        return value

    @field_validator("kafka_options", mode="before")
    @classmethod
    def _options(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError("is a JSON object of client options") from error

    @field_validator("database_url", "store_url", "bus_url")
    @classmethod
    def _of_a_known_form(cls, value: str, info: ValidationInfo) -> str:
        pattern, form = _FORMS[info.field_name or ""]
        if value and not re.fullmatch(pattern, value):
            raise ValueError(f"is {form}")
        return value

    @field_validator("secret_key", "database_url")
    @classmethod
    def _not_of_the_example(cls, value: str) -> str:
        if PLACEHOLDER in value:
            raise ValueError(f"still has {PLACEHOLDER!r} from the example in it; draw a secret of your own")
        return value

    @field_validator("secret_key")
    @classmethod
    def _hard_to_guess(cls, value: str) -> str:
        if value and len(value) < _SECRET_LENGTH:
            raise ValueError(f"needs {_SECRET_LENGTH} characters or more, drawn at random")
        return value

    @field_validator("public_url")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_secret_for_all(self) -> Self:
        if self.database_url.startswith("postgresql") and not self.secret_key:
            raise ValueError("FILIGRANE_SECRET_KEY is needed where machines share a database: they must agree on it")
        return self

    @model_validator(mode="after")
    def _a_shard_that_there_is(self) -> Self:
        if self.registry_shard >= self.registry_shards:
            raise ValueError(f"FILIGRANE_REGISTRY_SHARD is below FILIGRANE_REGISTRY_SHARDS ({self.registry_shards})")
        return self

    @property
    def distributed(self) -> bool:
        """Whether the roles may run on other machines: the bus is not in the data folder."""
        return not self.bus_url.startswith("local:")

    @cached_property
    def secret(self) -> bytes:
        """The key's bytes; drawn on first use where none is set."""
        return self.secret_key.encode() if self.secret_key else _drawn_secret(self.data / "secret")


def _drawn_secret(path: Path) -> bytes:
    if path.exists():
        return path.read_bytes()
    private_folder(path.parent)
    handle, draft = tempfile.mkstemp(prefix="secret.", dir=path.parent)  # mode 0600
    with os.fdopen(handle, "wb") as stream:
        stream.write(secrets.token_hex(32).encode())
        stream.flush()
        os.fsync(stream.fileno())
    with suppress(FileExistsError):  # whoever comes first has drawn it
        os.link(draft, path)
    Path(draft).unlink()
    sync_folder(path.parent)  # tokens that were given out must outlive a loss of power
    return path.read_bytes()


def load() -> Settings:
    """The settings of this process's environment. Raises InvalidInput that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{PREFIX}{first['loc'][0]}: ".upper() if first["loc"] else ""
        raise InvalidInput(f"{name}{first['msg']}", code="settings_invalid") from error


def table() -> str:
    """The documented settings as a Markdown table."""
    lines = ["| Variable | Default | What it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in ("", (), {}) else f"`{field.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"
