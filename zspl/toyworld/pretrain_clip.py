"""Pre-train the tiny CLIP from captions alone: `python -m zspl.toyworld.pretrain_clip`.

Symmetric contrastive loss over the distinct captions of a batch. A killed run continues from its
last checkpoint and draws the same batches, since each step seeds its own generator.
"""

import argparse
import io
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm import tqdm

from zspl.io import atomic
from zspl.toyworld import clip_weights, corpus

_REPORT_EVERY = 50


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of one pre-training run.

    Attributes:
        seed: Seed of the initial weights, the batches and the patch dropout.
        steps: Length of the run and of the cosine schedule.
        batch: Pictures per step.
        pictures: Pictures rendered in advance.
        lr: Largest learning rate.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW's decay of matrices.
        checkpoint_every: Steps between checkpoints.
    """

    seed: int
    steps: int
    batch: int = 128
    pictures: int = 60_000
    lr: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.05
    checkpoint_every: int = 200


def contrastive_loss(
    image: Float[Tensor, "B D"],
    text: Float[Tensor, "K D"],
    caption: Int64[Tensor, " B"],
    scale: Float[Tensor, ""],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Compare each picture with every distinct caption, and each caption with every picture.

    Unlike CLIP, equal captions count once: pictures that share a caption share its probability.

    Args:
        image: Unit image vectors.
        text: Unit vectors of the distinct captions.
        caption: Row of `text` that belongs to each picture.
        scale: Inverse temperature.

    Returns:
        The mean of both cross-entropies, in nats, and the share of pictures whose caption wins.
    """
    logits = scale * image @ text.T
    to_text = F.cross_entropy(logits, caption)
    owns = F.one_hot(caption, len(text)).T.to(logits)
    to_image = -(owns / owns.sum(1, keepdim=True) * logits.T.log_softmax(1)).sum(1).mean()
    right = (logits.argmax(1) == caption).float().mean()
    return 0.5 * (to_text + to_image), right


def widen_init(model: nn.Module) -> None:
    """Rescale the stock initial weights so that a net this small leaves chance at once."""
    factors = {
        "token_embedding.weight": 10.0,
        "visual.class_embedding": 0.3,
        "visual.positional_embedding": 0.3,
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in factors:
                parameter.mul_(factors[name])
            elif name.startswith("visual.") and name.endswith("attn.in_proj_weight"):
                parameter.mul_(1.5)
            elif name.startswith("visual.") and name.endswith("attn.out_proj.weight"):
                parameter.mul_(2.0)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), eps=1e-6)


def _rate(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    return 0.5 * recipe.lr * (1.0 + math.cos(math.pi * step / recipe.steps))


def _normalised(images: np.ndarray) -> Float[Tensor, "B 3 H W"]:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
    return (pixels - clip_weights.MEAN) / clip_weights.STD


def _step(
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    bank: corpus.Bank,
    *,
    step: int,
    recipe: Recipe,
) -> tuple[float, float]:
    torch.manual_seed(recipe.seed * 1_000_003 + step)
    images, sentences = bank.draw(recipe.batch, np.random.default_rng([recipe.seed, step]))
    distinct = sorted(set(sentences))
    caption = torch.tensor([distinct.index(s) for s in sentences])
    for group in optimizer.param_groups:
        group["lr"] = _rate(step, recipe)
    image, text, scale = model(_normalised(images), clip_weights.compact_ids(distinct))[:3]
    loss, right = contrastive_loss(image, text, caption, scale)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0.0, math.log(100.0))  # type: ignore[operator]
    return loss.item(), right.item()


def _save(path: Path, model: nn.Module, optimizer: torch.optim.AdamW, step: int) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        },
        buffer,
    )
    atomic.write_bytes(path, buffer.getvalue())


def train(out: Path, *, recipe: Recipe, minutes: float, stop_after: int | None = None) -> bool:
    """Train from scratch or from the last checkpoint in `out`.

    Args:
        out: Folder of the rendered pictures and of `checkpoint.pt`; made if missing.
        recipe: Everything that decides the result.
        minutes: Wall-clock limit; the run stops at a checkpoint and continues when called again.
        stop_after: Step at which the run stops as if killed; the schedule does not see it.

    Returns:
        Whether the last step is done.
    """
    bank = corpus.build(out.parent / "clip_pictures", count=recipe.pictures)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    model = clip_weights.new_model()
    widen_init(model)
    optimizer = _optimizer(model, recipe)
    path, reached = out / "checkpoint.pt", 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        reached = state["step"]
    stop_at = time.monotonic() + 60.0 * minutes
    last = min(recipe.steps, stop_after or recipe.steps)
    bar = tqdm(range(reached, last), initial=reached, total=recipe.steps, mininterval=10.0)
    recent: list[tuple[float, float]] = []
    for step in bar:
        reached = step + 1
        recent.append(_step(model, optimizer, bank, step=step, recipe=recipe))
        if reached % _REPORT_EVERY == 0:
            loss, right = np.mean(recent[-_REPORT_EVERY:], axis=0)
            bar.set_postfix(loss=f"{loss:.3f}", right=f"{right:.3f}")
        if reached % recipe.checkpoint_every == 0 or reached == last:
            _save(path, model, optimizer, reached)
            if time.monotonic() > stop_at:
                break
    return reached == recipe.steps


def main() -> None:
    """Run the pre-training from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of pictures and checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--stop-after", type=int, help="stop at this step; keeps the schedule")
    parser.add_argument("--minutes", type=float, default=math.inf, help="wall-clock limit")
    parser.add_argument("--ship", action="store_true", help="write the weights into the package")
    given = parser.parse_args()
    torch.set_num_threads(1)
    done = train(
        given.out,
        recipe=Recipe(seed=given.seed, steps=given.steps),
        minutes=given.minutes,
    )
    if done and given.ship:
        state = torch.load(given.out / "checkpoint.pt", weights_only=True)["model"]
        clip_weights.write(state, clip_weights.FOLDER)


if __name__ == "__main__":
    main()
