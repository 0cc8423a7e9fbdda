"""Downloads on machines whose processes die, whose disks are full and that have no network."""

import contextlib
import errno
import hashlib
import os
import re
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from zspl.errors import DiskError, WeightsError
from zspl.io import weights
from zspl.io._transfer import Patience, Source

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=3, pause=0.0, timeout=5.0)


def test_two_processes_that_want_the_same_file_download_it_once(web, tmp_path):
    def slow(handler):
        time.sleep(0.5)
        web.send(handler, CONTENT)

    plan = web.Plan(slow)
    with web.serving(plan) as url:
        both = [web.child(url, tmp_path / "m.pth") for _ in range(2)]
        assert [process.communicate(timeout=60)[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    assert plan.ranges == [None]
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_process_that_is_killed_in_mid_download_leaves_what_the_next_one_needs(web, tmp_path):
    part = tmp_path / "m.pth.part"
    release = threading.Event()

    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for begin in range(0, len(CONTENT), 100_000):
                handler.wfile.write(CONTENT[begin : begin + 100_000])
                if begin == 300_000:
                    handler.wfile.flush()
                    release.wait(30)

    plan = web.Plan(half, web.whole)
    with web.serving(plan) as url:
        process = web.child(url, tmp_path / "m.pth", before=web.SMALL_BLOCKS)
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size >= 200_000):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.communicate()
        release.set()
        kept = part.stat().st_size
        assert not (tmp_path / "m.pth").exists()
        weights.download(web.known(url), sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert plan.ranges == [None, f"bytes={kept}-"]
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_killed_download_continues_in_the_next_call(web, tmp_path):
    (tmp_path / "m.pth.part").write_bytes(CONTENT[:777])
    plan = web.Plan(web.whole)
    with web.serving(plan) as url:
        weights.download(Source(url=url), sha256=SHA256, to=tmp_path / "m.pth")
    assert plan.ranges == ["bytes=777-"]
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_complete_part_file_only_needs_its_checksum(web, tmp_path):
    (tmp_path / "m.pth.part").write_bytes(CONTENT)
    with web.serving(web.Plan(web.whole)) as url:
        weights.download(Source(url=url), sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_disk_that_fills_up_is_one_line_and_the_bytes_are_kept(web, tmp_path):
    with web.serving(web.Plan(web.whole)) as url:
        process = web.child(url, tmp_path / "m.pth", before=web.SMALL_BLOCKS + web.SMALL_DISK)
        last = process.communicate(timeout=60)[1].splitlines()[-1]
        assert re.search(r"DiskError: .*m\.pth\.part: no disk space left; free some space", last)
        assert (tmp_path / "m.pth.part").stat().st_size == 1 << 18
        weights.download(web.known(url), sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_disk_that_is_too_small_is_told_before_the_first_request(web, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    plan = web.Plan(web.whole)
    with web.serving(plan) as url, pytest.raises(DiskError, match=r"for 4 MB, 2 MB are free"):
        weights.download(web.known(url, 4_000_000 - 1), sha256=SHA256, to=tmp_path / "m.pth")
    assert plan.ranges == []


def test_a_read_only_folder_is_one_line_that_says_what_to_set(web, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(DiskError, match=r"not writable \(Read-only .*set ZSPL_WEIGHTS elsewhere"):
        weights.download(
            web.known("http://127.0.0.1:9/m"), sha256=SHA256, to=tmp_path / "a" / "m.pth"
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_one_line(web, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError, match="not writable"):
        weights.download(web.known("http://127.0.0.1:9/m"), sha256=SHA256, to=tmp_path / "m.pth")


def test_a_folder_that_cannot_be_made_is_a_disk_error(web, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with web.serving(web.Plan(web.whole)) as url, pytest.raises(DiskError, match="ZSPL_WEIGHTS"):
        weights.download(Source(url=url), sha256=SHA256, to=tmp_path / "file" / "m.pth")


def test_a_host_that_never_answers_costs_the_short_wait_only(web, tmp_path):
    """A listening socket with a full queue swallows connections as a firewall does."""
    with socket.socket() as silent, socket.socket() as first, socket.socket() as second:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        source = web.known(f"http://127.0.0.1:{silent.getsockname()[1]}/m.pth")
        patience = Patience(connects=2, pause=0.0, timeout=60.0, connect_timeout=0.2)
        started = time.monotonic()
        with pytest.raises(WeightsError, match="no server could be reached"):
            weights.download(source, sha256=SHA256, to=tmp_path / "m.pth", patience=patience)
        assert time.monotonic() - started < 5


def test_without_network_it_gives_up_sooner_and_says_where_a_copy_belongs(web, tmp_path):
    with web.serving(web.Plan(web.whole)) as url:
        pass
    patience = Patience(attempts=50, connects=2, pause=0.01)
    started = time.monotonic()
    with pytest.raises(WeightsError, match=rf"or copy the file to {tmp_path / 'm.pth'}$"):
        weights.download(web.known(url), sha256=SHA256, to=tmp_path / "m.pth", patience=patience)
    assert time.monotonic() - started < 2


def test_no_network_is_one_line(web, tmp_path):
    with web.serving(web.Plan(web.whole)) as url:
        pass
    with pytest.raises(WeightsError, match=r"no server could be reached .*check the network"):
        weights.download(Source(url=url), sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
