import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zspl.datasets import _coco_instances, coco
from zspl.datasets._coco_instances import Annotations, Instance, Rules, paint
from zspl.datasets.coco import CLASS_IDS, NAMES, OFFICIAL, PROMPTS, Settings, build
from zspl.errors import DataError, SettingsError
from zspl.io.images import read_label, write_label
from zspl.io.splits import check, read_ids

SHARED = Path(os.environ.get("ZSPL_SHARED", Path(__file__).parents[2].parent / "shared"))
COCO128 = SHARED / "data" / "coco128"
LISTS = Path(coco.__file__).parent / "coco2017"

needs_coco128 = pytest.mark.skipif(
    not COCO128.is_dir(), reason="needs data/coco128 below ZSPL_SHARED"
)

PERSON, DOG, TABLE = 1, 18, 67
"""COCO's category ids; the class ids are 1, 17 and 61."""

HEIGHT, WIDTH = 6, 8


def box(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(number, image, category, shape, **more):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": shape} | more


def runs(mask):
    """Uncompressed run lengths of a mask, column by column, beginning with zeros."""
    flat = np.asarray(mask, int).T.reshape(-1).tolist()
    counts, value = [0], 0
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def write_json(source, part, images, annotations):
    path = source / "annotations" / f"instances_{part}.json"
    path.parent.mkdir(exist_ok=True)
    listed = [
        {"id": int(i), "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in images
    ]
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": []}))
    return path


ANNOTATIONS = [
    annotation(1, 1, PERSON, [box(0, 0, 3, 3)], iscrowd=0),
    annotation(2, 1, TABLE, [box(0, 0, 8, 6)], iscrowd=0),
    annotation(3, 2, DOG, [box(0, 0, 2, 2), box(4, 4, 6, 6)]),
]


@pytest.fixture
def source(tmp_path):
    """Three train photos, the third without an instance, and one of val."""
    source = tmp_path / "coco"
    for part, ids in (("train2017", ["1", "2", "3"]), ("val2017", ["7"])):
        (source / part).mkdir(parents=True)
        for image_id in ids:
            Image.new("RGB", (WIDTH, HEIGHT)).save(source / part / f"{image_id}.jpg")
    write_json(source, "train2017", ["1", "2", "3"], ANNOTATIONS)
    write_json(source, "val2017", ["7"], [annotation(9, 7, DOG, [box(0, 0, 8, 6)])])
    return source


def prepared(source, folder, **settings):
    return {r.image_id: r for r in build(Settings(**settings)).prepare(source, folder)}


def refused(source, tmp_path, **settings):
    with pytest.raises(DataError) as caught:
        prepared(source, tmp_path / "data", **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("number", "checksum"),
    [
        (232, "bd0ff85bf2d35b46"),
        (463, "4cdf41b9d3b3afc3"),
        (925, "06067c0fb879b8e6"),
        (1849, "622b84ccbb5dcba3"),
        (3697, "781b5990914f7422"),
    ],
)
def test_the_shipped_ids_are_those_of_the_official_two_column_files(number, checksum):
    ids = read_ids(LISTS / f"{OFFICIAL[f'labeled_{number}']}.txt")
    content = "\n".join(f"train2017/{i}.jpg masks/{i}.png" for i in ids)
    assert len(set(ids)) == len(ids) == number
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == checksum


def test_the_80_classes_close_the_gaps_of_cocos_category_ids():
    assert (CLASS_IDS[1], CLASS_IDS[11], CLASS_IDS[13], CLASS_IDS[90]) == (1, 11, 12, 80)
    assert list(CLASS_IDS.values()) == list(range(1, 81))
    table = build(Settings()).table
    assert table.num_classes == 81
    assert (table.names[1], table.names[61], table.names[80]) == (
        "person", "dining table", "toothbrush",
    )  # fmt: skip
    assert table.source_ids[:81] == tuple(range(81))
    assert table.source_ids[81] == -1


@needs_coco128
def test_names_and_order_are_those_of_the_published_annotations():
    values = json.loads((COCO128 / "annotations" / "instances_val2017.json").read_text())
    assert {CLASS_IDS[c["id"]]: c["name"] for c in values["categories"]} == dict(
        enumerate(NAMES, start=1)
    )


def test_prompts_are_the_names_but_for_those_that_mean_something_else():
    changed = {name: prompt for name, prompt in zip(NAMES, PROMPTS, strict=True) if name != prompt}
    assert changed["mouse"] == "computer mouse"
    assert changed["hair drier"] == "hair dryer"
    assert len(changed) == 8


def random_instances(seed):
    random = np.random.default_rng(seed)
    return [
        Instance(
            class_id=int(random.integers(1, 4)),
            crowd=bool(random.random() < 0.3),
            mask=random.random((5, 7)) < random.choice([0.2, 0.5, 0.8]),
        )
        for _ in range(6)
    ]


def plain_pixel(instances, row, column, rules):
    """Decide one pixel in words: crowds only where no thing is, then the rule of the overlap."""
    here = [i for i in instances if i.mask[row, column]]
    things = [i for i in here if not i.crowd]
    claims = things or here
    if not claims:
        return 0
    if rules.overlap == "ignore" and len({i.class_id for i in things}) > 1:
        return 255
    areas = [int(i.mask.sum()) for i in claims]
    winner = {
        "smallest": max(k for k, area in enumerate(areas) if area == min(areas)),
        "first": 0,
        "last": len(claims) - 1,
        "ignore": len(claims) - 1,
    }[rules.overlap]
    if claims[winner].crowd and rules.crowd == "ignore":
        return 255
    return claims[winner].class_id


@pytest.mark.parametrize("crowd", ["class", "ignore"])
@pytest.mark.parametrize("overlap", ["smallest", "last", "first", "ignore"])
def test_every_pixel_goes_to_the_instance_that_the_rules_name(overlap, crowd):
    rules = Rules(overlap=overlap, crowd=crowd)
    for seed in range(20):
        instances = random_instances(seed)
        label = paint(instances, (5, 7), rules)
        expected = [[plain_pixel(instances, y, x, rules) for x in range(7)] for y in range(5)]
        assert label.tolist() == expected


def test_polygons_become_palette_masks_with_class_ids(source, tmp_path, capsys):
    records = prepared(source, tmp_path / "data")
    person_on_table = np.full((HEIGHT, WIDTH), 61)
    person_on_table[:3, :3] = 1
    dog = np.zeros((HEIGHT, WIDTH), int)
    dog[:2, :2] = dog[4:, 4:6] = 17
    assert read_label(records["1"].label_path).tolist() == person_on_table.tolist()
    assert read_label(records["2"].label_path).tolist() == dog.tolist()
    assert not read_label(records["3"].label_path).any()
    assert set(records) == {"1", "2", "3", "7"}
    assert records["1"].label_path.is_relative_to(tmp_path / "data")
    assert capsys.readouterr().out == ""


def test_the_table_wins_where_the_last_one_of_the_file_does(source, tmp_path):
    records = prepared(source, tmp_path / "data", overlap="last")
    assert np.unique(read_label(records["1"].label_path)).tolist() == [61]


@pytest.mark.parametrize(("crowd", "value"), [("class", 1), ("ignore", 255)])
def test_a_crowd_of_run_lengths_lies_below_the_things(source, tmp_path, crowd, value):
    everywhere = np.ones((HEIGHT, WIDTH), bool)
    annotations = [
        annotation(1, 1, DOG, [box(0, 0, 8, 3)]),
        annotation(2, 1, PERSON, runs(everywhere), iscrowd=1),
    ]
    write_json(source, "train2017", ["1", "2", "3"], annotations)
    label = read_label(prepared(source, tmp_path / "data", crowd=crowd)["1"].label_path)
    assert (label[:3] == 17).all()
    assert (label[3:] == value).all()


def test_a_killed_painting_goes_on_where_it_stopped(source, tmp_path, monkeypatch):
    written = []

    def write(path, label):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write_label(path, label)

    monkeypatch.setattr(coco, "write_label", write)
    with pytest.raises(KeyboardInterrupt):
        prepared(source, tmp_path / "data")
    monkeypatch.setattr(
        coco,
        "write_label",
        lambda path, label: (written.append(path.name), write_label(path, label)),
    )
    continued = prepared(source, tmp_path / "data")
    undisturbed = prepared(source, tmp_path / "other")
    assert written == ["1.png", "2.png", "3.png", "7.png", "1.png", "2.png", "3.png", "7.png"]
    assert {i: r.digest for i, r in continued.items()} == {
        i: r.digest for i, r in undisturbed.items()
    }


def test_other_annotations_or_rules_are_painted_anew_and_leave_no_old_masks(source, tmp_path):
    folder = tmp_path / "data"
    old = prepared(source, folder)
    write_json(source, "train2017", ["1", "2", "3"], ANNOTATIONS[:1])
    new = prepared(source, folder)
    assert not read_label(new["2"].label_path).any()
    assert new["7"] == old["7"]
    assert len(list((folder / "masks").iterdir())) == 2
    prepared(source, folder, crowd="ignore")
    assert len(list((folder / "masks").iterdir())) == 2


def test_ready_masks_are_used_where_there_are_some(source, tmp_path):
    for image_id in ("1", "7"):
        write_label(source / "masks" / f"{image_id}.png", np.full((HEIGHT, WIDTH), 5, np.uint8))
    records = prepared(source, tmp_path / "data")
    assert records["1"].label_path == source / "masks" / "1.png"
    assert records["2"].label_path is None
    painted = prepared(source, tmp_path / "data", masks="instances")
    assert painted["1"].label_path.is_relative_to(tmp_path / "data")


def test_maps_of_coco_stuff_keep_their_things_and_lose_their_stuff(source, tmp_path):
    table = build(Settings(masks="stuff")).table
    label = np.array([[0, 17, 66, 11, 91, 181, 255]], np.uint8)
    assert table.map(label, path=tmp_path).tolist() == [[1, 17, 61, 0, 0, 0, 255]]
    with pytest.raises(DataError, match="holds the id 182"):
        table.map(np.array([[182]], np.uint8), path=tmp_path)
    for part, image_id in (("train2017", "1"), ("val2017", "7")):
        write_label(source / "stuffthingmaps" / part / f"{image_id}.png", label)
    records = prepared(source, tmp_path / "data", masks="stuff")
    assert records["7"].label_path == source / "stuffthingmaps" / "val2017" / "7.png"


@pytest.mark.parametrize("kind", ["ready", "stuff"])
def test_masks_that_are_asked_for_and_missing_are_one_line(source, tmp_path, kind):
    assert f"but prepare.dataset.masks is {kind}" in refused(source, tmp_path, masks=kind)


def test_missing_annotations_are_one_line(source, tmp_path):
    path = source / "annotations" / "instances_train2017.json"
    path.unlink()
    assert refused(source, tmp_path).startswith(f"{path}: no such file of instances; unpack")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read (Expecting property name"),
        ("[]", "expected the keys images and annotations"),
        ('{"images": [{"id": 1}], "annotations": []}', "missing or wrong: 'file_name'"),
        ('{"images": [], "annotations": [{"id": 1}]}', "missing or wrong: 'image_id'"),
        ('{"images": 3, "annotations": []}', "is no file of COCO instances"),
    ],
)
def test_a_file_of_another_kind_is_one_line(source, tmp_path, content, message):
    path = source / "annotations" / "instances_train2017.json"
    path.write_text(content)
    assert message in refused(source, tmp_path)


def test_a_missing_photo_is_one_line_and_may_be_left_out(source, tmp_path):
    (source / "train2017" / "2.jpg").unlink()
    assert refused(source, tmp_path) == (
        f"{source / 'train2017'}: no image of the id '2', which the list instances_train2017.json "
        "names (1 of its 3 are missing); add the images, or set "
        "prepare.dataset.restrict_to_present: true for a part of the data set"
    )
    assert set(prepared(source, tmp_path / "data", restrict_to_present=True)) == {"1", "3", "7"}


def test_a_photo_that_is_not_annotated_is_one_line(source, tmp_path):
    Image.new("RGB", (4, 4)).save(source / "train2017" / "8.jpg")
    assert "lists no image '8', but there is a photo of it (1 such)" in refused(source, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            annotation(5, 1, 12, [box(0, 0, 2, 2)]),
            "annotation 5 has the category id 12, which COCO",
        ),
        (annotation(5, 4, 1, [box(0, 0, 2, 2)]), "annotation 5 names the image id 4, which the"),
        (
            annotation(5, 1, 1, [[1, 1, 2, 2]]),
            "annotation 5 of 1.jpg: bad polygon, expected at lea",
        ),
        (annotation(5, 1, 1, [[1, 1, 2, 2, 3, 3, 4]]), "two per point, got 7"),
        (annotation(5, 1, 1, [[1, 1, 2, 2, 3, "a"]]), "bad polygon, expected numbers"),
        (annotation(5, 1, 1, [[1, 1, 2, 2, 3, float("nan")]]), "bad polygon, expected finite"),
        (annotation(5, 1, 1, None), "annotation 5 of 1.jpg: has no segmentation"),
        (
            annotation(5, 1, 1, {"size": [HEIGHT, WIDTH], "counts": [4, 2]}),
            "run lengths are for [6, 8] pixels and cover 6, expected [6, 8]",
        ),
        (annotation(5, 1, 1, {"size": [9, 9], "counts": [81]}), "run lengths are for [9, 9]"),
    ],
)
def test_a_wrong_annotation_is_one_line(source, tmp_path, wrong, message):
    write_json(source, "train2017", ["1", "2", "3"], [*ANNOTATIONS, wrong])
    assert message in refused(source, tmp_path)


