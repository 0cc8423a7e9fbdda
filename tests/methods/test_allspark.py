import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl import models
from zspl.methods import Facts, Moment, allspark, deployed
from zspl.models.heads import allspark as allspark_head
from zspl.models.heads._allspark import AllSpark, ChannelAttention, SparkedHead
from zspl.models.shapes import level_shapes
from zspl.records import LabeledBatch, UnlabeledBatch

FACTS = Facts(class_names=tuple("abcd"), crop_size=24)
DEEPLAB = {"name": "deeplabv3plus", "width": 8, "low_width": 4, "dilations": (2,)}
PLAIN = allspark.Settings(strong_labeled=False, attention_dropout=0.0)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention(channels=6, heads=2):
    torch.manual_seed(3)
    return ChannelAttention(channels, heads=heads, dropout=0.1).eval()


def normalised(matrix):
    """Take mean and variance out of one matrix, and make each row a distribution."""
    centred = (matrix - matrix.mean()) / torch.sqrt(matrix.var(unbiased=False) + 1e-5)
    return torch.stack([row.exp() / row.exp().sum() for row in centred])


def reference_unlabeled(attn, tokens):
    """Each head: channels attend to channels; the outputs of the heads alternate."""
    outputs = []
    for x in tokens:
        _, channels = x.shape
        heads = []
        for h in range(attn.heads):
            rows = slice(h * channels, (h + 1) * channels)
            q, k, v = (x @ w.weight[rows].T for w in (attn.q_u, attn.k_u, attn.v_u))
            heads.append((normalised(q.T @ k) @ v.T).T)
        inner = torch.stack(
            [heads[h][:, c] for c in range(channels) for h in range(attn.heads)], dim=1
        )
        outputs.append(inner @ attn.out_u.weight.T)
    return torch.stack(outputs)


def reference_labeled(attn, tokens, source):
    """Channels of a labeled crop attend to the channels of all sources, one after the other."""
    key = torch.cat([s @ attn.k_l2u.weight.T for s in source], dim=1)
    value = torch.cat([s @ attn.v_l2u.weight.T for s in source], dim=1)
    outputs = []
    for x in tokens:
        q = x @ attn.q_l2u.weight.T
        outputs.append((normalised(q.T @ key) @ value.T).T @ attn.out_l2u.weight.T)
    return torch.stack(outputs)


@torch.no_grad()
@pytest.mark.parametrize("sources", [1, 2, 5])
def test_labeled_crops_attend_to_the_channels_of_all_sources(sources):
    attn, own, source = attention(), drawn(2, 9, 6), drawn(sources, 9, 6, seed=1)
    expected = reference_labeled(attn, own, source)
    torch.testing.assert_close(attn.from_shared(own, source), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_unlabeled_crops_attend_to_their_own_channels(heads):
    attn, tokens = attention(heads=heads), drawn(3, 9, 6)
    expected = reference_unlabeled(attn, tokens)
    torch.testing.assert_close(attn.among_unlabeled(tokens), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_alone_an_image_is_its_own_source_whatever_the_batch():
    attn, tokens = attention(), drawn(3, 9, 6)
    alone = attn.from_itself(tokens)
    for k in range(3):
        one = tokens[k : k + 1]
        torch.testing.assert_close(alone[k : k + 1], attn.from_shared(one, one))
    assert not torch.allclose(attn.from_shared(tokens, tokens), alone, atol=1e-3)


@torch.no_grad()
def test_the_module_is_prenorm_residual_and_norm_between_two_convolutions():
    torch.manual_seed(1)
    module = AllSpark(6, heads=2, dropout=0.1).eval()
    for norm in (module.attn_norm, module.encoder_norm):
        norm.weight.normal_(), norm.bias.normal_()
    level = drawn(4, 6, 3, 3)

    def convolved(conv, x):
        return torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], x) + conv.bias.view(-1, 1, 1)

    def normed(norm, tokens):
        mean, var = tokens.mean(-1, keepdim=True), tokens.var(-1, unbiased=False, keepdim=True)
        return (tokens - mean) / torch.sqrt(var + 1e-6) * norm.weight + norm.bias

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    tokens = gelu(convolved(module.map_in[0], level)).flatten(2).transpose(1, 2)
    inner = normed(module.attn_norm, tokens)
    mixed = torch.cat(
        [
            reference_labeled(module.attn, inner[:1], inner[1:]),
            reference_unlabeled(module.attn, inner[1:]),
        ]
    )
    out = normed(module.encoder_norm, tokens + mixed).transpose(1, 2).reshape(4, 6, 3, 3)
    expected = gelu(convolved(module.map_out[0], out))
    found = module.rebuild(level, labeled=1, source=lambda unlabeled: unlabeled)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def reference_queue(queue, pointer, tokens, classes):
    """Write the channels one class after the other, first in, first out."""
    queue, pointer = queue.clone(), pointer.clone()
    size = queue.shape[1]
    for image, chosen in zip(tokens, classes, strict=True):
        for c in sorted(set(chosen.tolist())):
            new = [image[:, k] for k in range(image.shape[1]) if chosen[k] == c]
            place = int(pointer[c])
            for vector in new:
                queue[c, place] = vector
                place = 0 if place + 1 == size else place + 1
            pointer[c] = place
    return queue, pointer


