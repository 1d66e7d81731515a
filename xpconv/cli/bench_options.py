"""The options of `xpconv bench`, with their help."""

from __future__ import annotations

import argparse

from xpconv.cli.option_kinds import Wrapped, add_settings, counts, names, positive_int


def add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "bench",
        help="how fast this machine runs xpconv, beside other libraries",
        description="Time named layers forward and backward, training steps, and inference of whole networks, in "
        "xpconv and in other libraries. Each runs in a process of its own, in turns; medians count. An answer that is "
        "wrong is refused a time. Ctrl-C stops early and keeps what was measured.",
        epilog="sets:\n"
        "  quick         some of each, in about a minute\n"
        "  resnet50      every distinct convolution of ResNet-50 at 224x224 pixels\n"
        "  mobilenetv2   and of MobileNetV2\n"
        "  lenet         and of LeNet\n"
        "  samples       convolutions of signals and volumes\n"
        "  pools         max and average pooling\n"
        "  layers        batch norm, linear, softmax cross-entropy\n"
        "  convnext      what a block of ConvNeXt is made of\n"
        "  unet          group and instance norm, resizing, borders, an up-convolution\n"
        "  steps         whole training steps of LeNet and ResNet-20\n"
        "  unet_step     and of a U-Net\n"
        "  all           all of these\n"
        "  resnet50_few  six of ResNet-50's convolutions\n"
        "  alexnet       response norms\n"
        "  inference     whole networks forward, one image at a time or by --batch: those of the sets of steps\n"
        "  large_steps   training steps of ResNet-50 and MobileNetV2\n"
        "  bandwidth     what a GPU's memory bounds: pools, norms, activations, optimizers\n"
        "  overhead      calls so small that only the way to the device counts\n\n"
        "columns: the median time; ± half of what lies between the quartiles of all calls, in percent of it; GFLOP/s; "
        "peak: the share of what the machine could do at most (m: its memory is the limit, not its arithmetic); the "
        "error against float64, of which 1 is the most that is right; on a GPU the µs "
        "of the host for a call, of each side; for each peer its time and the ratio to xpconv's. Where the terminal is "
        "too narrow, ±, GFLOP/s and error are left out, in this order; --json has all of them.\n\n"
        "A share above 100 % is no mistake: GFLOP/s count the operations of the definition, of which Winograd's "
        "algorithm does fewer. But on a busy machine all figures are off, the ceiling's too. It is measured at "
        "the start, which the shares here go by, and at the end: --json keeps the higher one, and --show goes by it."
        "\n\nUnsteady is a side in a row where the median of one of its turns is more than 1.5 times its fastest "
        "call, the slowest third of its turns left out, or where most of its calls end with a tick of the system's "
        "scheduler: its threads took turns on one core, or others had the machine. Such rows are measured again "
        "after all others, every side and in new processes. The calls of all tries count, so that nobody chooses "
        "among them. Rows that stay unsteady are marked, here, in the file and as hollow dots; their ratios may be "
        "off by as much. What slows every turn of a side alike is not noticed.",
        formatter_class=Wrapped,
    )
    parser.add_argument("--set", type=names, default=["quick"], metavar="S,S", help="what to time (default: quick)")
    parser.add_argument(
        "--against",
        type=names,
        metavar="P,P",
        help="torch, torch-graph (its steps under CUDA graphs), jax, im2col (NumPy), launch (a bare CUDA kernel), "
        "engine:E+E (xpconv itself on these engines), or none (default: torch, where it is installed)",
    )
    parser.add_argument("--batch", type=counts, default=[], metavar="N,N", help="images (default: each row's own)")
    parser.add_argument(
        "--direction",
        type=names,
        metavar="D,D",
        help="forward, fused (a convolution with bias and ReLU), backward, step (default: all; fused on a GPU only)",
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        metavar="T",
        help="float16, bfloat16, float32 (default), float64, complex64, complex128",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name holds these words")
    parser.add_argument("--rounds", type=positive_int, default=5, metavar="N", help="turns of each side (default: 5)")
    parser.add_argument(
        "--tries", type=positive_int, default=3, metavar="N", help="times an unsteady row is measured (default: 3)"
    )
    parser.add_argument("--threads", type=positive_int, metavar="N", help="of every side (default: all cores)")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of forward and backward")
    parser.add_argument("--json", metavar="FILE", help="write all figures here, after each row")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the rows that the --json file has not; sets come one by one"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the ratios into this PNG")
    parser.add_argument("--emulated", action="store_true", help=argparse.SUPPRESS)  # for the tests' stand-in for CuPy
    parser.add_argument("--show", metavar="FILE", help="measure nothing: print and draw what an earlier run wrote")
    add_settings(parser)
