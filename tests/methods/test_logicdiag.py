import copy
from itertools import combinations, product

import pytest
import torch
from torch.nn import functional as F

from zspl import models
from zspl.errors import SettingsError
from zspl.methods import Facts, Moment, deployed, logicdiag
from zspl.models.hierarchy import hierarchy_of, path_sums
from zspl.records import LabeledBatch, UnlabeledBatch

FACTS = Facts(class_names=tuple("abcd"), crop_size=24)
DEEP = {"near": ("b", "c"), "far": ("near", "d")}
TREES = [
    (tuple("abcd"), {}),
    (tuple("abcde"), {"pair": ("b", "c"), "other": ("d", "e")}),
    (tuple("abcd"), DEEP),
]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def keeps_the_rules(claims, classes, groups):
    """Check composition, decomposition and exclusion, written out."""
    parents = {member: group for group, members in groups.items() for member in members}
    tops = [name for name in (*classes, *groups) if name not in parents]
    families = [*groups.items(), (None, tops)]
    composition = all(not claims[child] or claims[parent] for child, parent in parents.items())
    decomposition = all(
        (group is not None and not claims[group]) or any(claims[m] for m in members)
        for group, members in families
    )
    exclusion = all(
        not (claims[one] and claims[other])
        for _, members in families
        for one, other in combinations(members, 2)
    )
    return composition and decomposition and exclusion


def smallest_diagnoses(claims, classes, groups):
    """Try every set of reversals; keep those that heal and hold no smaller one that does."""
    names, healing = list(claims), []
    for count in range(len(names) + 1):
        for flipped in map(set, combinations(names, count)):
            if any(smaller <= flipped for smaller in healing):
                continue
            healed = {name: claims[name] != (name in flipped) for name in names}
            if keeps_the_rules(healed, classes, groups):
                healing.append(flipped)
    return healing


@pytest.mark.parametrize(("classes", "groups"), TREES)
def test_exactly_the_paths_of_the_classes_break_no_rule(classes, groups):
    tree = hierarchy_of(classes, groups)
    kept = {
        claims
        for claims in product((False, True), repeat=len(tree.nodes))
        if keeps_the_rules(dict(zip(tree.nodes, claims, strict=True)), classes, groups)
    }
    assert kept == {tuple(path) for path in tree.paths.tolist()}
    assert len(kept) == len(classes)


@pytest.mark.parametrize(("classes", "groups"), TREES)
def test_the_label_is_that_of_the_likeliest_smallest_diagnosis(classes, groups):
    tree = hierarchy_of(classes, groups)
    logits = 2 * drawn(1, len(tree.nodes), 8, 8)
    found = logicdiag.diagnose(logits, tree.paths.float())
    healed_pixels = 0
    for y in range(8):
        for x in range(8):
            score = dict(zip(tree.nodes, logits[0, :, y, x].sigmoid().tolist(), strict=True))
            claims = {name: s >= 0.5 for name, s in score.items()}
            candidates = []
            for flipped in smallest_diagnoses(claims, classes, groups):
                likelihood, path = 1.0, []
                for name, s in score.items():
                    claimed = claims[name] != (name in flipped)
                    likelihood *= s if claimed else 1 - s
                    path.append(claimed)
                candidates.append((likelihood, path, flipped))
            _, path, flipped = max(candidates, key=lambda c: c[0])
            assert tree.paths[found.label[0, y, x]].tolist() == path
            assert found.conflict[0, y, x].item() == bool(flipped)
            healed_pixels += bool(flipped)
    assert healed_pixels > 10


@pytest.mark.parametrize(("classes", "groups"), TREES)
def test_the_likelihood_is_taken_among_the_diagnoses_of_all_classes(classes, groups):
    tree = hierarchy_of(classes, groups)
    logits = drawn(1, len(tree.nodes), 3, 3)
    found = logicdiag.diagnose(logits, tree.paths.float())
    s = logits[0].sigmoid()
    for y in range(3):
        for x in range(3):
            worlds = torch.stack(
                [torch.where(path, s[:, y, x], 1 - s[:, y, x]).prod() for path in tree.paths]
            )
            expected = worlds.max() / worlds.sum()
            torch.testing.assert_close(found.likelihood[0, y, x], expected)
            assert found.label[0, y, x] == worlds.argmax()


