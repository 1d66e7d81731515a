"""Every option of every subcommand but `bench`, with its help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from xpconv import __version__, settings
from xpconv.cli.bench_options import add_bench
from xpconv.cli.option_kinds import Wrapped, add_settings, integer, names, positive_float, positive_int

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
        formatter_class=Wrapped,
    )
    whole.add_argument("--version", action="version", version=f"xpconv {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    _add_train(commands)
    _add_predict(commands)
    _add_info(commands)
    _add_parity(commands)
    add_bench(commands)
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
        formatter_class=Wrapped,
    )
    parser.add_argument(
        "--data",
        metavar="digits|PATH",
        help="'digits' (1797 handwritten digits of 8x8 pixels, shipped with scikit-learn); or an .npz file, a folder "
        "of IDX files (MNIST and its family, .gz too), or a folder with one sub-folder of images per class "
        "(default: digits)",
    )
    parser.add_argument(
        "--image-size", type=positive_int, metavar="N", help="bring the image files of a folder to N x N pixels"
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="lenet, resnet20, and for larger images resnet18, resnet34, resnet50, resnet101, vgg11, vgg16, "
        "mobilenet_v2 (default: lenet)",
    )
    parser.add_argument(
        "--epochs", type=positive_int, metavar="N", help="passes over the training images (default: 20)"
    )
    parser.add_argument("--batch-size", type=positive_int, metavar="N", help="images per step (default: 32)")
    parser.add_argument(
        "--lr",
        type=positive_float,
        metavar="F",
        help="highest learning rate of Adam, reached after a tenth of the run (default: 0.003)",
    )
    parser.add_argument(
        "--clip-norm",
        type=positive_float,
        metavar="F",
        help="scale gradients down to this norm, that of all together, where it is larger (default: never)",
    )
    parser.add_argument("--seed", type=integer, metavar="N", help="of weights, shuffles and dropout (default: 0)")
    parser.add_argument(
        "--out", default="xpconv-run", metavar="DIR", help="folder for the files written (default: xpconv-run)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out after its last whole epoch, to the very network that it would have given; "
        "options that are not given are those of the run, and --epochs, --backend and --engine may be others",
    )
    add_settings(parser)


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
        formatter_class=Wrapped,
    )
    parser.add_argument("model", metavar="MODEL", help="a model.safetensors written by `xpconv train`, or its folder")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a picture file, or an .npy array")
    parser.add_argument("--json", action="store_true", help="one JSON document on the standard output, for machines")
    add_settings(parser)


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
        formatter_class=Wrapped,
    )
    parser.add_argument("--op", type=names, metavar="OP,OP", help="these ops alone, without training (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write all figures here")
    group = parser.add_argument_group("where")
    group.add_argument("--backend", metavar="B", help="numpy, cupy, cupy:1, torch, ... (default: each that is here)")
    engines = ", ".join(settings.ENGINES)
    group.add_argument("--engine", metavar="E,E", help=f"these engines alone ({engines}; default: each that may serve)")
    parser.set_defaults(precision=None)
