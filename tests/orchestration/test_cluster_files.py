"""The example files of docs/cluster say what Prefect, Kubernetes and bash accept."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "cluster"
KNOWN = {"cd", "export", "set", "trap", "wait", "kill", "exec", "test", "git", "prefect", "ln"}
pytestmark = pytest.mark.orchestration


def words(text):
    """The first word of each command of a script, without comments, tests and assignments."""
    for line in re.split(r"\n|&&|\|\|", text):
        found = line.strip()
        if found and not found.startswith(("#", ":")) and not re.match(r"\w+=", found):
            yield found.split()[0]


def kubernetes():
    return list(yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text()))


def test_the_kubernetes_workers_get_their_environment_and_volumes_from_what_is_declared():
    config, deployment = kubernetes()
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]

    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert container["envFrom"][0]["configMapRef"]["name"] == config["metadata"]["name"]
    assert all(isinstance(value, str) for value in config["data"].values())
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("name", ["kubernetes.yaml", "slurm.sbatch"])
def test_the_scripts_are_bash_and_call_commands_that_exist(name):
    text = (EXAMPLES / name).read_text()
    if name == "kubernetes.yaml":
        (text,) = kubernetes()[1]["spec"]["template"]["spec"]["containers"][0]["args"]

    checked = subprocess.run(["bash", "-n"], input=text, text=True, check=False)

    assert checked.returncode == 0
    assert set(words(text)) <= KNOWN
    for program in {"prefect", "git"} & set(words(text)):
        assert shutil.which(program) or (Path(sys.executable).parent / program).exists()


def test_the_scripts_start_workers_with_options_that_prefect_knows():
    texts = [(EXAMPLES / name).read_text() for name in ("kubernetes.yaml", "slurm.sbatch")]
    commands = [re.findall(r"prefect (worker start [^\n&]*)", text) for text in texts]
    options = re.findall(r"--[a-z-]+", str(commands))
    said = subprocess.run(
        [sys.executable, "-m", "prefect", "worker", "start", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert all(commands)
    assert [option for option in options if option not in said] == []


def test_the_variables_of_every_deployment_fit_the_pool_of_type_process():
    import jsonschema
    from prefect.workers.process import ProcessWorker

    schema = ProcessWorker.get_default_base_job_template()["variables"]
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]

    for deployment in deployments:
        variables = deployment["work_pool"]["job_variables"]
        jsonschema.validate(variables, schema)
        assert set(variables) <= set(schema["properties"])