@pytest.mark.parametrize(("classes", "groups"), TREES)
def test_the_loss_of_a_pixel_is_the_binary_cross_entropy_of_all_nodes(classes, groups):
    tree = hierarchy_of(classes, groups)
    logits = 3 * drawn(2, len(tree.nodes), 5, 5)
    label = torch.randint(0, len(classes), (2, 5, 5), generator=torch.Generator().manual_seed(1))
    target = tree.paths[label].permute(0, 3, 1, 2).float()
    expected = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    found = logicdiag.path_loss(logits, label, tree.paths.float())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def network(classes=4):
    torch.manual_seed(0)
    return models.build(
        backbone={"name": "compact", "widths": (4, 6, 8, 8)},
        head={"name": "deeplabv3plus", "width": 8, "low_width": 4, "dilations": (2,)},
        num_classes=classes,
    )


def prepared(**changes):
    method = logicdiag.build(logicdiag.Settings(hierarchy=DEEP, **changes))
    model = method.prepare(method.adapt(network(), FACTS), network, FACTS)
    with torch.no_grad():
        for seed, parameter in enumerate(model.teacher.parameters()):
            parameter.add_(drawn(*parameter.shape, seed=seed), alpha=0.2)
    return method, model


def batches(size=24):
    def unlabeled(seed):
        weak = drawn(2, 3, size, size, seed=seed)
        padding = torch.zeros(2, size, size, dtype=torch.bool)
        padding[0, :, 18 + seed % 3 :] = True
        box = torch.zeros_like(padding)
        box[:, 4:14, 3:20] = True
        return UnlabeledBatch(
            weak=weak, strong1=0.5 * weak, strong2=1.5 * weak, padding=padding,
            box1=box, box2=~box, zero_shot=None,
        )  # fmt: skip

    label = torch.randint(0, 4, (2, size, size), generator=torch.Generator().manual_seed(0))
    label[0, :4] = 255
    return LabeledBatch(image=drawn(2, 3, size, size, seed=9), label=label), *map(unlabeled, (1, 2))


@pytest.mark.parametrize("weigh", [True, False])
def test_the_loss_is_the_labeled_one_and_the_weighted_corrected_one(weigh):
    method, model = prepared(weigh=weigh, unlabeled_weight=0.7)
    labeled, main, partner = batches()
    plain = copy.deepcopy(model)
    loss = method(model, labeled, main, partner)

    tree = hierarchy_of(FACTS.class_names, DEEP)
    teacher, student = plain.teacher.eval(), plain.deployed.train()
    with torch.no_grad():
        weak, other = teacher.nodes(main.weak), teacher.nodes(partner.weak)
    box = main.box1
    nodes = torch.where(box[:, None], other, weak)
    found = logicdiag.diagnose(nodes, tree.paths.float())
    ignored = torch.where(box, partner.padding, main.padding)
    strong = torch.where(box[:, None], partner.strong1, main.strong1)
    logits = student.nodes(torch.cat([labeled.image, strong]))

    def mean(logits, label, weight):
        target = tree.paths[label.clamp(max=3)].permute(0, 3, 1, 2).float()
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
        return (each * weight).sum()

    known = labeled.label != 255
    own = mean(logits[:2], labeled.label, known) / known.sum()
    weight = found.likelihood if weigh else torch.ones_like(found.likelihood)
    taught = mean(logits[2:], found.label, weight * ~ignored) / (~ignored).sum()
    torch.testing.assert_close(loss.total, own + 0.7 * taught, rtol=1e-5, atol=1e-5)
    conflict = logicdiag.diagnose(weak, tree.paths.float()).conflict
    expected = (conflict & ~main.padding).sum() / (~main.padding).sum()
    torch.testing.assert_close(loss.parts["conflict_share"], expected)


