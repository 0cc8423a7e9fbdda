"""The catalog: facts that agree with the libraries, and states of files."""

import re

import pytest

from zspl.errors import WeightsError
from zspl.io import catalog
from zspl.io.catalog import Entry

ENTRIES = {entry.name: entry for entry in catalog.entries()}
EMBEDDINGS = [name for name in ENTRIES if ":" in name]


def test_the_official_segment_anything_files_are_pinned_by_size_and_checksum():
    facts = {
        "sam_vit_b": (375042383, "ec2df62732614e57"),
        "sam_vit_l": (1249524607, "3adcc4315b642a4d"),
        "sam_vit_h": (2564550879, "a7bf3b02f3ebf126"),
        "mobile_sam": (40728226, "6dbb90523a35330f"),
    }
    for name, (size, begin) in facts.items():
        assert ENTRIES[name].size == size
        assert ENTRIES[name].size_is_exact
        assert ENTRIES[name].sha256.startswith(begin)
        assert ENTRIES[name].licence == "Apache-2.0"


def test_every_row_says_where_from_what_for_and_how_it_is_verified():
    assert len(ENTRIES) == len(catalog.entries())
    for entry in catalog.entries():
        assert (entry.url is None) != (entry.repository is None), entry.name
        assert entry.url is None or entry.url.startswith("https://"), entry.name
        assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256), entry.name
        assert entry.sha256 is not None or entry.repository is not None, entry.name
        assert entry.sha256 is None or entry.size_is_exact, entry.name
        assert entry.purpose, entry.name
        assert entry.licence, entry.name
        assert entry.size, entry.name
        assert entry.verified_by in {"sha256", "the hub's own hash"}


def test_no_two_rows_share_a_file():
    assert len({entry.path for entry in catalog.entries()}) == len(ENTRIES)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_row_of_open_clip_is_the_repository_that_open_clip_would_ask(name):
    open_clip = pytest.importorskip("open_clip")
    model, tag = name.split(":")
    known = open_clip.get_pretrained_cfg(model, tag)
    assert known["hf_hub"] == f"{ENTRIES[name].repository}/"
    trained, built = known.get("quick_gelu", False), open_clip.get_model_config(model)
    assert trained == built.get("quick_gelu", False)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_the_size_of_an_embedding_is_that_of_its_parameters(name):
    open_clip = pytest.importorskip("open_clip")
    import torch

    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(name.split(":")[0]))
    expected = 4 * sum(value.numel() for value in model.parameters())
    assert ENTRIES[name].size == pytest.approx(expected, rel=2e-3)


def test_the_backbones_are_what_their_libraries_would_ask():
    timm = pytest.importorskip("timm")
    mit = pytest.importorskip("segmentation_models_pytorch.encoders.mix_transformer")
    resnet = timm.get_pretrained_cfg("resnet101s.gluon_in1k")
    assert resnet.hf_hub_id == ENTRIES["resnet101s.gluon_in1k"].repository
    row = ENTRIES["mit_b4.imagenet"]
    known = mit.mix_transformer_encoders["mit_b4"]["pretrained_settings"]["imagenet"]
    assert known == {"repo_id": row.repository, "revision": row.revision}


def test_weights_for_research_only_say_so():
    restricted = {name for name, entry in ENTRIES.items() if entry.restriction is not None}
    assert restricted == {name for name in ENTRIES if "metaclip" in name} | {"mit_b4.imagenet"}
    assert "not for commercial use" in ENTRIES["mit_b4.imagenet"].restriction


def test_a_state_is_told_without_hashing(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    entry = Entry(name="x", purpose="", licence="", size=4, url="https://x", files=("x.pth",))
    assert entry.state() == "absent"
    (tmp_path / "x.pth.part").write_bytes(b"12")
    assert entry.state() == "incomplete"
    (tmp_path / "x.pth").write_bytes(b"123")
    assert entry.state() == "damaged"
    (tmp_path / "x.pth").write_bytes(b"1234")
    assert entry.state() == "present"


def test_an_unknown_name_gets_a_suggestion_and_a_way_on():
    with pytest.raises(WeightsError, match=r"'mobilesam'\. Did you mean 'mobile_sam'\? `zspl wei"):
        catalog.find("mobilesam")
    with pytest.raises(WeightsError, match=r"'\?'\. `zspl weights list` shows"):
        catalog.find("?")


def test_tags_of_open_clip_that_are_in_no_row_are_known_through_open_clip():
    pytest.importorskip("open_clip")
    from zspl.features import _open_clip_files

    huge = _open_clip_files.entry("ViT-H-14", "laion2b_s32b_b79k")
    assert huge.repository == "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    assert huge.files == ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    assert huge.sha256 is None
    old = _open_clip_files.entry("RN50", "yfcc15m")
    assert old.url is None or old.sha256 == "455df137"
    assert _open_clip_files.named("ViT-H-14:nonsense") is None
    assert _open_clip_files.named("sam_vit_x") is None
    same = _open_clip_files.entry("ViT-B-16", "openai")
    assert same.sha256 == ENTRIES["ViT-B-16-quickgelu:openai"].sha256


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://x/clip/models/" + "5806e77c" * 8 + "/ViT-B-16.pt", "5806e77c" * 8),
        ("https://x/v0.2-weights/vit_b_16-laion400m_e32-55e67d44.pt", "55e67d44"),
        ("https://x/MMPT/metaclip/b16_400m.pt", None),
    ],
)
def test_the_hash_in_an_address_is_used(url, found):
    from zspl.features import _open_clip_files

    assert _open_clip_files._hash_in(url) == found
