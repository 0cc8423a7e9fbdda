"""Checkpoints: found, verified, and downloaded over lines that break and servers that lie."""

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from zspl.errors import DiskError, WeightsError
from zspl.io import weights
from zspl.io._transfer import Patience

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=3, pause=0.0, timeout=5.0)


class Plan:
    """What the server does with the n-th request, and the ranges it was asked for."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.ranges = []


@contextmanager
def serving(plan):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            plan.ranges.append(self.headers.get("Range"))
            answer = plan.answers.pop(0) if len(plan.answers) > 1 else plan.answers[0]
            answer(self)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/model.pth"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler, content, *, length=None, ranges=True, upto=None):
    """Answer like a file server: `length` may lie, `upto` cuts the body short."""
    start = 0
    asked = handler.headers.get("Range")
    if ranges and asked:
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.end_headers()
            return
        handler.send_response(206)
        handler.send_header(
            "Content-Range", f"bytes {start}-{len(content) - 1}/{length or len(content)}"
        )
    else:
        handler.send_response(200)
    handler.send_header("Content-Length", str((length or len(content)) - start))
    handler.end_headers()
    handler.wfile.write(content[start:upto])


def whole(handler):
    send(handler, CONTENT)


def dropped(handler):
    send(handler, CONTENT, upto=100_000)


def dropped_later(handler):
    send(handler, CONTENT, upto=300_000)


def refused(code):
    return lambda handler: handler.send_error(code)


def test_a_download_is_verified_and_moved_into_place(tmp_path):
    with serving(Plan(whole)) as url:
        path = weights.download(url, sha256=SHA256, to=tmp_path / "deep" / "model.pth")
    assert path.read_bytes() == CONTENT
    assert not path.with_name("model.pth.part").exists()


def test_a_dropped_connection_is_continued_where_it_stopped(tmp_path):
    plan = Plan(dropped, dropped_later, whole)
    with serving(plan) as url:
        path = weights.download(url, sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert path.read_bytes() == CONTENT
    assert plan.ranges == [None, "bytes=100000-", "bytes=300000-"]


def test_a_killed_download_continues_in_the_next_call(tmp_path):
    (tmp_path / "m.pth.part").write_bytes(CONTENT[:777])
    plan = Plan(whole)
    with serving(plan) as url:
        weights.download(url, sha256=SHA256, to=tmp_path / "m.pth")
    assert plan.ranges == ["bytes=777-"]
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_complete_part_file_only_needs_its_checksum(tmp_path):
    (tmp_path / "m.pth.part").write_bytes(CONTENT)
    with serving(Plan(whole)) as url:
        weights.download(url, sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(tmp_path):
    (tmp_path / "m.pth.part").write_bytes(b"x" * 50)
    with serving(Plan(lambda handler: send(handler, CONTENT, ranges=False))) as url:
        weights.download(url, sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_stale_part_file_is_thrown_away_once(tmp_path):
    (tmp_path / "m.pth.part").write_bytes(b"other bytes of an older file")
    with serving(Plan(whole)) as url:
        weights.download(url, sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_server_error_is_tried_again(tmp_path):
    with serving(Plan(refused(503), refused(429), whole)) as url:
        weights.download(url, sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def fails(plan, tmp_path, *, sha256=SHA256):
    with serving(plan) as url, pytest.raises(WeightsError) as caught:
        weights.download(url, sha256=sha256, to=tmp_path / "m.pth", patience=QUICK)
    message = str(caught.value)
    assert "\n" not in message
    assert not (tmp_path / "m.pth").exists()
    return message


def test_garbage_is_refused_with_both_checksums_and_nothing_is_kept(tmp_path):
    message = fails(Plan(lambda handler: send(handler, b"<html>log in</html>")), tmp_path)
    assert SHA256 in message
    assert "expected" in message
    assert not (tmp_path / "m.pth.part").exists()


def test_a_length_that_is_always_too_long_ends_in_one_line(tmp_path):
    too_long = len(CONTENT) + 10
    lying = Plan(lambda handler: send(handler, CONTENT, length=too_long, ranges=False))
    assert f"{len(CONTENT)} of {too_long} bytes) after 3 attempts" in fails(lying, tmp_path)


def test_a_length_that_is_too_long_once_does_no_harm(tmp_path):
    plan = Plan(lambda handler: send(handler, CONTENT, length=len(CONTENT) + 10), whole)
    with serving(plan) as url:
        weights.download(url, sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_length_that_is_too_short_is_caught_by_the_checksum(tmp_path):
    def short(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(CONTENT[:1000])

    assert "sha256" in fails(Plan(short), tmp_path)


def test_a_missing_file_is_reported_without_retries(tmp_path):
    plan = Plan(refused(404))
    assert "404" in fails(plan, tmp_path)
    assert len(plan.ranges) == 1


def test_no_network_is_one_line(tmp_path):
    with serving(Plan(whole)) as url:
        pass
    with pytest.raises(WeightsError, match=r"download failed .*check the network"):
        weights.download(url, sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)


def test_a_redirect_to_a_local_file_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")

    def away(handler):
        handler.send_response(302)
        handler.send_header("Location", secret.as_uri())
        handler.end_headers()

    fails(Plan(away), tmp_path)


def test_a_folder_that_cannot_be_made_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with serving(Plan(whole)) as url, pytest.raises(DiskError, match="ZSPL_WEIGHTS"):
        weights.download(url, sha256=SHA256, to=tmp_path / "file" / "m.pth")


def test_only_web_addresses_are_accepted(tmp_path):
    with pytest.raises(ValueError, match="http"):
        weights.download("file:///etc/passwd", sha256=None, to=tmp_path / "m.pth")


def test_a_present_file_is_not_requested_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    (tmp_path / "m.pth").write_bytes(CONTENT)
    url = "http://127.0.0.1:9/m.pth"
    assert weights.obtain("m.pth", url=url, sha256=SHA256).read_bytes() == CONTENT
    assert weights.download(url, sha256=SHA256, to=tmp_path / "m.pth") == tmp_path / "m.pth"


def test_a_checkpoint_is_found_below_the_weights_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    (tmp_path / "m.pth").write_bytes(CONTENT)
    assert weights.resolve("m.pth", sha256=SHA256[:8]) == tmp_path / "m.pth"
    with pytest.raises(WeightsError, match=r"other\.pth: no such checkpoint"):
        weights.resolve("other.pth", sha256=None)
    with pytest.raises(WeightsError, match="expected 00000000"):
        weights.resolve("m.pth", sha256="0" * 64)
    with pytest.raises(WeightsError, match="leaves the weights folder"):
        weights.resolve("../m.pth", sha256=None)


def test_a_changed_file_is_checked_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    (tmp_path / "m.pth").write_bytes(CONTENT)
    weights.resolve("m.pth", sha256=SHA256)
    (tmp_path / "m.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError):
        weights.resolve("m.pth", sha256=SHA256)


@pytest.mark.parametrize("sha256", ["not hex at all", "abc", ""])
def test_a_checksum_that_is_no_hex_string_is_one_line(tmp_path, monkeypatch, sha256):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    (tmp_path / "m.pth").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"m\.pth: its sha256 must be 6 to 64 hexadecimal"):
        weights.resolve("m.pth", sha256=sha256)
