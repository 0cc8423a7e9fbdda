"""The whole generator at true size: time and peak memory, ours against segment_anything.

    python benches/peak_memory.py [--photo FILE] [--size 1800x1200] [--points 32] [--model vit_b]

Either side runs in a process of its own, on one thread, with the same random weights and the
masks of `seeded_masks`. Prints one line per side and the ratios. The official side takes minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import seeded_masks

MIB = 1 << 20


def main():
    """Run both sides, or one of them where `--side` says so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--size", default="1800x1200")
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--model", choices=("vit_b", "small"), default="vit_b")
    parser.add_argument("--share", type=float, default=0.35)
    parser.add_argument("--side", choices=("official", "ours"))
    parser.add_argument("--masks", type=Path)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for side in ("ours", "official"):
            found[side] = _in_a_process(side, Path(folder) / f"{side}.npz")
            print(side, json.dumps(found[side]), flush=True)
        masks = [np.load(Path(folder) / f"{side}.npz")["masks"] for side in found]
    ours, official = found["ours"], found["official"]
    for key in ("cpu_s", "wall_s", "above_model_mib", "peak_mib"):
        print(f"{key}: official / ours = {official[key] / ours[key]:.2f}")
    print(_parity(*masks))


def run(options):
    """Generate once; return seconds, memory in MiB and the number of masks."""
    torch.set_num_threads(1)
    image = _photo(options)
    sam = seeded_masks.vit_b() if options.model == "vit_b" else seeded_masks.small_sam()
    seeded = seeded_masks.SeededMasks(share=options.share, prompts=options.points**2)
    generate = _official if options.side == "official" else _ours
    call = generate(sam, seeded, options.points)
    pixels = np.array(image)
    loaded = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building the model
    begin, cpu = time.perf_counter(), time.process_time()
    masks = call(pixels)
    report = {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - begin,
        "model_mib": loaded,
        "above_model_mib": _memory("VmHWM") - loaded,
        "peak_mib": _memory("VmHWM"),
        "masks": len(masks),
    }
    if options.masks:
        np.savez(options.masks, masks=np.packbits(np.stack(masks), axis=None))
    return report


def _official(sam, seeded, points):
    from segment_anything import SamAutomaticMaskGenerator

    generator = SamAutomaticMaskGenerator(
        seeded_masks.hook_official(sam, seeded), points_per_side=points
    )
    return lambda pixels: [mask["segmentation"] for mask in generator.generate(pixels)]


def _ours(sam, seeded, points):
    from zspl.proposals.sam import SamProposer, Settings

    proposer = SamProposer(sam, Settings(points_per_side=points, max_side=None))
    seeded_masks.hook_ours(proposer.generator, seeded)
    return lambda pixels: list(proposer.propose(Image.fromarray(pixels)).masks.numpy())


def _photo(options):
    width, height = map(int, options.size.split("x"))
    if options.photo:
        return Image.open(options.photo).convert("RGB").resize((width, height))
    blocks = np.random.default_rng(0).integers(0, 256, (height // 50, width // 50, 3), np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def _in_a_process(side, masks):
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--masks", str(masks)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _memory(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / MIB
    raise LookupError(field)


def _parity(ours, official):
    if ours.shape != official.shape:
        return "parity: the sides found different numbers of masks"
    differing = int(np.unpackbits(ours ^ official).sum())
    return f"parity: {differing} of {ours.size * 8:,} mask pixels differ"


if __name__ == "__main__":
    main()
