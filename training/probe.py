"""`python -m training.probe RUN`: test the features of a run's discriminator as a classifier."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.contract import CommandParser, UserError, count_of, exit_status
from training.latent.cli import add_alias, add_device, add_seed, float_in_range, int_in_range

MOST = 1_000_000_000
ROWS = {
    "majority": "most frequent label",
    "linear_fresh": "linear, untrained features",
    "linear_trained": "linear, the run's features",
    "whole_fresh": "full network, from scratch",
    "whole_trained": "full network, from the run",
    "own_head": "the run's semi-supervised head",
    "own_classifier": "the run's classifier",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    parser = CommandParser(
        prog="python -m training.probe",
        description="Train classifiers on the features of a run's discriminator and on those of "
        "the same network with random weights, and compare their accuracy on held-out images.",
    )
    parser.add_argument("run", metavar="RUN", help="name under runs/, or a folder")
    parser.add_argument("--shards", help="labelled shards (default: the run's shards)")
    parser.add_argument(
        "--num-labels", type=int_in_range("--num-labels", 0, MOST), default=0, metavar="N",
        help="number of labelled images to train on (default: all)",
    )  # fmt: skip
    add_alias(parser, "--labels", "--num-labels", type=int_in_range("--labels", 0, MOST))
    parser.add_argument(
        "--n", type=int_in_range("--n", 10, MOST), default=5000, metavar="N",
        help="number of images to use (default: 5000)",
    )  # fmt: skip
    parser.add_argument(
        "--held-out", type=float_in_range("--held-out", 0.001, 0.999), default=0.2, metavar="X",
        help="fraction of the images to test on (default: 0.2)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int_in_range("--steps", 0, MOST), default=300, metavar="N",
        help="steps of fine-tuning the full network; 0: linear classifiers only (default: 300)",
    )  # fmt: skip
    add_seed(parser, "the split and the batches")
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    return exit_status(lambda: probe(parser.parse_args(arguments)), "interrupted")


def probe(args: argparse.Namespace) -> None:
    """Run the probe and print the accuracies.

    Raises:
        UserError: the run or the shards cannot be used.
    """
    found = run_probe(args)
    print_accuracies(found)
    if args.json:
        print(json.dumps(found))


def run_probe(args: argparse.Namespace) -> dict[str, Any]:
    """Return held-out accuracies by the names of `ROWS`, and the numbers of images.

    Raises:
        UserError: the run or the shards cannot be used.
    """
    import torch

    from training.evaluation import probing
    from training.image_shape import ImageShape
    from training.machine.device import choose_device
    from training.runs import find_run, read_config
    from training.streaming.dataset import open_shard_dataset

    discriminator, config = probing.load_discriminators(
        args.run, choose_device(args.device), args.seed
    )
    dataset = read_config(find_run(args.run))["dataset"]
    shape = ImageShape(dataset["height"], dataset["width"], dataset["channels"])
    location = args.shards or dataset["location"]
    source = open_shard_dataset(location, shape.height, config.data, shape, dataset["clusters"])
    samples, shown = probing.read_all(source, config, args.n)
    if config.data.labelled and not args.shards:  # train on the labels that the run saw
        train, others = samples.take(shown), samples.take(~shown)
        test = probing.split(others, args.held_out, args.seed)[1]
    else:
        train, test = probing.split(samples, args.held_out, args.seed)
    if args.num_labels:
        train = train.take(torch.arange(min(args.num_labels, len(train.labels))))
    if len(train.labels) < 5:
        raise UserError("--num-labels: at least 5 labelled images are needed")
    if not len(test.labels):
        raise UserError(
            "--n: no image is left whose label the run did not see; give a larger number, or other "
            "images with --shards"
        )
    classes = source.classes
    most_frequent = int(torch.bincount(train.labels, minlength=classes).argmax())
    found: dict[str, Any] = {
        "taught": len(train.labels),
        "held_out": len(test.labels),
        "saw_labels": discriminator.trained_with_labels,
        "majority": float((test.labels == most_frequent).float().mean()),
    }
    if discriminator.has_label_head:
        found["own_head"] = probing.head_accuracy(discriminator.trained, test)
    if discriminator.classifier is not None:
        found["own_classifier"] = probing.classifier_accuracy(discriminator.classifier, test)
    for name, network in (("fresh", discriminator.fresh), ("trained", discriminator.trained)):
        found[f"linear_{name}"] = probing.linear_probe(network, train, test, classes)
        if args.steps:
            print(f"fine-tuning the full network ({name} weights)", file=sys.stderr)
            found[f"whole_{name}"] = probing.finetune_probe(
                network, train, test, classes, args.steps, args.seed,
                lambda text: print(text, file=sys.stderr),
            )  # fmt: skip
    return found


def print_accuracies(found: dict[str, Any]) -> None:
    """Print the accuracies with their standard errors."""
    print(f"trained on {count_of(found['taught'], 'image')}, tested on {found['held_out']}")
    for name, words in ROWS.items():
        if name in found:
            value = found[name]
            error = (value * (1 - value) / found["held_out"]) ** 0.5
            print(f"  {words:<32}{value:6.3f} ± {error:.3f}")
    if found["saw_labels"]:
        print("the run was trained with the labels, including those of the held-out images: the")
        print("accuracies of its features do not measure unsupervised learning")


if __name__ == "__main__":
    sys.exit(main())
