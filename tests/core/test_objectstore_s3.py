"""The contract on real S3 servers."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from core.objectstore.s3 import S3Store
from tests.conftest import needed
from tests.core.contract_objectstore import ObjectStoreContract
from tests.servers import s3


def opened(bucket: s3.Bucket, prefix: str = "") -> S3Store:
    return S3Store(bucket.name, prefix or uuid4().hex, endpoint_url=bucket.endpoint)


class TestContract(ObjectStoreContract):
    @pytest.fixture
    def store(self, s3_server: s3.Bucket, s3_settings: dict[str, str]) -> S3Store:
        return opened(s3_server)


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Bucket]:
    needed("s3", s3.weed)
    with s3.SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server.bucket()


class TestContractOnSeaweedFS(ObjectStoreContract):
    in_key_order = False

    @pytest.fixture
    def store(self, seaweedfs: s3.Bucket, monkeypatch: pytest.MonkeyPatch) -> S3Store:
        for name, value in seaweedfs.credentials().items():
            monkeypatch.setenv(name, value)
        return opened(seaweedfs)
