"""Deploy files: by the schemas of those who read them, and with the entry point that the README shows.

No cloud, no Kubernetes and no image were at hand: nothing here says that they start.
"""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.label.config import LabelConfig
from jobs.flags import parse
from tests.support.command import ROOT
from tests.whole.test_readme import README, commands_of

DEPLOY = ROOT / "cluster" / "deploy"
PAGE = (ROOT / "docs" / "cluster.md").read_text()
RAYJOB = yaml.safe_load((DEPLOY / "kuberay-rayjob.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLOUDS = ("aws", "gcp")
# the fields that we use, with their types in KubeRay's ray-operator/apis/ray/v1
RAY_JOB_FIELDS = {
    "entrypoint": str,
    "runtimeEnvYAML": str,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "rayClusterSpec": dict,
}
CLUSTER_FIELDS = {"rayVersion": str, "authOptions": dict, "headGroupSpec": dict, "workerGroupSpecs": list}
GROUP_FIELDS = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": dict,
}


def cloud(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / f"{name}.yaml").read_text())


def entry_point_of_the_readme() -> list[str]:
    section = README.split("## On a cluster")[1].split("\n## ")[0]
    (words,) = commands_of(section)
    return words


def entry_points(name: str) -> list[list[str]]:
    """Return the words behind `python -m jobs` of a deploy file: a field of it, or the usage in its comment."""
    if name == "kuberay-rayjob.yaml":
        return [shlex.split(RAYJOB["spec"]["entrypoint"].removeprefix("python -m jobs "))]
    head = "\n".join(line.removeprefix("#") for line in (DEPLOY / name).read_text().splitlines() if line[:1] == "#")
    return commands_of(f"```sh\n{head}\n```")


@pytest.mark.parametrize("name", ["kuberay-rayjob.yaml", "aws.yaml", "gcp.yaml"])
def test_the_entry_point_is_the_readme_s_and_the_flag_parser_takes_it(name: str) -> None:
    assert entry_points(name) == [entry_point_of_the_readme()]
    command, *flags = entry_point_of_the_readme()
    config = parse(LabelConfig, flags, command)
    assert (config.images, config.out, config.label_source) == (("/data/photos",), "/data/run", "folder")


@pytest.mark.parametrize("words", commands_of(PAGE), ids=" ".join)
def test_a_command_of_the_page_is_parsed(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert words[0] in ("label", "status", "verify")
    if words[0] == "label":
        assert parse(LabelConfig, words[1:], "label")


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_up_accepts_the_file_and_starts_what_it_says(name: str) -> None:
    prepared = prepare_config(cloud(name))  # as `ray up` does, defaults included
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert types[prepared["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["gpu"]["resources"]["GPU"] * types["gpu"]["min_workers"] == 4
    assert not [line for line in prepared["head_setup_commands"] + prepared["setup_commands"] if "ray" in line]
    start, add = prepared["head_start_ray_commands"][-1], prepared["worker_start_ray_commands"][-1]
    assert "--num-cpus=0 " in start
    assert all("RAY_AUTH_MODE=token ray start " in line for line in (start, add))
    assert "~/.ray/auth_token" in prepared["file_mounts"]


def test_the_options_of_ray_start_exist() -> None:
    shown = subprocess.run([sys.executable, "-m", "ray.scripts.scripts", "start", "--help"], capture_output=True)
    lines = [
        line for name in CLOUDS for kind in ("head", "worker") for line in cloud(name)[f"{kind}_start_ray_commands"]
    ]
    used = set(re.findall(r"--([a-z-]+)", " ".join(lines)))
    groups = [RAYJOB["spec"]["rayClusterSpec"]["headGroupSpec"], *RAYJOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    used |= {option for group in groups for option in group["rayStartParams"]}
    assert not [option for option in used if f"--{option}" not in shown.stdout.decode()]


def check_fields(document: dict[str, Any], fields: dict[str, type]) -> None:
    assert {key: type(value) for key, value in document.items()} == {key: fields[key] for key in document}


def test_the_rayjob_has_fields_of_kuberay_with_their_types() -> None:
    assert (RAYJOB["apiVersion"], RAYJOB["kind"]) == ("ray.io/v1", "RayJob")
    spec = RAYJOB["spec"]
    check_fields(spec, RAY_JOB_FIELDS)
    check_fields(spec["rayClusterSpec"], CLUSTER_FIELDS)
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for group in groups:
        check_fields(group, GROUP_FIELDS)
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}
    (pin,) = [Requirement(line).specifier for line in PROJECT["dependencies"] if line.startswith("ray[")]
    assert spec["rayClusterSpec"]["rayVersion"] in pin


def pods() -> list[dict[str, Any]]:
    cluster = RAYJOB["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, **group["template"]} for group in groups]


def test_its_pods_are_valid_for_kubernetes_and_share_what_they_must() -> None:
    for pod in pods():
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        (container,) = pod["spec"]["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        assert volumes[mounts["/data"]]["persistentVolumeClaim"]["claimName"] == "camray-data"
        assert pod["spec"]["terminationGracePeriodSeconds"] > 35  # of which Ray drains for up to 30
        quantities = [q for kind in container["resources"].values() for q in kind.values()]
        assert all(re.fullmatch(r"\d+(Mi|Gi)?", quantity) for quantity in quantities)
    head, worker = pods()
    assert "nvidia.com/gpu" not in head["spec"]["containers"][0]["resources"]["limits"]
    assert worker["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_image_installs_this_project_with_its_pins_on_a_python_that_it_supports(tmp_path: Path) -> None:
    subprocess.run([Path(sys.executable).parent / "hadolint", DEPLOY / "Dockerfile"], check=True)
    dockerfile = DockerfileParser(str(tmp_path), fileobj=None, cache_content=True)
    dockerfile.content = (DEPLOY / "Dockerfile").read_text()
    python = re.fullmatch(r"python:(3\.\d+)-slim-\w+", dockerfile.baseimage)
    assert python
    assert f"{python[1]}.0" in SpecifierSet(PROJECT["requires-python"])
    steps = [(step["instruction"], step["value"]) for step in dockerfile.structure if step["instruction"] != "COMMENT"]
    (source,) = [value for name, value in steps if name == "COPY"]
    (pip,) = [value for name, value in steps if "pip install" in value]
    assert source.split()[0] == "."
    requirement = Requirement(shlex.split(pip)[-1].replace(source.split()[1], PROJECT["name"]))  # the copy, so its pins
    assert requirement.name == "camray"
    assert requirement.extras <= PROJECT["optional-dependencies"].keys()
    (apt,) = [value for _, value in steps if "apt-get install" in value]
    needed = re.search(r"apt-get install --no-install-recommends (.+)", README)
    assert needed
    assert {"g++", "libgl1", "libglib2.0-0"} <= set(apt.split()) & set(needed[1].split())


def test_the_image_holds_the_packages_and_nothing_else() -> None:
    kept = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert kept == {"cam_ops", "cluster", "jobs", "pyproject.toml", "LICENSE"}
