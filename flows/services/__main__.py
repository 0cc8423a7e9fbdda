"""`python -m flows.services up|down|status`: the services of this project; `zspl up` calls it."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.services import processes, stack
from flows.services.api import Api, check_client_file, forget_clients, tell_clients
from flows.services.place import Place, Ports, gpus
from flows.services.processes import Record
from flows.services.stack import Service
from zspl.errors import SettingsError, ZsplError

NOT_RUNNING = 1
USER_ERROR = 2
STOPPED = 130


def main(arguments: Sequence[str]) -> int:
    """Run one of the three commands and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.services", description=__doc__)
    parser.add_argument("command", choices=sorted(_COMMANDS))
    try:
        command = _COMMANDS[parser.parse_args(arguments).command]
        return command(Place.find(Path.cwd()))
    except ZsplError as error:
        sys.stderr.write(f"zspl: {error}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("zspl: stopped; zspl down ends what was started\n")
        return STOPPED


def up(place: Place) -> int:
    """Start what does not run, register the deployments, and say what runs where."""
    with place.alone():
        check_client_file(place.client)
        limit, ports = gpus(), _ports(place)
        every = stack.services(place, ports)
        waiting = [service for service in every if stack.running(place, service.name) is None]
        _say_stale(place, waiting)
        stack.check_ports(waiting)
        try:
            _start(waiting, place, ports, limit)
        except BaseException:
            # Nothing half started stays; what ran before goes on.
            _end([service.name for service in waiting], place)
            raise
        tell_clients(place, stack.addresses(ports)[0])
    return status(place)


def down(place: Place) -> int:
    """End all services and all that they started."""
    with place.alone():
        count = stack.end_all(place)
        forget_clients(place)
    _say(f"ended {count} processes" if count else "nothing ran")
    return 0


def status(place: Place) -> int:
    """Say what runs, where, and how to use it."""
    states = []
    for service in stack.services(place, _ports(place)):
        record = Record.read(place.pid_file(service.name))
        states.append(_state(service, record))
        address = record.address if record else ""
        _say(f"{service.title:<9}{states[-1]:<16}{address}")
    if any(state == "running" for state in states):
        _say(f"Logs     {place.folder.relative_to(place.root)}/logs/")
    if set(states) != {"running"}:
        _say("Next     zspl up")
        return NOT_RUNNING
    api = Api(stack.addresses(_ports(place))[0])
    limit = api.gpu_limit()
    _say(f"GPUs     {'no limit' if limit is None else f'{limit} at a time'}")
    _say("Next     prefect deployment run full-benchmark/demo --watch")
    _say(f"         others: {', '.join(api.deployments())}")
    return 0


_COMMANDS: dict[str, Callable[[Place], int]] = {"up": up, "down": down, "status": status}


def _start(waiting: Sequence[Service], place: Place, ports: Ports, limit: int) -> None:
    """Start the servers side by side; then the worker, with the deployments registered."""
    api = Api(stack.addresses(ports)[0])
    servers = [service for service in waiting if service.port is not None]
    started = [(service, stack.start(service, place, ports)) for service in servers]
    for service, record in started:
        stack.wait(service, place, record)
    api.pool()
    api.limit_gpus(limit)
    for name in api.bury():
        _say(f"flow run {name} had lost its process; it is now shown as Crashed")
    workers = [service for service in waiting if service.port is None]
    started = [(service, stack.start(service, place, ports)) for service in workers]
    _register(place, ports)
    for service, record in started:
        stack.wait(service, place, record)


def _register(place: Place, ports: Ports) -> None:
    """Register the deployments of prefect.yaml.

    Raises:
        SettingsError: if Prefect refuses them.
    """
    log = place.log("deploy")
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    with log.open("wb") as output:
        code = subprocess.call(
            command,
            cwd=place.root,
            env=stack.environment(place, ports),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if code != 0:
        line = processes.last_line(log)
        raise SettingsError(f"{place.root / 'prefect.yaml'}: not registered: {line} ({log})")


def _ports(place: Place) -> Ports:
    """Return the ports in use; those of the environment for what does not run."""
    wanted = Ports.from_environment()
    used = {"prefect": wanted.prefect, "mlflow": wanted.mlflow}
    for name in used:
        if record := stack.running(place, name):
            used[name] = int(record.address.rpartition(":")[2])
    worker = stack.running(place, "worker")
    ports = Ports(**used)
    here = stack.services(place, ports)[-1].address
    if worker is not None and worker.address != here:
        raise SettingsError(
            f"the worker uses {worker.address}, not {here}; zspl down ends it, then zspl up"
        )
    return ports


def _say_stale(place: Place, waiting: Sequence[Service]) -> None:
    for service in waiting:
        if place.pid_file(service.name).exists():
            _say(f"{service.title} has ended since the last zspl up; starting it again")


def _state(service: Service, record: Record | None) -> str:
    if record is None:
        return "not running"
    if not record.alive():
        return "has ended"
    return "running" if service.up() else "does not answer"


def _end(names: Sequence[str], place: Place) -> None:
    for name in names:
        if record := stack.running(place, name):
            processes.end(processes.tree(record))
        place.pid_file(name).unlink(missing_ok=True)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
