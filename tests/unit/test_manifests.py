"""Compose and the manifests are what their published schemas say, and keep the promises of `deploy/README.md`."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from orchestra.runtime.roles import ROLES
from tests.deployed import manifests

OLDEST, NEWEST = "1.32", "1.37"
BUILT_IN = ("ScaledObject",)
"""Kinds of which no schema is published in a package: KEDA's."""


@pytest.fixture(scope="module")
def objects(root: Path) -> list[dict[str, Any]]:
    return manifests(root)


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: each["spec"]["template"] for name, each in of_kind(objects, "Deployment").items()}


def test_compose_is_valid(root: Path) -> None:
    schema = files("check_jsonschema").joinpath("builtin_schemas", "vendor", "compose-spec.json").read_text()
    jsonschema.validate(yaml.safe_load((root / "docker-compose.yml").read_text()), json.loads(schema))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_manifests_are_valid(objects: list[dict[str, Any]], version: str) -> None:
    checked = [each for each in objects if each["kind"] not in BUILT_IN]
    assert len(checked) >= 12
    for each in checked:
        kubernetes_validate.validate(each, version, strict=True)


def test_there_is_a_worker_of_every_role_with_an_autoscaler_on_depth_and_age(objects: list[dict[str, Any]]) -> None:
    scaled = of_kind(objects, "ScaledObject")
    assert set(scaled) == {f"orchestra-worker-{role}" for role in ROLES}
    for name, each in scaled.items():
        assert each["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in of_kind(objects, "Deployment")[name]["spec"]  # two would give different numbers
        queue = next(iter(ROLES[name.removeprefix("orchestra-worker-")].queues), "orchestra")
        depth, age = [trigger["metadata"]["query"] for trigger in each["spec"]["triggers"]]
        assert depth == f'sum(max by (queue, where) (orchestra_ready_steps{{queue="{queue}"}}))'
        assert age == f'max(orchestra_oldest_ready_seconds{{queue="{queue}"}})'


def test_pods_have_no_rights_and_write_nowhere_but_to_tmp(objects: list[dict[str, Any]]) -> None:
    for pod in pods(objects).values():
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert [each["mountPath"] for each in container["volumeMounts"]] == ["/tmp"]


def test_pods_have_longer_to_end_than_their_bodies(objects: list[dict[str, Any]]) -> None:
    grace_s = int(of_kind(objects, "ConfigMap")["orchestra"]["data"]["ORCHESTRA_GRACE"].removesuffix("s"))
    for name, pod in pods(objects).items():
        assert pod["spec"]["terminationGracePeriodSeconds"] > (grace_s if "worker" in name else 0)


def test_every_deployment_of_several_pods_has_a_budget_and_every_pod_a_policy(objects: list[dict[str, Any]]) -> None:
    several = {name: pod for name, pod in pods(objects).items() if name != "orchestra-flower"}
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert set(budgets) == set(several)
    for name, pod in several.items():
        assert budgets[name]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    everybody = of_kind(objects, "NetworkPolicy")["orchestra"]["spec"]
    assert everybody["policyTypes"] == ["Ingress", "Egress"]
    for pod in pods(objects).values():
        assert everybody["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_secrets_are_references(objects: list[dict[str, Any]]) -> None:
    assert of_kind(objects, "Secret") == {}
    for pod in pods(objects).values():
        (container,) = pod["spec"]["containers"]
        assert all("value" not in each for each in container["env"])