def test_bad_polygons_may_be_skipped(source, tmp_path):
    wrong = annotation(5, 3, PERSON, [[1, 1, 2, 2], box(0, 0, 2, 2)])
    empty = annotation(6, 2, PERSON, [[1, 1, 2, 2]])
    write_json(source, "train2017", ["1", "2", "3"], [*ANNOTATIONS, wrong, empty])
    records = prepared(source, tmp_path / "data", bad_polygons="skip")
    assert (read_label(records["3"].label_path) == 1).sum() == 4
    assert not (read_label(records["2"].label_path) == 1).any()


def test_a_split_is_official_drawn_or_a_list_of_ones_own(source):
    (source / "splits").mkdir()
    (source / "splits" / "mine.txt").write_text("3\n1\n")
    dataset = build(Settings())
    mine = dataset.split(source, source, "mine")
    assert (mine.labeled, mine.unlabeled, mine.val) == (("3", "1"), ("2",), ("7",))
    drawn = dataset.split(source, source, "drawn_2")
    assert "2" in drawn.labeled
    assert len(drawn.unlabeled) == 1
    with pytest.raises(
        SettingsError, match=r"no id list 'labeled_231'.*Did you mean 'labeled_232'"
    ):
        dataset.split(source, source, "labeled_231")
    with pytest.raises(SettingsError, match="with n from 1 to 3"):
        dataset.split(source, source, "drawn_4")
    with pytest.raises(
        DataError, match=r"no image of the id '000000177254', which the list labele"
    ):
        dataset.split(source, source, "labeled_232")


