"""SEPL's merging rules against the published results and a plain rewriting of them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from zspl.labeling.sepl import merge, refine

SHARED = Path(os.environ.get("ZSPL_SHARED", Path(__file__).parents[3] / "shared"))
RULES = ["max_iou", "max_iou_imp", "max_iou_imp2"]


def fixture_cases():
    path = SHARED / "fixtures" / "sepl_merge.npz"
    if not path.is_file():
        pytest.skip("the shared numeric fixtures are not here (set ZSPL_SHARED)")
    with np.load(path) as file:
        ids = sorted({key.split(".")[0] for key in file})
        for image_id in ids:
            pseudo = file[f"{image_id}.pseudo"]
            packed = file[f"{image_id}.segments"]
            masks = np.unpackbits(packed, axis=1, count=pseudo.size).astype(bool)
            masks = masks.reshape(-1, *pseudo.shape)
            yield pseudo, masks, {rule: file[f"{image_id}.{rule}"] for rule in RULES}


def test_every_rule_equals_the_published_results_exactly():
    for pseudo, masks, expected in fixture_cases():
        for rule in RULES:
            merged = merge(
                torch.from_numpy(pseudo), torch.from_numpy(masks), rule=rule, num_classes=21
            )
            assert np.array_equal(merged.numpy(), expected[rule])


def plain_merge(pseudo, masks, rule, num_classes):
    out = np.zeros_like(pseudo)
    seen = set()
    for c in range(1, num_classes):
        own = pseudo == c
        if not own.any():
            continue
        claimed, covered = [], np.zeros_like(own)
        for k, mask in enumerate(masks):
            if k in seen:
                continue
            covered |= mask
            shared = (own & mask).sum()
            mostly = 2 * shared - mask.sum() > 0
            if mostly or (rule == "max_iou_imp2" and shared / own.sum() >= 0.85):
                claimed.append(k)
        for k in claimed:
            out[masks[k]] = c
            seen.add(k)
        if rule != "max_iou":
            out[own & ~covered] = c
    return out


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(6))
def test_the_rules_equal_a_loop_over_masks(rule, seed):
    rng = np.random.default_rng(seed)
    pseudo = np.kron(rng.integers(0, 5, (4, 4)), np.ones((4, 4))).astype(np.uint8)
    masks = rng.random((7, 16, 16)) < rng.random((7, 1, 1))
    masks[:3] &= pseudo[None] == rng.integers(0, 5, (3, 1, 1))
    merged = merge(torch.from_numpy(pseudo), torch.from_numpy(masks), rule=rule, num_classes=5)
    assert np.array_equal(merged.numpy(), plain_merge(pseudo, masks, rule, 5))


def test_no_segments_leave_background_or_the_uncovered_class():
    pseudo = torch.tensor([[0, 1], [2, 0]], dtype=torch.uint8)
    none = torch.zeros(0, 2, 2, dtype=torch.bool)
    assert merge(pseudo, none, rule="max_iou", num_classes=3).sum() == 0
    assert torch.equal(merge(pseudo, none, rule="max_iou_imp", num_classes=3), pseudo)


def test_an_unknown_rule_and_a_wrong_size_are_refused():
    pseudo = torch.zeros(2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="max_iou_imp2"):
        merge(pseudo, torch.zeros(1, 2, 2, dtype=torch.bool), rule="best", num_classes=2)
    with pytest.raises((ValueError, TypeError)):
        merge(pseudo, torch.zeros(1, 3, 2, dtype=torch.bool), rule="max_iou", num_classes=2)


@pytest.mark.parametrize("rule", RULES)
def test_refining_keeps_what_is_ignored_unless_a_segment_claims_it(rule):
    pseudo = torch.tensor([[1, 1, 255, 0, 255, 0]], dtype=torch.uint8)
    segment = torch.tensor([[[1, 1, 1, 0, 0, 0]]], dtype=torch.bool)
    refined = refine(pseudo, segment, rule=rule, num_classes=2)
    assert refined.tolist() == [[1, 1, 1, 0, 255, 0]]
    assert merge(pseudo, segment, rule=rule, num_classes=2).tolist() == [[1, 1, 1, 0, 0, 0]]
