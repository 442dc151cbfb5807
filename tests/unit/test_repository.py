"""Rules of the repository that no other tool checks."""

import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

# Spelled in two halves, because this file is scanned as well.
REGISTRIES = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.",
    "yarn" + "pkg.com",
    "anaconda" + ".org",
    "crates" + ".io",
    "proxy.golang" + ".org",
    "index" + "-url",
    "find" + "-links",
]
DOWNLOAD = re.compile(r"https?://\S+\.(?:whl|zip|tgz|tar\.\w+|deb|rpm|exe|dmg)\b")
LOCK_FILES = {
    *("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml", "conda-lock.yml"),
    *("package-lock.json", "yarn.lock", "pnpm-lock.yaml", "Cargo.lock"),
}


@pytest.fixture(scope="module")
def tracked(root: Path) -> list[Path]:
    """What is, or with the next commit will be, in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert listed.returncode == 0, f"these tests need a git checkout: {listed.stderr}"
    return [path for name in listed.stdout.split("\0") if name and (path := root / name).is_file()]


def test_no_file_names_a_registry_or_a_download(tracked: list[Path], root: Path) -> None:
    found: list[str] = []
    for path in tracked:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if any(host in line for host in REGISTRIES) or DOWNLOAD.search(line):
                found.append(f"{path.relative_to(root)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_there_are_no_lock_files(tracked: list[Path]) -> None:
    assert not [path for path in tracked if path.name in LOCK_FILES]


def test_constraints_pin_every_dependency_exactly(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {normalized(item) for item in wanted} - {normalized(project["name"])}
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert not [line for line in lines if not re.fullmatch(r"[\w.\-]+==[\w.\-+!]+", line)]
    assert names <= {normalized(line) for line in lines}


def normalized(requirement: str) -> str:
    name = re.match(r"[\w.\-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_every_module_of_the_library_has_a_layer(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract for contract in contracts if contract["type"] == "layers"]
    placed = {re.sub(r"[()\s]", "", name) for line in layers["layers"] for name in re.split(r"[|:]", line)}
    modules = {path.stem for path in (root / "orchestra").glob("*.py")} - {"__init__", *layers["exhaustive_ignores"]}
    packages = {path.parent.name for path in (root / "orchestra").glob("*/__init__.py")}
    assert modules | packages <= placed
    assert layers["exhaustive"] is True


def test_every_folder_of_the_library_is_a_package(root: Path) -> None:
    folders = {path.parent for path in (root / "orchestra").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_the_wheel_holds_the_library_alone_and_its_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"orchestra"}
    assert "orchestra/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
