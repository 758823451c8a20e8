"""The manifests say only what the program knows."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from core.errors import InvalidInput
from core.settings import PLACEHOLDER, load
from filigrane.roles import ROLES
from tests.deploy.reading import API_PORT, DEPLOY, HEALTH_PATHS, METRICS_PORT, USER, check_grace, check_settings, documents, parsed

ALL: list[dict[str, Any]] = [each for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")) for each in documents(path)]
WORKLOADS = {each["metadata"]["name"]: each for each in ALL if each["kind"] in ("Deployment", "StatefulSet")}
PORTS = {"http": API_PORT, "metrics": METRICS_PORT}


def of(kind: str) -> list[dict[str, Any]]:
    return [each for each in ALL if each["kind"] == kind]


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = WORKLOADS[name]["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    (only,) = pod(name)["containers"]
    return dict(only)


def environment() -> dict[str, str]:
    (config,), (secret,) = of("ConfigMap"), of("Secret")
    return {**config["data"], **secret["stringData"]}


def test_every_role_has_its_workload() -> None:
    assert set(WORKLOADS) == {f"filigrane-{role}" for role in ROLES}
    for name in WORKLOADS:
        assert parsed(container(name)["args"]).role == name.removeprefix("filigrane-")
    assert WORKLOADS["filigrane-crawler"]["kind"] == "StatefulSet"
    assert all(workload["spec"]["replicas"] == 2 for workload in WORKLOADS.values())


def test_settings_exist_and_are_refused_until_the_secrets_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    check_settings(environment())
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=PLACEHOLDER):
        load()
    for name, value in environment().items():
        monkeypatch.setenv(name, value.replace(PLACEHOLDER, "0123456789abcdef" * 4))
    assert load().metrics_listen.endswith(f":{METRICS_PORT}")


@pytest.mark.parametrize("name", WORKLOADS)
def test_probes_ask_what_is_answered(name: str) -> None:
    role = container(name)
    ports = {port["name"]: port["containerPort"] for port in role["ports"]}
    assert ports.items() <= PORTS.items()
    for probe in ("livenessProbe", "readinessProbe"):
        asked = role[probe]["httpGet"]
        assert asked["port"] in ports
        assert asked["path"] in (HEALTH_PATHS if asked["port"] == "metrics" else ["/healthz"])
    # what is away is no reason to restart: liveness never asks the parts
    assert role["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert {each["name"] for source in role["envFrom"] for each in source.values()} == {"filigrane"}


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_may_do_nothing_that_they_need_not(name: str) -> None:
    spec, role = pod(name), container(name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == USER
    assert spec["automountServiceAccountToken"] is False
    assert role["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} == set(role["resources"])
    check_grace(spec["terminationGracePeriodSeconds"])


@pytest.mark.parametrize("name", WORKLOADS)
def test_what_is_written_to_is_mounted(name: str) -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in container(name)["volumeMounts"]}
    assert set(mounts) == {"/data", "/tmp"}
    volumes = [volume["name"] for volume in pod(name)["volumes"]]
    claims = [claim["metadata"]["name"] for claim in WORKLOADS[name]["spec"].get("volumeClaimTemplates", [])]
    assert sorted(volumes + claims) == sorted(mounts.values())
    assert claims == (["data"] if name == "filigrane-crawler" else [])


@pytest.mark.parametrize("name", WORKLOADS)
def test_selectors_select(name: str) -> None:
    labels = WORKLOADS[name]["spec"]["template"]["metadata"]["labels"]
    assert WORKLOADS[name]["spec"]["selector"]["matchLabels"] == labels
    (budget,) = [each for each in of("PodDisruptionBudget") if each["metadata"]["name"] == name]
    assert budget["spec"]["selector"]["matchLabels"] == labels
    for service in of("Service"):
        if service["metadata"]["name"] == name:
            assert service["spec"]["selector"] == labels


def test_who_fetches_reaches_no_inner_network() -> None:
    (policy,) = [each for each in of("NetworkPolicy") if each["metadata"]["name"] == "filigrane-fetching"]
    (role,) = [each["values"] for each in policy["spec"]["podSelector"]["matchExpressions"] if each["key"] == "role"]
    assert set(role) == {"crawler", "api"}
    blocks = [peer["ipBlock"] for rule in policy["spec"]["egress"] for peer in rule["to"] if "ipBlock" in peer]
    for address in ("10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "127.0.0.1", "100.64.0.1", "fd00::1", "::1", "fe80::1"):
        assert not any(allows(block, address) for block in blocks), address
    for address in ("93.184.216.34", "2606:2800:220:1::1"):
        assert any(allows(block, address) for block in blocks), address


def allows(block: dict[str, Any], address: str) -> bool:
    ip = ipaddress.ip_address(address)
    inside = [ip in ipaddress.ip_network(cidr) for cidr in [block["cidr"], *block.get("except", [])]]
    return inside[0] and not any(inside[1:])


def test_only_the_api_and_monitoring_are_let_in() -> None:
    (policy,) = [each for each in of("NetworkPolicy") if each["spec"]["policyTypes"] == ["Ingress"]]
    open_to_all = [port["port"] for rule in policy["spec"]["ingress"] if "from" not in rule for port in rule["ports"]]
    assert open_to_all == ["http"]
