"""Checkpoints: found below one folder, verified, downloaded when they are not there."""

import hashlib

import pytest

from zspl.errors import WeightsError
from zspl.io import weights
from zspl.io._transfer import Patience, Source

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=3, pause=0.0, timeout=5.0)


def test_a_download_is_verified_and_moved_into_place(web, tmp_path):
    with web.serving(web.Plan(web.whole)) as url:
        path = weights.download(Source(url=url), sha256=SHA256, to=tmp_path / "deep" / "model.pth")
    assert path.read_bytes() == CONTENT
    assert not path.with_name("model.pth.part").exists()


def test_only_web_addresses_are_accepted(tmp_path):
    with pytest.raises(ValueError, match="http"):
        weights.download(Source(url="file:///etc/passwd"), sha256=None, to=tmp_path / "m.pth")


def test_a_present_file_is_not_requested_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    (tmp_path / "m.pth").write_bytes(CONTENT)
    url = "http://127.0.0.1:9/m.pth"
    assert weights.obtain("m.pth", Source(url=url), sha256=SHA256).read_bytes() == CONTENT
    assert (
        weights.download(Source(url=url), sha256=SHA256, to=tmp_path / "m.pth")
        == tmp_path / "m.pth"
    )


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


def test_a_file_that_is_there_is_used_without_writing_anything(web, tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    (tmp_path / "m.pth").write_bytes(CONTENT)
    weights.obtain("m.pth", web.known("http://127.0.0.1:9/m"), sha256=SHA256)
    assert [path.name for path in tmp_path.iterdir()] == ["m.pth"]


def test_a_recorded_checksum_finds_later_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    path = tmp_path / "m.pth"
    path.write_bytes(CONTENT)
    assert weights.recorded(path) is None
    assert weights.record(path) == SHA256
    assert (tmp_path / "m.pth.sha256").read_text() == f"{SHA256}  m.pth\n"
    assert weights.resolve("m.pth") == path
    path.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(WeightsError, match=f"expected {SHA256}"):
        weights.resolve("m.pth")


def test_the_folder_lists_checkpoints_and_beginnings_of_them_only(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    assert list(weights.held()) == []
    (tmp_path / "a").mkdir()
    for name in ("b.pth", "a/c.safetensors", "d.pt.part", "d.pt.lock", "b.pth.sha256", "NOTE.md"):
        (tmp_path / name).write_text("x")
    names = [str(path.relative_to(tmp_path)) for path in weights.held()]
    assert names == ["a/c.safetensors", "b.pth", "d.pt.part"]