@needs_coco128
def test_splits_of_a_part_of_coco_take_what_is_there():
    dataset = build(Settings(restrict_to_present=True))
    official = dataset.split(COCO128, COCO128, "labeled_3697")
    listed = set(read_ids(LISTS / "3697.txt"))
    assert set(official.labeled) == {i for i in dataset.train_ids(COCO128) if i in listed}
    assert (len(official.labeled), len(official.unlabeled), len(official.val)) == (3, 97, 28)
    drawn = dataset.split(COCO128, COCO128, "drawn_20")
    check(drawn, {*dataset.train_ids(COCO128), *drawn.val})
    annotations = Annotations(
        COCO128 / "annotations" / "instances_train2017.json", classes=CLASS_IDS
    )
    seen = {c for i in drawn.labeled for c in annotations.classes_of(i)}
    of_all = {c for i in dataset.train_ids(COCO128) for c in annotations.classes_of(i)}
    at_random = {c for i in dataset.train_ids(COCO128)[:20] for c in annotations.classes_of(i)}
    assert len(at_random) < len(seen) <= len(of_all)


@needs_coco128
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_of_real_annotations_are_those_of_a_plain_loop_over_pycocotools():
    from pycocotools import mask as codec

    path = COCO128 / "annotations" / "instances_val2017.json"
    values = json.loads(path.read_text())
    annotations = Annotations(path, classes=CLASS_IDS)
    for image in values["images"][:6]:
        size = (image["height"], image["width"])
        found = [a for a in values["annotations"] if a["image_id"] == image["id"]]
        masks = [
            codec.decode(codec.merge(codec.frPyObjects(a["segmentation"], *size))) for a in found
        ]
        expected = np.zeros(size, np.uint8)
        for k in sorted(range(len(found)), key=lambda k: -int(masks[k].sum())):
            expected[masks[k] > 0] = CLASS_IDS[found[k]["category_id"]]
        label = annotations.label(Path(image["file_name"]).stem, Rules())
        assert (label == expected).all()


def test_the_rules_say_which_defaults_they_have():
    rules = Rules()
    assert (rules.crowd, rules.overlap, rules.bad_polygons) == ("class", "smallest", "refuse")
    assert "not stated" in _coco_instances.__doc__
