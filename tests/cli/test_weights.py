"""zspl weights, as a user types it, against a server on this machine."""

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zspl import cli
from zspl.io import catalog
from zspl.io.catalog import Entry

CONTENT = b"tensors" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path):
    """Serve a folder that holds m.pth; yield its address and the folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "m.pth").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return an empty weights folder."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("ZSPL_WEIGHTS", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture
def small(site, here, monkeypatch):
    """Put two small checkpoints into the catalog's place, one of them not for everybody."""
    url = f"{site[0]}/m.pth"
    plain = Entry(
        name="plain", purpose="segments", licence="MIT", size=len(CONTENT), sha256=SHA256,
        url=url, files=("m.pth",),
    )  # fmt: skip
    restricted = Entry(
        name="restricted", purpose="embeddings", licence="CC-BY-NC-4.0", size=len(CONTENT),
        sha256=SHA256, url=url, files=("folder/n.pth",),
    )  # fmt: skip
    monkeypatch.setattr(catalog, "entries", lambda: (plain, restricted))
    return here


def test_get_downloads_verifies_and_prints_the_path_alone(small, capsys):
    assert cli.main(["weights", "get", "plain", "restricted"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(small / "m.pth"), str(small / "folder" / "n.pth")]
    assert (small / "folder" / "n.pth").read_bytes() == CONTENT
    first, second = printed.err.splitlines()
    assert first == "plain: segments, 7 kB, licence MIT"
    assert second.endswith(
        "licence CC-BY-NC-4.0, NOT FOR COMMERCIAL USE (CREATIVE COMMONS BY-NC 4.0)"
    )


def test_get_tells_every_problem_and_gets_the_rest(small, capsys):
    assert cli.main(["weights", "get", "plian", "plain"]) == 2
    printed = capsys.readouterr()
    assert "Did you mean 'plain'?" in printed.err
    assert printed.out.split() == [str(small / "m.pth")]


def test_get_refuses_a_file_that_changed_on_the_server(small, site, capsys):
    (site[1] / "m.pth").write_bytes(CONTENT[::-1])
    assert cli.main(["weights", "get", "plain"]) == 2
    assert f"expected {SHA256}; nothing was kept" in capsys.readouterr().err
    assert not (small / "m.pth").exists()


def test_get_takes_a_file_of_ones_own_and_remembers_its_checksum(here, site, capsys):
    command = ["weights", "get", "mine.pth", "--url", f"{site[0]}/m.pth"]
    assert cli.main([*command, "--sha256", SHA256[:12]]) == 0
    assert capsys.readouterr() == (f"{here / 'mine.pth'}\n", "")
    assert cli.main(["weights", "verify", "mine.pth"]) == 0
    (here / "mine.pth").write_bytes(CONTENT[:-1])
    assert cli.main(["weights", "verify", "mine.pth"]) == 1


def test_get_says_that_nobody_vouches_for_a_file_without_a_checksum(here, site, capsys):
    assert cli.main(["weights", "get", "mine.pth", "--url", f"{site[0]}/m.pth"]) == 0
    assert f"nobody vouches for this file; its sha256 is {SHA256}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "plain", "--sha256", "00"], "--sha256 belongs to --url"),
        (["get", "a.pth", "b.pth", "--url", "http://127.0.0.1:9/a"], "--url is of one file, got 2"),
        (["get", "a.pth", "--url", "ftp://127.0.0.1/a"], "must begin with http:// or https://"),
        (["get", "../a.pth", "--url", "http://127.0.0.1:9/a"], "leaves the weights folder"),
        (["get", "../a.pth"], "no weights are called"),
        (["verify", "--sha256", "00"], "--sha256 is of one file"),
        (["path", "plain"], "m.pth: not here; run `zspl weights get plain`"),
        (["path", "gone.pth"], "gone.pth: not here; put it there, or get it with --url"),
        (["path", "sam_vit_b_01ec64.pth"], "not here; run `zspl weights get sam_vit_b`"),
        (["get", "mine", "--url", "http://127.0.0.1:9/a"], "mine: its name must end in .bin, .pt"),
        (["get", "a.pth", "--url", "http://127.0.0.1:9/a", "--sha256", "xyz"], "6 to 64 hex"),
        (["path", "nonsense"], "no weights are called 'nonsense'"),
        (["get", "ViT-B-16-quickgelu:openai"], "HF_HUB_OFFLINE is set"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(request, here, capsys, words, message):
    if "plain" in words:
        request.getfixturevalue("small")
    assert cli.main(["weights", *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_list_shows_every_state_and_ones_own_files(small, capsys):
    (small / "m.pth.part").write_bytes(CONTENT[:3500])
    (small / "folder").mkdir()
    (small / "folder" / "n.pth").write_bytes(CONTENT)
    (small / "mine.safetensors").write_bytes(b"12345")
    assert cli.main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["plain"] == ["plain", "segments", "7", "kB", "MIT", "incomplete", "(50", "%)"]
    assert rows["restricted"][-2:] == ["CC-BY-NC-4.0", "present"]
    assert rows["mine.safetensors"] == ["mine.safetensors", "(yours)", "5", "B", "present"]
    assert "CC-BY-NC-4.0: not for commercial use" in out
    (small / "folder" / "n.pth").write_bytes(CONTENT[:9])
    cli.main(["weights", "list"])
    assert "damaged" in capsys.readouterr().out


def test_list_of_the_real_catalog_fits_a_terminal(here, capsys):
    assert cli.main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines[1:]) <= 100
    assert any(line.startswith("sam_vit_b ") and line.endswith(" absent") for line in lines)


def test_list_json_holds_all_that_is_known(here, capsys):
    assert cli.main(["weights", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {entry.name for entry in catalog.entries()}
    sam = rows["sam_vit_b"]
    assert (sam["size"], sam["state"], sam["verified_by"]) == (375042383, "absent", "sha256")
    assert sam["path"] == str(here / "sam_vit_b_01ec64.pth")
    assert rows["ViT-B-16-quickgelu:metaclip_400m"]["verified_by"] == "the hub's own hash"


def test_verify_names_what_is_wrong_and_what_is_unfinished(small, capsys):
    assert cli.main(["weights", "verify"]) == 0
    assert "holds no weights" in capsys.readouterr().out
    assert cli.main(["weights", "get", "plain"]) == 0
    (small / "unknown.pth").write_bytes(b"abc")
    (small / "folder").mkdir()
    (small / "folder" / "n.pth.part").write_bytes(b"1")
    assert cli.main(["weights", "verify"]) == 0
    out = capsys.readouterr().out
    assert f"ok       {SHA256}  {small / 'm.pth'}" in out
    assert "unknown  ba7816bf8f01cfea" in out
    assert "n.pth.part  1 B; run `zspl weights get restricted`, or delete it" in out
    (small / "m.pth").write_bytes(CONTENT[::-1])
    for words in ([], ["--all"], ["plain"], ["m.pth"]):
        assert cli.main(["weights", "verify", *words]) == 1
        assert f"WRONG    {small / 'm.pth'}: sha256 is" in capsys.readouterr().out


def test_verify_of_a_name_that_is_not_here_is_exit_code_1(small, capsys):
    assert cli.main(["weights", "verify", "plain"]) == 1
    assert f"MISSING  {small / 'm.pth'}  run `zspl weights get plain`" in capsys.readouterr().out


def test_verify_compares_a_file_with_a_checksum_of_ones_own(here, capsys):
    (here / "x.bin").write_bytes(b"abc")
    assert cli.main(["weights", "verify", "x.bin", "--sha256", "ba7816bf"]) == 0
    assert cli.main(["weights", "verify", "x.bin", "--sha256", "0" * 64]) == 1
    assert "sha256 is ba7816bf" in capsys.readouterr().out


def test_path_is_for_scripts(small, capsys):
    assert cli.main(["weights", "get", "plain"]) == 0
    capsys.readouterr()
    assert cli.main(["weights", "path", "plain"]) == 0
    assert cli.main(["weights", "path", "m.pth"]) == 0
    assert capsys.readouterr() == (f"{small / 'm.pth'}\n" * 2, "")


@pytest.mark.parametrize("action", ["", "list", "get", "verify", "path"])
def test_help_is_worth_reading(action, capsys):
    with pytest.raises(SystemExit):
        cli.main(["weights", *action.split(), "--help"])
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 100
    assert Path("~/.cache/zspl/weights").as_posix() in out or action
