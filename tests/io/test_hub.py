"""Files of the hub: verified by its own hash, resumed, found again, and quick without network."""

import hashlib
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from zspl.errors import WeightsError
from zspl.io import hub
from zspl.io._transfer import Patience

pytest.importorskip("huggingface_hub")

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "timm/tiny_clip"
SAFE, OLD = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
QUICK = Patience(attempts=3, connects=1, pause=0.0, timeout=5.0, connect_timeout=2.0)


@dataclass
class Hub:
    """An imitation of the hub: pages of facts here, the bytes on another host."""

    files: dict = field(default_factory=lambda: {SAFE: CONTENT})
    sent: dict = field(default_factory=dict)
    cut: int | None = None
    log: list = field(default_factory=list)

    def facts(self, handler):
        """Answer /REPOSITORY/resolve/REVISION/FILE as the hub does."""
        owner, name, _, revision, file = handler.path.strip("/").split("/")
        if f"{owner}/{name}" != REPOSITORY:
            return self.no(handler, 401, "RepoNotFound")
        if file not in self.files or revision not in {"main", COMMIT}:
            return self.no(handler, 404, "EntryNotFound")
        handler.send_response(302)
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("X-Linked-Etag", f'"{hashlib.sha256(self.files[file]).hexdigest()}"')
        handler.send_header("X-Linked-Size", str(len(self.files[file])))
        port = handler.server.server_port
        handler.send_header("Location", f"http://localhost:{port}/bytes/{file}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return None

    def no(self, handler, code, why):
        handler.send_response(code)
        handler.send_header("X-Error-Code", why)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def content(self, handler):
        """Answer the other host's address, with ranges; break off once if told to."""
        file = handler.path.rpartition("/")[2]
        whole = self.sent.get(file, self.files[file])
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        handler.send_header("Content-Length", str(len(whole) - start))
        handler.end_headers()
        upto, self.cut = self.cut, None
        handler.wfile.write(whole[start:upto])

    def answer(self, handler):
        said = {name: handler.headers.get(name) for name in ("Authorization", "Range")}
        self.log.append((handler.command, handler.path, said))
        if handler.path.startswith("/bytes/"):
            self.content(handler)
        else:
            self.facts(handler)

    def requests(self):
        return [(method, path.rpartition("/")[2]) for method, path, _ in self.log]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Keep the user's own cache, token and proxies out of it."""
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))


@contextmanager
def serving(imitation, monkeypatch):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            imitation.answer(self)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    try:
        yield imitation
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wanted(**facts):
    return hub.HubFile(**{"repository": REPOSITORY, "names": (SAFE, OLD), **facts})


def test_a_file_of_the_hub_comes_from_the_mirror_and_is_verified_by_the_hubs_hash(
    tmp_path, monkeypatch
):
    with serving(Hub(), monkeypatch) as imitation:
        path = hub.obtain(wanted(), patience=QUICK)
        assert path == tmp_path / "weights" / REPOSITORY / SAFE
        assert path.read_bytes() == CONTENT
        assert path.with_name(f"{SAFE}.sha256").read_text().split() == [SHA256, SAFE]
        asked = len(imitation.log)
        assert hub.obtain(wanted(), patience=QUICK) == path
        assert len(imitation.log) == asked
    assert f"/{REPOSITORY}/resolve/{COMMIT}/{SAFE}" in [entry[1] for entry in imitation.log]


def test_the_older_format_is_taken_where_there_is_no_safetensors(monkeypatch):
    with serving(Hub(files={OLD: CONTENT}), monkeypatch) as imitation:
        assert hub.obtain(wanted(), patience=QUICK).name == OLD
    assert imitation.requests() == [("HEAD", SAFE), ("HEAD", OLD), ("GET", OLD), ("GET", OLD)]


def test_other_bytes_than_the_hub_announced_are_refused(tmp_path, monkeypatch):
    garbage = b"x" + CONTENT[1:]
    with (
        serving(Hub(sent={SAFE: garbage}), monkeypatch),
        pytest.raises(WeightsError, match=f"expected {SHA256}; nothing was kept"),
    ):
        hub.obtain(wanted(), patience=QUICK)
    assert not list((tmp_path / "weights").rglob("*.safetensors*[!k]"))


