"""`python -m training.probe RUN`: how well a run's discriminator serves as a classifier."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.contract import CommandParser, UserError, exit_status
from training.latent.cli import add_seed, float_in_range, int_in_range

MOST = 1_000_000_000
ROWS = {
    "majority": "always the commonest label",
    "linear_fresh": "linear, on fresh features",
    "linear_trained": "linear, on the run's features",
    "whole_fresh": "whole network from scratch",
    "whole_trained": "whole network from the run",
    "own_head": "the run's own semi-supervised head",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    parser = CommandParser(
        prog="python -m training.probe",
        description="Teach the labels to a run's discriminator, and to the same network with "
        "fresh weights, and compare them on held-out images.",
    )
    parser.add_argument("run", metavar="RUN", help="name under runs/, or a folder")
    parser.add_argument("--shards", help="labelled shards (default: those of the run)")
    parser.add_argument(
        "--labels", type=int_in_range("--labels", 0, MOST), default=0,
        help="how many to teach (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--n", type=int_in_range("--n", 10, MOST), default=5000, help="images to use (default 5000)"
    )
    parser.add_argument(
        "--held-out", type=float_in_range("--held-out", 0.001, 0.999), default=0.2,
        help="share (default 0.2)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int_in_range("--steps", 0, MOST), default=300,
        help="of training whole networks; 0: linear only",
    )  # fmt: skip
    add_seed(parser, "of what is drawn")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--json", action="store_true", help="a JSON object as the last line")
    return exit_status(lambda: probe(parser.parse_args(arguments)), "interrupted")


def probe(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        UserError: the run or the shards do not serve.
    """
    found = run_probe(args)
    print_accuracies(found)
    if args.json:
        print(json.dumps(found))


def run_probe(args: argparse.Namespace) -> dict[str, Any]:
    """Held-out accuracies by the names of `ROWS`, and the numbers of images they come from.

    Raises:
        UserError: the run or the shards do not serve.
    """
    import torch

    from training.data import open_shard_dataset
    from training.evaluation import probing as transfer
    from training.machine.device import choose_device
    from training.runs import find_run, read_config

    discriminator, config = transfer.load_discriminators(
        args.run, choose_device(args.device), args.seed
    )
    dataset = read_config(find_run(args.run))["dataset"]
    source = open_shard_dataset(args.shards or dataset["location"], dataset["height"])
    if (source.width, source.channels) != (dataset["width"], dataset["channels"]):
        raise UserError(f"{args.shards}: other width or channels than the run's images")
    samples, shown = transfer.read_all(source, config, args.n)
    if config.data.labelled and not args.shards:  # teach what the run was taught, hold out others
        taught, others = samples.take(shown), samples.take(~shown)
        held = transfer.split(others, args.held_out, args.seed)[1]
    else:
        taught, held = transfer.split(samples, args.held_out, args.seed)
    if args.labels:
        taught = taught.take(torch.arange(min(args.labels, len(taught.labels))))
    if len(taught.labels) < 5:
        raise UserError("--labels: at least 5 images to teach")
    classes = source.classes
    commonest = int(torch.bincount(taught.labels, minlength=classes).argmax())
    found: dict[str, Any] = {
        "taught": len(taught.labels),
        "held_out": len(held.labels),
        "saw_labels": discriminator.trained_with_labels,
        "majority": float((held.labels == commonest).float().mean()),
    }
    if discriminator.has_label_head:
        found["own_head"] = transfer.head_accuracy(discriminator.trained, held)
    for name, network in (("fresh", discriminator.fresh), ("trained", discriminator.trained)):
        found[f"linear_{name}"] = transfer.linear_probe(network, taught, held, classes)
        if args.steps:
            print(f"training the whole network, {name}", file=sys.stderr)
            found[f"whole_{name}"] = transfer.finetune_probe(
                network, taught, held, classes, args.steps, args.seed,
                lambda text: print(text, file=sys.stderr),
            )  # fmt: skip
    return found


def print_accuracies(found: dict[str, Any]) -> None:
    """Print the accuracies with their standard errors."""
    print(f"taught {found['taught']} images, held out {found['held_out']}")
    for name, words in ROWS.items():
        if name in found:
            value = found[name]
            error = (value * (1 - value) / found["held_out"]) ** 0.5
            print(f"  {words:<32}{value:6.3f} ± {error:.3f}")
    if found["saw_labels"]:
        print("the run was trained with labels, also those of the held-out images: the figures of")
        print("its features say what it kept of them, not what it found by itself")


if __name__ == "__main__":
    sys.exit(main())