def test_the_teacher_is_the_moving_average_of_the_student():
    method, model = prepared(average=0.9)
    key = "head.classifier.weight"
    mean = model.teacher.state_dict()[key].clone()
    for iteration in range(15):
        with torch.no_grad():
            model.deployed.head.classifier.weight += 0.1
            model.deployed.head.fuse[1].running_mean += 1
            method.after_step(model, Moment(iteration=iteration, total=20, per_epoch=5))
        kept = min(1 - 1 / (iteration + 1), 0.9)
        mean = kept * mean + (1 - kept) * model.deployed.head.classifier.weight
        torch.testing.assert_close(model.teacher.state_dict()[key], mean)
    for ours, theirs in zip(model.teacher.buffers(), model.deployed.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_outputs_of_the_classes_stay_and_the_logits_are_sums_along_the_paths():
    images = drawn(2, 3, 24, 24)
    tree = hierarchy_of(FACTS.class_names, DEEP)
    before = network().eval()(images)
    method = logicdiag.build(logicdiag.Settings(hierarchy=DEEP))
    adapted = method.adapt(network(), FACTS).eval()
    nodes = adapted.nodes(images)
    assert nodes.shape == (2, 6, 24, 24)
    torch.testing.assert_close(nodes[:, :4], before)
    expected = torch.stack([nodes[:, path].sum(1) for path in tree.paths], dim=1)
    torch.testing.assert_close(adapted(images), expected)
    torch.testing.assert_close(path_sums(nodes, tree.paths.float()), expected)


def test_a_flat_tree_leaves_the_network_as_it_is_and_a_finished_one_holds_no_teacher():
    images = drawn(2, 3, 24, 24)
    method = logicdiag.build(logicdiag.Settings(hierarchy="flat"))
    adapted = method.adapt(network(), FACTS)
    model = method.prepare(adapted, network, FACTS)
    state = deployed(model).state_dict()
    assert state.keys() == network().state_dict().keys()
    torch.testing.assert_close(adapted.eval()(images), network().eval()(images))


@pytest.fixture
def notices(monkeypatch):
    """Collect what the user is told."""
    said = []
    monkeypatch.setattr(logicdiag, "notify", said.append)
    return said


def test_classes_of_voc_get_its_groups(notices):
    names = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
    facts = Facts(class_names=names, crop_size=24)
    method = logicdiag.build(logicdiag.Settings())
    adapted = method.adapt(network(7), facts)
    assert adapted.paths.shape == (7, 8)
    assert adapted.paths[:, 7].tolist() == [0, 1, 1, 1, 1, 0, 1]
    assert not notices


def test_classes_that_no_shipped_tree_knows_exclude_each_other_and_the_user_is_told(notices):
    adapted = logicdiag.build(logicdiag.Settings()).adapt(network(), FACTS)
    assert torch.equal(adapted.paths, torch.eye(4))
    assert len(notices) == 1
    assert "no shipped hierarchy knows the classes a, b, c, d" in notices[0]


def test_a_step_that_cannot_run_is_refused():
    method, model = prepared()
    labeled, _, _ = batches()
    with pytest.raises(ValueError, match="needs an unlabeled batch"):
        method(model, labeled, None, None)
    with pytest.raises(ValueError, match="its own `adapt`"):
        method.prepare(network(), network, FACTS)


def test_a_tree_that_does_not_fit_the_classes_is_named():
    method = logicdiag.build(logicdiag.Settings(hierarchy={"pair": ("b", "z")}))
    with pytest.raises(SettingsError, match="pair holds 'z', which is neither"):
        method.adapt(network(), FACTS)


def test_the_defaults_are_the_documented_ones():
    assert logicdiag.Settings().model_dump() == {
        "hierarchy": "shipped",
        "unlabeled_weight": 1.0,
        "average": 0.999,
        "weigh": True,
    }
