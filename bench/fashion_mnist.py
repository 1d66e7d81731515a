"""ResNet-20 on Fashion-MNIST: what ten epochs learn, and what an epoch costs beside PyTorch.

    python bench/fashion_mnist.py --data FOLDER --json bench/results/fashion_mnist.json

FOLDER holds the four IDX files (Debian has them in its package dataset-fashion-mnist). Training is the command
`xpconv train`, and its accuracy that of all test images after the last epoch; `--run DIR` takes the history of a run
that was made before. Steps of both libraries are then timed in processes of their own, in turns, on the same images
with the same network, loss and optimizer, and scaled to an epoch: forward, loss, backward, Adam; no evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from portable_conv import environment

from xpconv.atomic import replacing

EPOCHS, BATCH, MODEL = 10, 128, "resnet20"
RATE = 3e-3  # the command line's default
STEPS, ROUNDS = 30, 3
SIDES = ("xpconv", "torch, channels first", "torch, channels last")


def train(data, out):
    """The command that anyone can run; answers the folder that it wrote."""
    arguments = ["--model", MODEL, "--epochs", str(EPOCHS), "--batch-size", str(BATCH), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "xpconv", "train", "--data", data, *arguments], check=True)
    return out


def learned(run):
    """The accuracy of each epoch, and of the last, from the history that a run wrote."""
    from xpconv.train import History

    history = History.load(run / "history.jsonl")
    if len(history) != EPOCHS:
        raise SystemExit(f"{run} is of {len(history)} epochs, not {EPOCHS}")
    command = f"xpconv train --data FOLDER --model {MODEL} --epochs {EPOCHS} --batch-size {BATCH}"
    return {
        "command": command,
        "test_accuracy": history[-1].val_accuracy,
        "test_accuracy_by_epoch": [record.val_accuracy for record in history],
        "train_accuracy_by_epoch": [round(record.accuracy, 4) for record in history],
    }


def batches(data):
    """Shuffled batches of training images, as `train.fit` draws them."""
    import numpy as np

    from xpconv import train

    found = train.load(data)
    order = np.random.default_rng(0).permutation(len(found.train_images))
    for start in range(0, (STEPS + 5) * BATCH, BATCH):
        rows = order[start : start + BATCH]
        yield found.train_images[rows], found.train_labels[rows]


def xpconv_step():
    import numpy as np

    import xpconv
    from xpconv import nn, ops, train

    net, optimizer = nn.models.resnet20(in_channels=1).initialize(seed=0), train.Adam(RATE)

    def step(x, labels):
        scores, pullback = net.vjp(x, needs_input=False)
        loss, loss_pullback = xpconv.vjp(ops.softmax_cross_entropy, scores, labels, needs=(True, False))
        pullback(loss_pullback(np.ones_like(loss))[0])
        optimizer.step(net.parameters())
        net.zero_grad()

    return step


def torch_step(memory_format):
    import torch

    from xpconv import exchange, nn
    from xpconv.bench.sides import torch_step as peers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    laid_out = torch.channels_last if memory_format == "channels last" else torch.contiguous_format
    model, ours = None, nn.models.resnet20(in_channels=1).initialize(seed=0)

    def step(x, labels):
        nonlocal model
        if model is None:
            model = peers._resnet20(x).to(memory_format=laid_out)
            exchange.load_torch(ours, dict(model.state_dict()))  # refuses a network that is not the same
            step.optimizer = torch.optim.Adam(model.parameters(), RATE)
        images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=laid_out)
        step.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), torch.from_numpy(labels)).backward()
        step.optimizer.step()

    return step


def timed(side, data):
    """Seconds of each step, after five that are not counted."""
    step = xpconv_step() if side == "xpconv" else torch_step(side.partition(", ")[2])
    times = []
    for x, labels in list(batches(data)):
        start = time.perf_counter()
        step(x, labels)
        times.append(time.perf_counter() - start)
    return times[5:]


def in_turns(data):
    """Median milliseconds of a step, with quartiles, and what an epoch of them takes."""
    times = {side: [] for side in SIDES}
    for _ in range(ROUNDS):
        for side, found in times.items():
            command = [sys.executable, __file__, "--data", data, "--side", side]
            found += json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    steps = -(-60_000 // BATCH)
    report = {}
    for side, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        report[side] = {
            "step_ms": round(1e3 * middle, 1),
            "quartiles_ms": [round(1e3 * low, 1), round(1e3 * high, 1)],
            "epoch_s": round(steps * middle, 1),
        }
    best = min(report[side]["step_ms"] for side in SIDES[1:])
    return {**report, "torch_over_xpconv": round(best / report["xpconv"]["step_ms"], 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="of the IDX files")
    parser.add_argument("--run", type=Path, metavar="DIR", help="what an earlier `xpconv train` wrote")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(timed(options.side, options.data)))
        return
    how = {
        "time": f"{ROUNDS} turns of {STEPS} training steps on each side, each in a process of its own; the median, "
        f"scaled to the {-(-60_000 // BATCH)} steps of an epoch, without evaluation",
        "accuracy": "of all 10,000 test images after the last epoch; no epoch was picked",
    }
    report = {"what": "ResNet-20 on Fashion-MNIST", **environment(), "batch": BATCH, "how": how}
    report["learned"] = learned(options.run or train(options.data, Path("fashion-mnist-run")))
    report["time"] = in_turns(options.data)
    print(json.dumps(report, indent=2))
    if options.json:
        with replacing(options.json) as beside:
            beside.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
