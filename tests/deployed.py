"""What compose and the Kubernetes manifests run: commands with their environment, as processes of this machine."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Deployed:
    """One container: what it runs, and what its environment says."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    probes: tuple[tuple[int, str], ...]
    """Port and path of each HTTP probe."""


def manifests(root: Path) -> list[dict[str, Any]]:
    """Return all objects that the kustomization names, but itself."""
    folder = root / "deploy" / "kubernetes"
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [each for name in named for each in yaml.safe_load_all((folder / name).read_text())]


def of_kubernetes(root: Path, secrets: Mapping[str, str]) -> list[Deployed]:
    """Return the containers of all deployments, with references filled in as Kubernetes does."""
    objects = manifests(root)
    settings = next(each for each in objects if each["kind"] == "ConfigMap")["data"]
    found: list[Deployed] = []
    for deployment in (each for each in objects if each["kind"] == "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        env = dict(settings)
        for each in container["env"]:
            env[each["name"]] = secrets[each["valueFrom"]["secretKeyRef"]["key"]]
        command = [re.sub(r"\$\((\w+)\)", lambda match: env[match[1]], part) for part in container["command"]]  # noqa: B023
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        gets = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
        probes = tuple(dict.fromkeys((ports[get["port"]], get["path"]) for get in gets))
        found.append(Deployed(deployment["metadata"]["name"], command, env, probes))
    return found


def of_compose(root: Path, variables: Mapping[str, str]) -> list[Deployed]:
    """Return the services that are ours, with variables filled in as compose does. Their probes are commands."""
    services = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]
    return [
        Deployed(
            name,
            shlex.split(interpolated(each["command"], variables)),
            {key: interpolated(str(value), variables) for key, value in each["environment"].items()},
            (),
        )
        for name, each in services.items()
        if "build" in each
    ]


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Fill in `${NAME}`, `${NAME:-default}` and `${NAME:?message}` as compose does."""
    return re.sub(r"\$\{(\w+)(?::[-?][^}]*)?\}", lambda match: variables[match[1]], text)