def test_the_memory_is_first_in_first_out_per_class_and_wraps_around():
    memory = allspark.ClassMemory(3, 7, 4)
    draw = torch.Generator().manual_seed(2)
    for step in range(6):
        tokens = drawn(2, 4, 7, seed=step)
        classes = torch.randint(0, 3, (2, 7), generator=draw)
        if step == 3:
            classes[:] = 1
        expected = reference_queue(memory.queue, memory.pointer, tokens, classes)
        memory.store(tokens, classes)
        assert torch.equal(memory.queue, expected[0])
        assert torch.equal(memory.pointer, expected[1])
    assert torch.equal(memory.tokens(), memory.queue.transpose(1, 2))


def test_a_channel_belongs_to_the_class_whose_logits_it_resembles():
    tokens, logits = drawn(2, 9, 5), drawn(2, 4, 12, 12, seed=1)
    found = allspark.channel_classes(tokens, logits)
    small = F.interpolate(logits, size=(3, 3), mode="bilinear", align_corners=False)
    for b in range(2):
        for c in range(5):
            channel = tokens[b, :, c].numpy().astype(np.float64)
            cosines = []
            for k in range(4):
                other = small[b, k].flatten().numpy().astype(np.float64)
                cosines.append(channel @ other / np.linalg.norm(channel) / np.linalg.norm(other))
            assert found[b, c] == int(np.argmax(cosines))


def network(head=None):
    torch.manual_seed(0)
    return models.build(
        backbone={"name": "compact", "widths": (4, 6, 8, 8)}, head=head or DEEPLAB, num_classes=4
    )


def sparked(settings=PLAIN):
    method = allspark.build(settings)
    return method, method.prepare(method.adapt(network(), FACTS), network, FACTS)