def test_a_page_instead_of_the_file_is_refused(monkeypatch):
    with (
        serving(Hub(sent={SAFE: b"<html>sign in</html>"}), monkeypatch),
        pytest.raises(WeightsError, match=r"ended after 20 of 256000 bytes"),
    ):
        hub.obtain(wanted(), patience=QUICK)


def test_a_dropped_connection_is_continued(monkeypatch):
    with serving(Hub(cut=100_000), monkeypatch) as imitation:
        assert hub.obtain(wanted(), patience=QUICK).read_bytes() == CONTENT
    assert imitation.log[-1][2]["Range"] == "bytes=100000-"


def test_a_known_checksum_needs_no_question_and_beats_the_hubs(monkeypatch):
    other = "0" * 64
    with serving(Hub(), monkeypatch) as imitation:
        with pytest.raises(WeightsError, match=f"expected {other}"):
            hub.obtain(wanted(names=(SAFE,), sha256=other), patience=QUICK)
        assert "HEAD" not in [method for method, _ in imitation.requests()]
        right = wanted(names=(SAFE,), sha256=SHA256, size=len(CONTENT), revision=COMMIT)
        path = hub.obtain(right, patience=QUICK)
    assert not path.with_name(f"{SAFE}.sha256").exists()
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=f"expected {SHA256}"):
        hub.obtain(right, patience=QUICK)


def test_a_file_that_was_damaged_later_is_found_out(monkeypatch):
    with serving(Hub(), monkeypatch):
        path = hub.obtain(wanted(), patience=QUICK)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=f"expected {SHA256}"):
        hub.obtain(wanted(), patience=QUICK)


def cached(tmp_path, content, name=SHA256):
    """Lay a file out as huggingface_hub does in its cache."""
    root = tmp_path / "cache" / "models--timm--tiny_clip"
    for folder in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (root / folder).mkdir(parents=True)
    (root / "blobs" / name).write_bytes(content)
    (root / "refs" / "main").write_text(COMMIT)
    (root / "snapshots" / COMMIT / SAFE).symlink_to(root / "blobs" / name)
    return root / "snapshots" / COMMIT / SAFE


@pytest.mark.parametrize("facts", [{}, {"names": (SAFE,), "sha256": SHA256, "revision": COMMIT}])
def test_what_the_hubs_own_cache_holds_is_used_without_network(tmp_path, monkeypatch, facts):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = cached(tmp_path, CONTENT)
    assert hub.obtain(wanted(**facts)) == path


def test_a_damaged_file_in_the_hubs_cache_is_not_used(tmp_path, monkeypatch):
    cached(tmp_path, b"damaged")
    with serving(Hub(), monkeypatch):
        path = hub.obtain(wanted(), patience=QUICK)
    assert path.is_relative_to(tmp_path / "weights")
    assert path.read_bytes() == CONTENT


def test_the_token_goes_to_the_hub_and_not_to_whom_it_sends_us(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(Hub(), monkeypatch) as imitation:
        hub.obtain(wanted(), patience=QUICK)
    for _, path, said in imitation.log:
        expected = None if path.startswith("/bytes/") else "Bearer hf_secret"
        assert said["Authorization"] == expected


def test_an_unknown_repository_and_an_unknown_file_are_one_line(monkeypatch):
    with serving(Hub(files={}), monkeypatch):
        with pytest.raises(WeightsError, match=rf"^{REPOSITORY}: the hub has none of [^\n]*$"):
            hub.obtain(wanted(), patience=QUICK)
        with pytest.raises(WeightsError, match=r"^[^\n]*no such repository, or it needs a token"):
            hub.obtain(wanted(repository="timm/other"), patience=QUICK)


def test_offline_it_says_at_once_where_the_file_belongs(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tmp_path / "weights" / REPOSITORY / SAFE
    with pytest.raises(WeightsError, match=rf"HF_HUB_OFFLINE is set; .*copy the file to {place}$"):
        hub.obtain(wanted())


@pytest.mark.parametrize("facts", [{}, {"names": (SAFE,), "sha256": SHA256}])
def test_without_network_it_fails_in_a_moment_with_one_quiet_line(monkeypatch, capfd, facts):
    with serving(Hub(), monkeypatch):
        pass
    started = time.monotonic()
    with pytest.raises(WeightsError, match=r"^[^\n]*check the network[^\n]*$"):
        hub.obtain(wanted(**facts), patience=QUICK)
    assert time.monotonic() - started < 3
    assert capfd.readouterr() == ("", "")
