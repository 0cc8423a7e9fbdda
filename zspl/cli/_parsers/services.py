"""What `zspl up`, `zspl down` and `zspl status` accept."""

from zspl.cli._parsers._layout import Commands, formatted

_EPILOG = """\
`up` starts a Prefect server, a Prefect worker and an MLflow server, on 127.0.0.1 only, and
registers the deployments of prefect.yaml; what already runs is left alone. `down` ends them and
all that they started. `status` says what runs; its exit code is 0 if all three do, else 1.

  zspl up
  prefect deployment run full-benchmark/demo --watch
  zspl down

Run them in the repository, in the environment of the benchmark (. .venv/bin/activate). Pid files,
logs and Prefect's database lie in .zspl/; prefect.toml, written by `up` and removed by `down`,
tells `prefect` where the server is. A setting of Prefect in your environment goes first.

environment, read by `up`:
  ZSPL_PREFECT_PORT    port of the Prefect server and its pages (4200)
  ZSPL_MLFLOW_PORT     port of the MLflow server and its pages (5000)
  ZSPL_GPUS            stage instances that may use a GPU at a time (the GPUs there are)
  ZSPL_PARALLEL        stage instances at a time (2)
  ZSPL_WEIGHTS         folder of checkpoints; runs find them there"""

_HELP = {
    "up": "start Prefect, its worker and MLflow on this machine",
    "down": "end what zspl up started",
    "status": "say what of zspl up runs, and where",
}


def add(commands: Commands) -> None:
    """Add `zspl up`, `zspl down` and `zspl status`."""
    for name, help_ in _HELP.items():
        formatted(commands.add_parser(name, help=help_, description=help_, epilog=_EPILOG))