def batches(labeled=2, count=3, size=24):
    label = torch.randint(0, 4, (labeled, size, size), generator=torch.Generator().manual_seed(0))
    label[0, :3] = 255
    box = torch.zeros(count, size, size, dtype=torch.bool)
    padding = box.clone()
    padding[0, :, 18:] = True
    unlabeled = UnlabeledBatch(
        weak=drawn(count, 3, size, size, seed=1),
        strong1=drawn(count, 3, size, size, seed=2),
        strong2=drawn(count, 3, size, size, seed=3),
        padding=padding,
        box1=box,
        box2=box,
        zero_shot=None,
    )
    return LabeledBatch(image=drawn(labeled, 3, size, size, seed=4), label=label), unlabeled


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize(("epoch", "together"), [(4, True), (5, True), (5, False)])
def test_the_loss_is_the_published_expression(epoch, together, padding):
    changes = {"label_together": together, "teach_padding": padding}
    method, model = sparked(PLAIN.model_copy(update=changes))
    labeled, unlabeled = batches()
    plain, memory = copy.deepcopy(model.deployed), copy.deepcopy(model.memory)
    moment = Moment(iteration=epoch * 7 + 3, total=100, per_epoch=7)
    loss = method.at(moment)(model, labeled, unlabeled, None)

    decoder, module = plain.head.decoder, plain.head.allspark
    plain.eval()
    with torch.no_grad():
        low, high = plain.encode(unlabeled.weak)
        rebuilt = module.rebuild_together(high) if together else module(high)
        z = decoder([low, rebuilt], (24, 24))
    plain.train()
    low, high = plain.encode(torch.cat([labeled.image, unlabeled.weak]))
    inner = module.attn_norm(module.map_in(high).flatten(2).mT)
    memory.queue, memory.pointer = reference_queue(
        memory.queue, memory.pointer, inner[2:], allspark.channel_classes(inner[2:], z)
    )
    source = memory.queue.transpose(1, 2) if epoch >= 5 else inner[2:]
    logits = decoder([low, module.rebuild(high, labeled=2, source=lambda _: source)], (24, 24))
    label = z.argmax(1)
    if not padding:
        label[unlabeled.padding] = 255
    own = F.cross_entropy(logits[:2], labeled.label, ignore_index=255)
    other = F.cross_entropy(logits[2:], label, ignore_index=255)
    torch.testing.assert_close(loss.total, (own + other) / 2, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(model.memory.queue, memory.queue)
    assert torch.equal(model.memory.pointer, memory.pointer)


@torch.no_grad()
def test_an_image_is_evaluated_the_same_in_any_batch_and_at_any_size():
    _, model = sparked()
    found = deployed(model).eval()
    images = drawn(3, 3, 40, 31)
    together = found(images)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], found(images[k : k + 1]))


def test_the_memory_is_in_no_finished_network_and_stays_the_same_without_a_step():
    method, model = sparked()
    assert not [key for key in deployed(model).state_dict() if "memory" in key or "queue" in key]
    assert model.memory.queue.shape == (4, 8, 9)
    assert deployed(model) is method.adapt(deployed(model), FACTS)


def test_allspark_on_segformer_b5_has_the_published_number_of_parameters():
    facts = Facts(class_names=tuple(map(str, range(81))), crop_size=513)
    mit = {"name": "mit", "size": "b5"}
    plain = models.build(backbone=mit, head={"name": "segformer", "width": 768}, num_classes=81)
    levels = level_shapes(plain.backbone, 513)
    assert levels[-1] == (512, 17, 17)
    adapted = allspark.build(allspark.Settings()).adapt(plain, facts)
    assert sum(p.numel() for p in adapted.parameters()) == 89_377_297
    assert sum(p.numel() for p in adapted.head.allspark.parameters()) == 4_721_664
    with torch.device("meta"):
        own = allspark_head.build(allspark_head.Settings(width=768))(
            [channels for channels, _, _ in levels], 81
        )
    assert {key: t.shape for key, t in own.state_dict().items()} == {
        key: t.shape for key, t in adapted.head.state_dict().items()
    }


def test_labeled_crops_get_the_colours_of_a_strong_view_from_torchs_generator():
    images = drawn(2, 3, 16, 16).clamp(-1, 1)
    views = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        views.append(allspark.recoloured(images))
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert views[0].shape == images.shape


def test_a_step_that_cannot_run_is_refused():
    method, model = sparked()
    labeled, unlabeled = batches()
    with pytest.raises(ValueError, match="needs an unlabeled batch"):
        method(model, labeled, None, None)
    with pytest.raises(ValueError, match="its own `adapt`"):
        method(allspark.Sparked(network(), model.memory), labeled, unlabeled, None)


def test_the_module_stays_where_the_model_brings_it():
    head = {"name": "allspark", "width": 8}
    mit = models.build(backbone={"name": "mit", "size": "b0"}, head=head, num_classes=4)
    assert isinstance(mit.head, SparkedHead)
    assert allspark.build(PLAIN).adapt(mit, FACTS) is mit


def test_the_defaults_are_the_published_ones():
    assert allspark.Settings().model_dump() == {
        "memory_from": 5,
        "heads": 2,
        "attention_dropout": 0.1,
        "strong_labeled": True,
        "labeled_loss": {"name": "ce"},
        "label_together": True,
        "teach_padding": True,
    }
