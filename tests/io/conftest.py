"""A web server for downloads that does what a test tells it to."""

import hashlib
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from zspl.errors import WeightsError
from zspl.io import weights
from zspl.io._transfer import Patience, Source

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)
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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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


def fails(plan, tmp_path, *, sha256=SHA256):
    """Return the message, after making sure that nothing lies where the file would."""
    with serving(plan) as url, pytest.raises(WeightsError) as caught:
        weights.download(Source(url=url), sha256=sha256, to=tmp_path / "m.pth", patience=QUICK)
    message = str(caught.value)
    assert "\n" not in message
    assert not (tmp_path / "m.pth").exists()
    return message


def known(url, size=SIZE):
    """Return the source of a file of known length."""
    return Source(url=url, size=size)


def get(plan, tmp_path, *, size=SIZE, sha256=SHA256):
    """Download from a server that follows `plan`."""
    with serving(plan) as url:
        return weights.download(
            known(url, size), sha256=sha256, to=tmp_path / "m.pth", patience=QUICK
        )


def without_length(upto=None):
    """Answer as a server does that only closes the connection at the end."""

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT[:upto])

    return answer


CHILD = """
import sys
from pathlib import Path
from zspl.io import weights
from zspl.io._transfer import Patience, Source
url, sha256, to = sys.argv[1:]
patience = Patience(attempts=3, pause=0.0)
weights.download(Source(url=url), sha256=sha256, to=Path(to), patience=patience)
"""


SMALL_BLOCKS = "import zspl.io._transfer as t; t._CHUNK = 1 << 14\n"
SMALL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))\n"


def child(url, to, before=""):
    return subprocess.Popen(
        [sys.executable, "-c", before + CHILD, url, SHA256, str(to)],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def web():
    """Return the server and its answers."""
    return SimpleNamespace(
        Plan=Plan,
        serving=serving,
        send=send,
        whole=whole,
        dropped=dropped,
        dropped_later=dropped_later,
        refused=refused,
        fails=fails,
        known=known,
        get=get,
        without_length=without_length,
        child=child,
        SMALL_BLOCKS=SMALL_BLOCKS,
        SMALL_DISK=SMALL_DISK,
    )
