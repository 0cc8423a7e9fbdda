"""Pre-train the tiny SAM of the toy world: `python -m zspl.toyworld.pretrain_sam`."""

import argparse
import io
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from zspl.io import atomic
from zspl.toyworld.sam import build, save_sam
from zspl.toyworld.sam_corpus import Bank, Clicks, batches, open_bank
from zspl.toyworld.sam_losses import AuxiliaryHead, decode, mask_loss

LOG = logging.getLogger("zspl.toyworld.pretrain_sam")
SAVE_EVERY = 120.0
"""Seconds between two checkpoints."""


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, besides the corpus.

    Attributes:
        seed: Seed of the initial weights and of the batches.
        minutes: Training time; the number of steps follows from it unless `steps` is given.
        steps: Exact number of steps, to repeat a run; 0 = by `minutes`.
        pictures: Pictures per step.
        clicks: Clicks per picture.
        rate: Learning rate between warm-up and cool-down.
        warmup: Steps over which the rate rises.
        steady: Share of the run before the rate starts to fall to zero.
    """

    seed: int = 0
    minutes: float = 40.0
    steps: int = 0
    pictures: int = 16
    clicks: int = 8
    rate: float = 8e-4
    warmup: int = 200
    steady: float = 0.6


@dataclass
class Run:
    """State of a training run; what a checkpoint holds.

    Attributes:
        sam: The model.
        head: The auxiliary head.
        optimizer: AdamW over both.
        step: Steps done.
        seconds: Time spent, over all resumptions.
        total: Steps in all once that is known, else 0.
    """

    sam: Any
    head: AuxiliaryHead
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    total: int = 0

    def state(self) -> dict[str, Any]:
        """Collect what is needed to resume."""
        return {
            "sam": self.sam.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "total": self.total,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a collected state."""
        self.sam.load_state_dict(state["sam"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.total = (
            state["step"],
            state["seconds"],
            state["total"],
        )


def start(recipe: Recipe) -> Run:
    """Make the models and the optimizer of a fresh run."""
    torch.manual_seed(recipe.seed)
    sam = build()
    head = AuxiliaryHead(sam.mask_decoder.transformer_dim)
    # The file holds float16: with the same rounding from the start, training sees what it ships.
    matrix = sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    matrix.copy_(matrix.half().float())
    parameters = [*sam.parameters(), *head.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return Run(sam, head, torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98)))


def rate_at(run: Run, recipe: Recipe) -> float:
    """Give the learning rate of the next step: warm-up, steady, then a cosine fall to zero."""
    rise = min(1.0, (run.step + 1) / recipe.warmup)
    if not run.total:
        return recipe.rate * rise
    calm = recipe.steady * run.total
    progress = max(0.0, (run.step - calm) / (run.total - calm))
    return recipe.rate * rise * 0.5 * (1 + math.cos(math.pi * progress))


def losses(run: Run, batch: Clicks) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the training loss of one batch and the mean IoU of its best masks."""
    instances = batch.instances
    x, y = batch.points.long().unbind(-1)
    rows = torch.arange(len(instances))[:, None]
    clicked = instances[rows, y, x]
    own = (instances[:, None] == clicked[..., None, None]).float()
    # Touching objects merge unless the pixels of the neighbours weigh more.
    other = (instances[:, None] > 0).float() - own * (clicked > 0)[..., None, None]
    target = F.avg_pool2d(own.flatten(0, 1)[:, None], 2)[:, 0]
    weight = 1 + 2 * F.avg_pool2d(other.flatten(0, 1)[:, None], 2)[:, 0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = (batch.image - run.sam.pixel_mean) / run.sam.pixel_std
        embedding = run.sam.image_encoder(image)
        logits, quality = decode(run.sam, embedding, batch.points)
    loss, iou = mask_loss(logits.float(), quality.float(), target, weight=weight)
    return loss + run.head(embedding.float(), instances), iou


def train(run: Run, recipe: Recipe, *, bank: Bank, out: Path, checkpoint: Path) -> None:
    """Train to the end of the recipe, saving weights and state every few minutes.

    Args:
        run: Where to start from; changed in place.
        recipe: Settings of the run.
        bank: Pictures to train on.
        out: The safetensors file to write.
        checkpoint: The file to resume from after a kill.
    """
    began = saved = time.monotonic()
    before, mean_loss, mean_iou = run.seconds, 0.0, 0.0
    run.total = recipe.steps or run.total
    stream = batches(
        bank,
        first=run.step,
        seed=recipe.seed,
        pictures=recipe.pictures,
        clicks=recipe.clicks,
    )
    bar = tqdm(initial=run.step, total=run.total or None, unit="step", mininterval=20)
    while not run.total or run.step < run.total:
        for group in run.optimizer.param_groups:
            group["lr"] = rate_at(run, recipe)
        loss, iou = losses(run, next(stream))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*run.sam.parameters(), *run.head.parameters()], 1.0)
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.step += 1
        now = time.monotonic()
        run.seconds = before + now - began
        mean_loss += 0.02 * (float(loss.detach()) - mean_loss)
        mean_iou += 0.02 * (float(iou) - mean_iou)
        bar.set_postfix(loss=f"{mean_loss:.3f}", iou=f"{mean_iou:.3f}", refresh=False)
        bar.update()
        if not run.total and run.seconds > recipe.steady * recipe.minutes * 60:
            run.total = round(run.step / recipe.steady)
            LOG.info("the run will have %d steps", run.total)
        if now - saved > SAVE_EVERY:
            _save(run, out, checkpoint)
            LOG.info("step %d loss %.3f iou %.3f", run.step, mean_loss, mean_iou)
            saved = now
    bar.close()
    _save(run, out, checkpoint)
    LOG.info("finished %d steps in %.1f minutes", run.step, run.seconds / 60)


def _save(run: Run, out: Path, checkpoint: Path) -> None:
    """Write the state and the weights so that a kill leaves whole files behind."""
    buffer = io.BytesIO()
    torch.save(run.state(), buffer)
    atomic.write_bytes(checkpoint, buffer.getvalue())
    save_sam(run.sam, out)


def main() -> None:
    """Run the pre-training from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--steps", type=int, default=0, help="exact steps instead of minutes")
    parser.add_argument("--bank", type=Path, required=True, help="folder for rendered pictures")
    parser.add_argument("--pictures", type=int, default=16_000, help="pictures in the bank")
    parser.add_argument("--checkpoint", type=Path, help="state to resume (default: next to out)")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    recipe = Recipe(seed=given.seed, minutes=given.minutes, steps=given.steps)
    checkpoint = given.checkpoint or given.out.with_suffix(".checkpoint.pt")
    bank = open_bank(given.bank, count=given.pictures)
    run = start(recipe)
    if checkpoint.is_file():
        run.restore(torch.load(checkpoint, weights_only=True))
        LOG.info("resumed at step %d", run.step)
    train(run, recipe, bank=bank, out=given.out, checkpoint=checkpoint)


if __name__ == "__main__":
    main()
