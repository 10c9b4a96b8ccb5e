"""`python -m training.probe RUN`: how well a run's discriminator serves as a classifier."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.contract import CommandParser, UserError, exit_status
from training.latent.command import add_seed, number, whole

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
        "--labels", type=whole("--labels", 0, MOST), default=0,
        help="how many to teach (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--n", type=whole("--n", 10, MOST), default=5000, help="images to use (default 5000)"
    )
    parser.add_argument(
        "--held-out", type=number("--held-out", 0.001, 0.999), default=0.2,
        help="share (default 0.2)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=whole("--steps", 0, MOST), default=300,
        help="of training whole networks; 0: linear only",
    )  # fmt: skip
    add_seed(parser, "of what is drawn")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--json", action="store_true", help="a JSON object as the last line")
    return exit_status(lambda: probe(parser.parse_args(arguments)), "interrupted")


def probe(known: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        UserError: the run or the shards do not serve.
    """
    found = measure(known)
    show(found)
    if known.json:
        print(json.dumps(found))


def measure(known: argparse.Namespace) -> dict[str, Any]:
    """Held-out accuracies by the names of `ROWS`, and the numbers of images they come from.

    Raises:
        UserError: the run or the shards do not serve.
    """
    import torch

    from training.data import open_source
    from training.evaluation import transfer
    from training.machine.device import choose_device
    from training.runs import find_run, read_config

    judge, config = transfer.load_judge(known.run, choose_device(known.device), known.seed)
    dataset = read_config(find_run(known.run))["dataset"]
    source = open_source(known.shards or dataset["location"], dataset["height"])
    if (source.width, source.channels) != (dataset["width"], dataset["channels"]):
        raise UserError(f"{known.shards}: other width or channels than the run's images")
    samples, shown = transfer.read_all(source, config, known.n)
    if config.data.labelled and not known.shards:  # teach what the run was taught, hold out others
        taught, others = samples.take(shown), samples.take(~shown)
        held = transfer.split(others, known.held_out, known.seed)[1]
    else:
        taught, held = transfer.split(samples, known.held_out, known.seed)
    if known.labels:
        taught = taught.take(torch.arange(min(known.labels, len(taught.labels))))
    if len(taught.labels) < 5:
        raise UserError("--labels: at least 5 images to teach")
    classes = source.classes
    commonest = int(torch.bincount(taught.labels, minlength=classes).argmax())
    found: dict[str, Any] = {
        "taught": len(taught.labels),
        "held_out": len(held.labels),
        "saw_labels": judge.saw_labels,
        "majority": float((held.labels == commonest).float().mean()),
    }
    if judge.names_labels:
        found["own_head"] = transfer.head_accuracy(judge.trained, held)
    for name, network in (("fresh", judge.fresh), ("trained", judge.trained)):
        found[f"linear_{name}"] = transfer.linear_probe(network, taught, held, classes)
        if known.steps:
            print(f"training the whole network, {name}", file=sys.stderr)
            found[f"whole_{name}"] = transfer.whole_probe(
                network, taught, held, classes, known.steps, known.seed,
                lambda text: print(text, file=sys.stderr),
            )  # fmt: skip
    return found


def show(found: dict[str, Any]) -> None:
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
