"""Finished stage instances in the DVC remote, so that clones on several machines share them.

A run keeps a list there of what it has finished: one lock entry per instance, under the run's
name. An instance's inputs are exactly what that list says, so that nothing is made twice, and
only what an instance reads travels to the clone that runs it. Objects lie where `dvc push`
puts them, and run-cache entries, too: a later run, and `dvc repro --pull`, find them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dvc.dependency.base import DependencyDoesNotExistError
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.stage.cache import _get_stage_hash as run_cache_key
from dvc.stage.loader import StageLoader
from dvc.stage.serialize import to_single_stage_lockfile

from tasks.dag import remove
from zspl.errors import DataError, SettingsError

Entry = dict[str, Any]
"""What dvc.lock holds of one instance: the hashes of what it read and of what it wrote."""


class Shelf:
    """What one run has finished, in the DVC remote of the clone that `folder` lies in."""

    def __init__(self, folder: Path, run: str) -> None:
        """Name the benchmark's folder in this clone and the run, a word without slashes."""
        self._folder = folder.resolve()
        self.run = run

    @property
    def place(self) -> str:
        """The benchmark's folder as any clone sees it from its root."""
        with self._opened() as repo:
            return Path(os.path.relpath(self._folder, repo.root_dir)).as_posix()

    def put(self, names: Sequence[str]) -> None:
        """Push the outputs of up-to-date instances, then say that they are finished.

        Raises:
            DataError: if outputs are missing or the remote does not take them.
            SettingsError: if the clone has no default remote.
        """
        with self._opened() as repo:
            stages = self._stages(repo)
            with lock_repo(repo):
                # This also keeps the content of outputs that only git would keep.
                entries = {name: _saved(repo, stages[name]) for name in names}
            for name, entry in entries.items():
                stage = stages[name]
                _transfer(repo, name, repo.cloud.push(_objects(repo, stage, entry)))
                key = run_cache_key(stage)
                _upload(repo, Path(repo.stage_cache.cache_dir), f"{key[:2]}/{key}")
                self._write(repo, name, entry)

    def fetch(self, name: str, *, code: str) -> None:
        """Make this clone ready to run instance `name`: exactly the run's inputs, and no others.

        Results of the same inputs, code and settings, made anywhere before, come with them; DVC
        then finds nothing to run.

        Raises:
            DataError: if the remote lacks an input.
            SettingsError: if this clone has other code, settings or data than `code` tells of.
        """
        with self._opened() as repo:
            stages = self._stages(repo)
            if name not in stages:
                raise SettingsError(f"{name}: {self._other()}, its dvc.yaml has no such instance")
            stage = stages[name]
            here = _fingerprint(stage, _Made(stages.values()), {})
            if here != code:
                raise SettingsError(
                    f"{name}: {self._other()} in code, settings or source data; match it"
                )
            upstream = _upstream(repo, stage)
            found = {above.name: self._read(repo, above.name) for above in upstream}
            self._restore(repo, {stages[key]: entry for key, entry in found.items()})
            _download(repo, stage)

    def collect(self, names: Sequence[str]) -> None:
        """Bring what the run has finished into this clone and its dvc.lock; forget the list.

        Raises:
            DataError: if the remote lacks an output.
        """
        with self._opened() as repo:
            stages = self._stages(repo)
            found = {stages[name]: self._read(repo, name) for name in names}
            self._restore(repo, {stage: entry for stage, entry in found.items() if entry})
            with lock_repo(repo):
                for stage, entry in found.items():
                    if entry and entry != to_single_stage_lockfile(stage):
                        StageLoader.fill_from_lock(stage, entry)
                        repo.stage_cache.save(stage)
                        stage.dump(update_pipeline=False)
            fs, place = self._place(repo)
            if fs.exists(place):
                fs.rm(place, recursive=True)

    def fingerprints(self, names: Iterable[str]) -> dict[str, str]:
        """Return, per instance, what stands for its code, settings and source data.

        Raises:
            SettingsError: if a file that an instance reads is missing.
        """
        hashes: dict[str, str] = {}
        with self._opened() as repo, lock_repo(repo):
            stages = self._stages(repo)
            made = _Made(stages.values())
            return {name: _fingerprint(stages[name], made, hashes) for name in names}

    def _restore(self, repo: Repo, entries: Mapping[Any, Entry | None]) -> None:
        for stage, entry in entries.items():
            if entry:
                _transfer(repo, stage.name, repo.cloud.pull(_objects(repo, stage, entry)))
        with lock_repo(repo):
            for stage, entry in entries.items():
                if entry:
                    _check_out(repo, stage, entry)
                elif not (stage.meta or {}).get("partial_ok"):
                    # It failed in this run: what an earlier one left is not its result.
                    for out in stage.outs:
                        if out.exists:
                            remove(Path(out.fs_path))

    def _write(self, repo: Repo, name: str, entry: Entry) -> None:
        fs, place = self._place(repo)
        fs.makedirs(place, exist_ok=True)
        file = Path(repo.tmp_dir) / f"{self.run}-{quote(name, safe='')}.json"
        file.write_text(json.dumps(entry), encoding="utf-8")
        try:
            fs.put_file(str(file), fs.join(place, f"{quote(name, safe='')}.json"))
        finally:
            file.unlink()

    def _read(self, repo: Repo, name: str) -> Entry | None:
        fs, place = self._place(repo)
        file = fs.join(place, f"{quote(name, safe='')}.json")
        fs.fs.invalidate_cache()
        return dict(json.loads(fs.read_text(file))) if fs.exists(file) else None

    def _place(self, repo: Repo) -> tuple[Any, str]:
        remote = repo.cloud.get_remote()
        return remote.fs, remote.fs.join(remote.path, "finished", self.run)

    @contextmanager
    def _opened(self) -> Iterator[Repo]:
        try:
            # DVC reads lock entries as if they lay in the current folder.
            with chdir(self._folder), Repo(str(self._folder), _wait_for_lock=True) as repo:
                repo.cloud.get_remote()
                yield repo
        except DvcException as error:
            raise SettingsError(f"{self._folder}: {' '.join(str(error).split())}") from error

    def _stages(self, repo: Repo) -> dict[str, Any]:
        pipeline = self._folder / "dvc.yaml"
        return {stage.name: stage for stage in repo.index.stages if Path(stage.path) == pipeline}

    def _other(self) -> str:
        return f"the clone at {self._folder} differs from the one that started the run"


