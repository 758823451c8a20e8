"""Group U, 279-281: the key that an account's registrations are sealed to."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.api.conftest import Api


def test_279_280_281_a_stable_pkcs1_key_of_its_own_for_each_account(api: Api, other: Api) -> None:
    answer = api.get("/watermarking/key/")
    assert (answer.status_code, set(answer.json())) == (200, {"key"})
    pem = answer.json()["key"]
    assert pem.startswith("-----BEGIN RSA PUBLIC KEY-----\n")
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, RSAPublicKey)
    assert key.key_size >= 2048
    assert api.get("/watermarking/key").json()["key"] == pem
    assert other.get("/watermarking/key").json()["key"] != pem
    assert "PRIVATE" not in answer.text
