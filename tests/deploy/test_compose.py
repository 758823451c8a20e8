"""compose.yaml says only what the program knows; the bucket's script is run on a real S3 server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from typing import Any

import pytest

from core.errors import InvalidInput
from core.settings import PLACEHOLDER, load
from filigrane.roles import ROLES
from tests.deploy.reading import API_PORT, DEPLOY, METRICS_PORT, USER, check_grace, check_settings, documents, parsed
from tests.servers import s3

(COMPOSE,) = documents(DEPLOY / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("filigrane:")}
RUNNING = {name: service for name, service in OURS.items() if "entrypoint" not in service}


def example() -> dict[str, str]:
    lines = [line for line in (DEPLOY / "example.env").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def filled(service: dict[str, Any], values: dict[str, str]) -> dict[str, str]:
    """The environment of a service, its variables taken from the env file."""
    return {
        name: re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: values[found[1]], str(value)) for name, value in service["environment"].items()
    }


def test_every_role_runs_and_every_command_can_be_said() -> None:
    roles = {name: parsed(service["command"]) for name, service in RUNNING.items()}
    assert {given.role for given in roles.values()} == set(ROLES)
    for role in ("crawler", "matcher", "scheduler"):
        replicas = [RUNNING[name].get("deploy", {}).get("replicas", 1) for name, given in roles.items() if given.role == role]
        assert sum(replicas) == 2
    names = [given.name for given in roles.values() if given.role == "crawler"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", RUNNING)
def test_settings_exist_and_are_right_once_the_secrets_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {key: value.replace(PLACEHOLDER, uuid.uuid4().hex) for key, value in example().items()}
    environment = filled(RUNNING[name], values)
    check_settings(environment)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = load()
    assert settings.store_url.startswith("s3://")
    assert settings.bus_url == "kafka://kafka:9092"
    assert settings.metrics_listen.endswith(f":{METRICS_PORT}")


@pytest.mark.parametrize("left", ["FILIGRANE_SECRET_KEY", "POSTGRES_PASSWORD"])
def test_nothing_starts_with_a_secret_of_the_example(left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {key: value if key == left else value.replace(PLACEHOLDER, uuid.uuid4().hex) for key, value in example().items()}
    for variable, value in filled(RUNNING["api"], values).items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput, match=PLACEHOLDER):
        load()


def test_every_secret_of_the_example_is_a_placeholder_that_compose_reads() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert {name for name in example() if "SECRET" in name or "PASSWORD" in name} == {k for k, v in example().items() if v == PLACEHOLDER}
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example())
    assert ":?" in text


@pytest.mark.parametrize("name", OURS)
def test_ours_may_do_nothing_that_they_need_not(name: str) -> None:
    service = OURS[name]
    assert service["user"] == f"{USER}:{USER}"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", RUNNING)
def test_roles_come_back_drain_and_can_write_where_they_must(name: str) -> None:
    service = RUNNING[name]
    assert service["restart"] == "unless-stopped"
    check_grace(float(service["stop_grace_period"].removesuffix("s")))
    mounted = [each.split(":")[0] for each in service["tmpfs"]] + [each.split(":")[1] for each in service.get("volumes", [])]
    assert {"/tmp", "/data"} <= set(mounted)
    program, *arguments = service["healthcheck"]["test"][1:]
    assert (service["healthcheck"]["test"][0], program) == ("CMD", "filigrane")
    assert parsed(arguments).quick


def test_crawlers_keep_their_folder_and_reach_the_web_others_do_not() -> None:
    crawlers = [service for service in RUNNING.values() if service["command"][0] == "crawler"]
    volumes = [service["volumes"][0].split(":")[0] for service in crawlers]
    assert len(set(volumes)) == len(crawlers)
    assert set(volumes) <= set(COMPOSE["volumes"])
    outer = {service["command"][0] for service in RUNNING.values() if "outer" in service["networks"]}
    assert outer == {"api", "crawler"}
    assert COMPOSE["networks"]["inner"]["internal"] is True


def test_only_the_api_is_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": [f"127.0.0.1:{API_PORT}:{API_PORT}"]}


def test_what_is_waited_for_says_when_it_is_there() -> None:
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                assert "test" in SERVICES[name]["healthcheck"]
            if wanted["condition"] == "service_completed_successfully":
                assert SERVICES[name]["restart"] == "on-failure"


def test_images_have_versions_and_volumes_are_declared() -> None:
    for service in SERVICES.values():
        assert re.search(r":v?\d+(\.\d+)*(-[\w]+)?$", service["image"]), service["image"]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]


def test_the_bucket_is_made_once_and_found_the_second_time(s3_server: s3.Bucket) -> None:
    script = OURS["bucket"]["command"][0]
    assert OURS["bucket"]["entrypoint"] == ["python", "-c"]
    name = f"bucket-{uuid.uuid4().hex}"
    environment = {**os.environ, **s3_server.environment(), "FILIGRANE_STORE_URL": f"s3://{name}/main"}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
    buckets = [bucket["Name"] for bucket in s3_server.client().list_buckets()["Buckets"]]
    assert buckets.count(name) == 1
    s3_server.client().delete_bucket(Bucket=name)