def _upstream(repo: Repo, stage: Any) -> list[Any]:  # noqa: ANN401 - DVC has no types
    return [above for above in repo.index.graph.successors(stage) if above.path == stage.path]


def _fingerprint(stage: Any, made: "_Made", hashes: dict[str, str]) -> str:  # noqa: ANN401
    """Return a hash of the command and of all that it reads which no other instance writes."""
    values: list[Any] = [stage.cmd]
    for dep in sorted(stage.deps, key=lambda dep: str(dep.def_path)):
        if hasattr(dep, "params"):
            values.append(dep.read_params())
        elif dep.fs_path not in made:
            values.append([dep.def_path, hashes.get(dep.fs_path) or _hash(dep, hashes)])
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


class _Made:
    """All paths that instances write, with what lies below and above them."""

    def __init__(self, stages: Iterable[Any]) -> None:
        self._outs = {Path(out.fs_path) for stage in stages for out in stage.outs}
        self._above = {parent for out in self._outs for parent in out.parents}

    def __contains__(self, path: str) -> bool:
        place = Path(path)
        return place in self._above or not self._outs.isdisjoint((place, *place.parents))


def _hash(dep: Any, hashes: dict[str, str]) -> str:  # noqa: ANN401
    if not dep.exists:
        raise SettingsError(f"{dep.fs_path}: no such file or folder in this clone")
    hashes[dep.fs_path] = value = str(dep.get_hash().value)
    return value


def _saved(repo: Repo, stage: Any) -> Entry:  # noqa: ANN401
    """Return the lock entry of an up-to-date instance, with its run-cache entry in place."""
    missing = [out.def_path for out in stage.outs if not out.exists]
    try:
        stage.save_deps()
    except DependencyDoesNotExistError as error:
        raise DataError(f"{stage.name}: {error}") from error
    if missing or not all(out.hash_info for out in stage.outs):
        raise DataError(f"{stage.name}: not finished here, lacks {', '.join(missing) or 'hashes'}")
    repo.stage_cache.save(stage)
    return json.loads(json.dumps(to_single_stage_lockfile(stage)))  # type: ignore[no-any-return]


def _objects(repo: Repo, stage: Any, entry: Entry) -> set[Any]:  # noqa: ANN401
    """Return the hashes of all outputs; DVC's own stage leaves those out that git keeps."""
    whole = repo.stage_cache._create_stage(entry, wdir=stage.wdir)  # noqa: SLF001 - no public way
    return {one for objects in whole.get_used_objs().values() for one in objects}


def _check_out(repo: Repo, stage: Any, entry: Entry) -> None:  # noqa: ANN401
    kept_by_git = {out.def_path for out in stage.outs if not out.use_cache}
    whole = repo.stage_cache._create_stage(entry, wdir=stage.wdir)  # noqa: SLF001
    for out in whole.outs:
        if out.exists and not out.changed_checksum():
            continue
        if out.def_path in kept_by_git:
            with repo.stage_cache._cache_type_copy():  # noqa: SLF001
                out.checkout(force=True)
        else:
            out.checkout(force=True)


def _transfer(repo: Repo, name: str, result: Any) -> None:  # noqa: ANN401
    if result.failed:
        place = repo.cloud.get_remote().path
        raise DataError(f"{name}: {len(result.failed)} objects did not travel to or from {place}")


def _upload(repo: Repo, runs: Path, key: str) -> None:
    remote = repo.cloud.get_remote()
    for file in sorted((runs / key).iterdir()):
        target = remote.fs.join(remote.path, "runs", *key.split("/"), file.name)
        if not remote.fs.exists(target):
            remote.fs.makedirs(remote.fs.parent(target), exist_ok=True)
            remote.fs.put_file(str(file), target)


def _download(repo: Repo, stage: Any) -> None:  # noqa: ANN401
    """Fetch what the run-cache of the remote knows of this instance with these inputs."""
    with lock_repo(repo):
        stage.save_deps()
        key = run_cache_key(stage)
    remote = repo.cloud.get_remote()
    place = remote.fs.join(remote.path, "runs", key[:2], key)
    if not remote.fs.exists(place):
        return
    for file in remote.fs.find(place):
        target = Path(repo.stage_cache.cache_dir, key[:2], key, remote.fs.name(file))
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            half = target.with_suffix(".half")
            remote.fs.get_file(file, str(half))
            half.replace(target)
        entry = repo.stage_cache._load_cache(key, target.name)  # noqa: SLF001
        if entry:
            repo.cloud.pull(_objects(repo, stage, entry))
