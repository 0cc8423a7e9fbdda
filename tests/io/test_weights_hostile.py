"""Downloads from servers that break off, lie, refuse, and send people elsewhere."""

import hashlib

import pytest

from zspl.errors import WeightsError
from zspl.io import weights
from zspl.io._transfer import Patience, Source

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=3, pause=0.0, timeout=5.0)


def test_a_dropped_connection_is_continued_where_it_stopped(web, tmp_path):
    plan = web.Plan(web.dropped, web.dropped_later, web.whole)
    with web.serving(plan) as url:
        path = weights.download(
            Source(url=url), sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK
        )
    assert path.read_bytes() == CONTENT
    assert plan.ranges == [None, "bytes=100000-", "bytes=300000-"]


def test_a_server_without_ranges_sends_everything_again(web, tmp_path):
    (tmp_path / "m.pth.part").write_bytes(b"x" * 50)
    with web.serving(web.Plan(lambda handler: web.send(handler, CONTENT, ranges=False))) as url:
        weights.download(Source(url=url), sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_stale_part_file_is_thrown_away_once(web, tmp_path):
    (tmp_path / "m.pth.part").write_bytes(b"other bytes of an older file")
    with web.serving(web.Plan(web.whole)) as url:
        weights.download(Source(url=url), sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_server_error_is_tried_again(web, tmp_path):
    with web.serving(web.Plan(web.refused(503), web.refused(429), web.whole)) as url:
        weights.download(Source(url=url), sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_garbage_is_refused_with_both_checksums_and_nothing_is_kept(web, tmp_path):
    message = web.fails(
        web.Plan(lambda handler: web.send(handler, b"<html>log in</html>")), tmp_path
    )
    assert SHA256 in message
    assert "expected" in message
    assert not (tmp_path / "m.pth.part").exists()


def test_a_length_that_is_always_too_long_ends_in_one_line(web, tmp_path):
    too_long = len(CONTENT) + 10
    lying = web.Plan(lambda handler: web.send(handler, CONTENT, length=too_long, ranges=False))
    assert f"{len(CONTENT)} of {too_long} bytes) after 3 attempts" in web.fails(lying, tmp_path)


def test_a_length_that_is_too_long_once_does_no_harm(web, tmp_path):
    plan = web.Plan(lambda handler: web.send(handler, CONTENT, length=len(CONTENT) + 10), web.whole)
    with web.serving(plan) as url:
        weights.download(Source(url=url), sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_length_that_is_too_short_is_caught_by_the_checksum(web, tmp_path):
    def short(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(CONTENT[:1000])

    assert "sha256" in web.fails(web.Plan(short), tmp_path)


def test_a_missing_file_is_reported_without_retries(web, tmp_path):
    plan = web.Plan(web.refused(404))
    assert "404" in web.fails(plan, tmp_path)
    assert len(plan.ranges) == 1


def test_a_redirect_to_a_local_file_is_not_followed(web, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")

    def away(handler):
        handler.send_response(302)
        handler.send_header("Location", secret.as_uri())
        handler.end_headers()

    web.fails(web.Plan(away), tmp_path)


def test_a_server_that_gives_no_length_is_fine(web, tmp_path):
    assert web.get(web.Plan(web.without_length()), tmp_path, size=None).read_bytes() == CONTENT


def test_a_broken_line_without_a_length_is_noticed_when_the_size_is_known(web, tmp_path):
    plan = web.Plan(web.without_length(100_000), web.whole)
    assert web.get(plan, tmp_path).read_bytes() == CONTENT
    assert plan.ranges == [None, "bytes=100000-"]


def test_a_length_that_is_too_short_costs_another_request_when_the_size_is_known(web, tmp_path):
    def short(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(CONTENT)

    plan = web.Plan(short, web.whole)
    assert web.get(plan, tmp_path).read_bytes() == CONTENT
    assert plan.ranges == [None, "bytes=1000-"]


def test_a_length_that_is_too_long_is_not_believed_when_the_size_is_known(web, tmp_path):
    plan = web.Plan(lambda handler: web.send(handler, CONTENT, length=len(CONTENT) + 10))
    assert web.get(plan, tmp_path).read_bytes() == CONTENT
    assert len(plan.ranges) <= 2


def test_a_server_that_never_stops_sending_is_cut_off(web, tmp_path):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(CONTENT)

    with pytest.raises(WeightsError, match="sends more than the 512000 bytes"):
        web.get(web.Plan(endless), tmp_path)
    assert not (tmp_path / "m.pth.part").exists()


def test_a_server_that_starts_over_each_time_and_breaks_off_is_given_up(web, tmp_path):
    lengths = iter([100_000, 90_000, 80_000, 100_000, 95_000, 99_000] * 9)
    plan = web.Plan(lambda handler: web.send(handler, CONTENT, ranges=False, upto=next(lengths)))
    assert "after 3 attempts" in web.fails(plan, tmp_path)
    assert len(plan.ranges) == 3


def test_a_server_that_is_busy_for_good_is_given_up(web, tmp_path):
    plan = web.Plan(web.refused(503))
    assert "503 Service Unavailable) after 3 attempts" in web.fails(plan, tmp_path)


@pytest.mark.parametrize("code", [401, 403])
def test_a_server_that_lets_nobody_in_is_asked_once(web, tmp_path, code):
    plan = web.Plan(web.refused(code))
    assert "does not let you in" in web.fails(plan, tmp_path)
    assert len(plan.ranges) == 1


def test_a_server_that_has_less_than_is_kept_starts_over(web, tmp_path):
    (tmp_path / "m.pth.part").write_bytes(b"z" * (len(CONTENT) + 5))
    plan = web.Plan(web.whole)
    assert web.get(plan, tmp_path, size=None).read_bytes() == CONTENT
    assert plan.ranges == [f"bytes={len(CONTENT) + 5}-", None]


def test_a_kept_part_that_is_longer_than_the_file_is_dropped_unasked(web, tmp_path):
    (tmp_path / "m.pth.part").write_bytes(b"z" * (len(CONTENT) + 5))
    plan = web.Plan(web.whole)
    assert web.get(plan, tmp_path).read_bytes() == CONTENT
    assert plan.ranges == [None]


def test_a_redirect_keeps_the_range_and_not_the_password(web, tmp_path):
    seen = []

    def note(handler):
        seen.append((handler.headers.get("Authorization"), handler.headers.get("Range")))

    def away(handler):
        note(handler)
        port = handler.server.server_port
        handler.send_response(302)
        handler.send_header("Location", f"http://127.0.0.1:{port}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def there(handler):
        note(handler)
        web.send(handler, CONTENT)

    (tmp_path / "m.pth.part").write_bytes(CONTENT[:10])
    with web.serving(web.Plan(away, there)) as url:
        source = Source(url=url, authorization="Bearer secret")
        weights.download(source, sha256=SHA256, to=tmp_path / "m.pth", patience=QUICK)
    assert seen == [("Bearer secret", "bytes=10-"), (None, "bytes=10-")]
    assert (tmp_path / "m.pth").read_bytes() == CONTENT


def test_a_redirect_in_a_circle_ends_in_one_line(web, tmp_path):
    def circle(handler):
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    assert "302" in web.fails(web.Plan(circle), tmp_path)


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_an_empty_file_is_no_checkpoint(web, tmp_path, sha256):
    plan = web.Plan(lambda handler: web.send(handler, b""))

    assert "sent an empty file" in web.fails(plan, tmp_path, sha256=sha256)
    assert not (tmp_path / "m.pth.part").exists()


def test_a_checksum_that_is_none_is_told_before_anything_is_requested(web, tmp_path):
    plan = web.Plan(web.whole)

    assert "6 to 64 hexadecimal digits" in web.fails(plan, tmp_path, sha256="xyz")
    assert plan.ranges == []
