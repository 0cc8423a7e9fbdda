"""Data, labels and weights in a DVC remote; experiments, their scores and their plots."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CELL = "artifacts/scores/cells/a"
pytestmark = pytest.mark.orchestration

PIPELINE = """
stages:
  evaluate:
    cmd: >-
      mkdir -p artifacts/scores/cells/a artifacts/tables &&
      printf '{"last": {"miou": 0.%d}}' ${miou} > artifacts/scores/cells/a/metrics.json &&
      printf 'cell,iteration,loss,val_miou\\na,1,2.5,\\na,2,,0.%d\\n' ${miou}
      > artifacts/tables/curves.csv &&
      printf 'cell,class,iou\\na,cat,0.%d\\n' ${miou} > artifacts/tables/class_iou.csv &&
      printf 'method,labeled_images,seed,miou\\na,20,0,0.%d\\n' ${miou} > artifacts/tables/miou.csv
    deps: [source]
    params: [miou]
    metrics: [artifacts/scores/cells/a/metrics.json]
    outs: [artifacts/tables]
"""


@pytest.fixture
def scored(tmp_path, run_in, dvc_in):
    """A committed project with the plots and templates of this repository, run once."""
    folder = tmp_path / "project"
    folder.mkdir()
    run_in(folder, "git", "init", "--quiet", ".")
    run_in(folder, "git", "config", "user.name", "test")
    run_in(folder, "git", "config", "user.email", "test@localhost")
    dvc_in(folder, "init", "--quiet")
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    text = yaml.safe_dump({"plots": plots}, sort_keys=False)
    (folder / "dvc.yaml").write_text(PIPELINE + text)
    (folder / "params.yaml").write_text("miou: 47\npaths: {out: artifacts}\n")
    (folder / "source").write_text("photos")
    (folder / ".gitignore").write_text("/artifacts/\n")
    dvc_in(folder, "repro", "--quiet")
    run_in(folder, "git", "add", ".")
    run_in(folder, "git", "commit", "--quiet", "-m", "all")
    return folder


def push_and_pull(folder, run_in, dvc_in):
    """Push all there is, lose it, and return what a new clone pulls."""
    dvc_in(folder, "push", "--quiet")
    clone = folder.parent / "clone"
    run_in(folder.parent, "git", "clone", "--quiet", str(folder), str(clone))
    shutil.copy(folder / ".dvc/config", clone / ".dvc/config")
    dvc_in(clone, "pull", "--quiet")
    return json.loads((clone / CELL / "metrics.json").read_text())["last"]["miou"]


def test_a_clone_pulls_tables_and_scores_from_a_folder(scored, run_in, dvc_in):
    dvc_in(scored, "remote", "add", "-d", "shared", str(scored.parent / "remote"))

    assert push_and_pull(scored, run_in, dvc_in) == 0.47


def test_a_clone_pulls_tables_and_scores_from_a_bucket(scored, run_in, dvc_in, monkeypatch):
    import boto3
    from moto.server import ThreadedMotoServer

    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="zspl")
        dvc_in(scored, "remote", "add", "-d", "shared", "s3://zspl/store")
        dvc_in(scored, "remote", "modify", "shared", "endpointurl", url)

        assert push_and_pull(scored, run_in, dvc_in) == 0.47
    finally:
        server.stop()


@pytest.mark.slow
def test_an_experiment_has_scores_and_plots_to_compare(scored, run_in, dvc_in):
    dvc_in(scored, "exp", "run", "--quiet", "--name", "higher", "-S", "miou=70")

    scores = dvc_in(scored, "metrics", "diff", "HEAD", "higher")
    assert "0.47" in scores
    assert "0.7" in scores
    shown = dvc_in(scored, "plots", "diff", "HEAD", "higher", "--json")
    plots = json.loads(shown[shown.index("{") :])
    assert not plots.get("errors")
    names = [name.rpartition("::")[2] for name in plots["data"]]
    assert names == [
        next(iter(plot)) for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    ]
    for plot in plots["data"].values():
        content = json.dumps(plot)
        assert "<DVC_METRIC" not in content
        assert {"HEAD", "higher"} <= {rev for part in plot for rev in part["revisions"]}


def test_each_plot_has_its_template_and_a_file_that_tabulate_writes():
    from zspl.evaluation import plot_data

    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    written = Path(plot_data.__file__).read_text()
    for plot in plots:
        ((_, shape),) = plot.items()
        ((file, column),) = shape["y"].items()
        json.loads((ROOT / ".dvc/plots" / f"{shape['template']}.json").read_text())
        assert f'"{Path(file).name}"' in written
        assert f'"{column}"' in written
