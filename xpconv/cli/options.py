"""Every option of every subcommand, with its help."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence

from xpconv import __version__, settings

# What `xpconv train` does unless told otherwise; with --resume, what the run was told then.
TRAINING = {
    "data": "digits",
    "image_size": None,
    "model": "lenet",
    "epochs": 20,
    "batch_size": 32,
    "lr": 3e-3,
    "clip_norm": None,
    "seed": 0,
}


class _Wrapped(argparse.HelpFormatter):
    """Descriptions and epilogs as paragraphs and tables, which are wrapped to the terminal line by line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(_wrapped(line, width, indent) for line in text.splitlines())


def _wrapped(line: str, width: int, indent: str) -> str:
    """One line on several, those after it under the second column of a table, where it has two."""
    table = re.match(r" +\S+(?: \S+)*  +(?=\S)", line)
    within = len(table[0]) if table and len(table[0]) < width * 2 // 3 else len(line) - len(line.lstrip())
    below = indent + " " * within
    return textwrap.fill(line, width, initial_indent=indent, subsequent_indent=below, break_on_hyphens=False)


def read(argv: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for; a mistake is told beside the usage of the command that it was made in."""
    whole = parser()
    if not (sys.argv[1:] if argv is None else argv):
        whole.print_help()
        raise SystemExit(0)
    options, left = whole.parse_known_args(argv)
    if left:
        options.parser.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(
        prog="xpconv",
        description="Convolutional networks on NumPy and CuPy arrays: train one, ask it, see what this machine can do.",
        epilog="examples:\n"
        "  xpconv train                            a small network on handwritten digits, in seconds\n"
        "  xpconv predict xpconv-run/model.safetensors seven.png\n"
        "  xpconv info                             what is installed, and what would make it faster\n"
        "  xpconv parity                           whether every op answers rightly on this machine\n"
        "  xpconv bench                            how fast it is, beside PyTorch",
        formatter_class=_Wrapped,
    )
    whole.add_argument("--version", action="version", version=f"xpconv {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    _add_train(commands)
    _add_predict(commands)
    _add_info(commands)
    _add_parity(commands)
    _add_bench(commands)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return whole


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network on images and write it with its curves",
        description="Train a network on labelled images, report the accuracy on images it has not seen, and write the "
        "network, the history and three pictures. Ctrl-C stops early and keeps what was learned; a second one "
        "leaves at once. Network, history and checkpoint are written after every epoch: a run that was stopped or "
        "killed goes on with --resume.",
        epilog="files written into --out:\n"
        "  model.safetensors       the network; `xpconv predict` and `xpconv.load` read it\n"
        "  history.jsonl           one line of JSON per epoch\n"
        "  checkpoint.safetensors  the run after its last whole epoch, for --resume\n"
        "  curves.png              loss and accuracy against the epoch\n"
        "  filters.png             the kernels of the first convolution\n"
        "  mistakes.png            the test images it gets wrong, worst first",
        formatter_class=_Wrapped,
    )
    parser.add_argument(
        "--data",
        metavar="digits|PATH",
        help="'digits' (1797 handwritten digits of 8x8 pixels, shipped with scikit-learn); or an .npz file, a folder "
        "of IDX files (MNIST and its family, .gz too), or a folder with one sub-folder of images per class "
        "(default: digits)",
    )
    parser.add_argument(
        "--image-size", type=_positive_int, metavar="N", help="bring the image files of a folder to N x N pixels"
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="lenet, resnet20, and for larger images resnet18, resnet34, resnet50, resnet101, vgg11, vgg16, "
        "mobilenet_v2 (default: lenet)",
    )
    parser.add_argument(
        "--epochs", type=_positive_int, metavar="N", help="passes over the training images (default: 20)"
    )
    parser.add_argument("--batch-size", type=_positive_int, metavar="N", help="images per step (default: 32)")
    parser.add_argument(
        "--lr",
        type=_positive_float,
        metavar="F",
        help="highest learning rate of Adam, reached after a tenth of the run (default: 0.003)",
    )
    parser.add_argument(
        "--clip-norm",
        type=_positive_float,
        metavar="F",
        help="scale gradients down to this norm, that of all together, where it is larger (default: never)",
    )
    parser.add_argument("--seed", type=_integer, metavar="N", help="of weights, shuffles and dropout (default: 0)")
    parser.add_argument(
        "--out", default="xpconv-run", metavar="DIR", help="folder for the files written (default: xpconv-run)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out after its last whole epoch, to the very network that it would have given; "
        "options that are not given are those of the run, and --epochs, --backend and --engine may be others",
    )
    _add_settings(parser)


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "predict",
        help="ask a trained network what is on images",
        description="Print the three most probable classes of each image. An image is brought to the size and "
        "channels the network was trained on, its values to those of the training images.",
        epilog="A network trained on 'digits' expects a light digit on a dark ground that fills its 8x8 pixels. "
        "An .npy file holds one image (H, W) or (H, W, C), or several (N, H, W) or (N, H, W, C): integers from "
        "0 to 255, numbers from 0 to 1, or numbers as the training images had. Those of "
        "sklearn.datasets.load_digits() run from 0 to 16: divide by 16.",
        formatter_class=_Wrapped,
    )
    parser.add_argument("model", metavar="MODEL", help="a model.safetensors written by `xpconv train`, or its folder")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a picture file, or an .npy array")
    parser.add_argument("--json", action="store_true", help="one JSON document on the standard output, for machines")
    _add_settings(parser)


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "info",
        help="what is installed here, which engines serve it, and what would make it faster",
        description="Versions, cores, backends, engines, settings in force with their environment variables, advice.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on the standard output, for machines")
    parser.set_defaults(backend=None, engine=None, precision=None)


def _add_parity(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "parity",
        help="whether every op answers rightly on every engine of this machine",
        description="Run every op, forward and gradients, on every backend and engine that is here, in every dtype, "
        "and compare with float64. It is the first thing to run on a new machine, with a GPU above all: it goes on "
        "after a miss or an error, and its exit status is 1 if there was any. Ctrl-C stops early and keeps what was "
        "checked.",
        epilog="columns: calls that the engine took part in (and how many it declined); for each dtype the largest "
        "error of the forward pass and of the gradients, in units of what rounding may do, so that 1 is the most that "
        "is right; 'exact' is what leaves no room: dtypes, shapes, devices, indices, nan, inputs left alone, and the "
        "same bits from run to run under deterministic. 50 training steps are compared with those in float64, "
        "in units of how far rounding errors grow on the way.",
        formatter_class=_Wrapped,
    )
    parser.add_argument("--op", type=_names, metavar="OP,OP", help="these ops alone, without training (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write all figures here")
    group = parser.add_argument_group("where")
    group.add_argument("--backend", metavar="B", help="numpy, cupy, cupy:1, torch, ... (default: each that is here)")
    engines = ", ".join(settings.ENGINES)
    group.add_argument("--engine", metavar="E,E", help=f"these engines alone ({engines}; default: each that may serve)")
    parser.set_defaults(precision=None)


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
        formatter_class=_Wrapped,
    )
    parser.add_argument("--set", type=_names, default=["quick"], metavar="S,S", help="what to time (default: quick)")
    parser.add_argument(
        "--against",
        type=_names,
        metavar="P,P",
        help="torch, torch-graph (its steps under CUDA graphs), jax, im2col (NumPy), launch (a bare CUDA kernel), "
        "engine:E+E (xpconv itself on these engines), or none (default: torch, where it is installed)",
    )
    parser.add_argument("--batch", type=_counts, default=[], metavar="N,N", help="images (default: each row's own)")
    parser.add_argument(
        "--direction",
        type=_names,
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
    parser.add_argument("--rounds", type=_positive_int, default=5, metavar="N", help="turns of each side (default: 5)")
    parser.add_argument(
        "--tries", type=_positive_int, default=3, metavar="N", help="times an unsteady row is measured (default: 3)"
    )
    parser.add_argument("--threads", type=_positive_int, metavar="N", help="of every side (default: all cores)")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of forward and backward")
    parser.add_argument("--json", metavar="FILE", help="write all figures here, after each row")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the rows that the --json file has not; sets come one by one"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the ratios into this PNG")
    parser.add_argument("--emulated", action="store_true", help=argparse.SUPPRESS)  # for the tests' stand-in for CuPy
    parser.add_argument("--show", metavar="FILE", help="measure nothing: print and draw what an earlier run wrote")
    _add_settings(parser)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _counts(text: str) -> list[int]:
    return [_positive_int(part) for part in text.split(",")]


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where and how it is computed")
    group.add_argument(
        "--backend", metavar="B", help="numpy, cupy, cupy:1, torch, ..., or auto: CuPy where a GPU is, else NumPy"
    )
    group.add_argument(
        "--engine",
        metavar="E",
        help=f"auto, or a strict chain such as portable or reference,portable ({', '.join(settings.ENGINES)})",
    )
    group.add_argument("--precision", metavar="P", help="ieee (default) or fast")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, not {text!r}") from None


def _positive_int(text: str) -> int:
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text!r}")
    return value
