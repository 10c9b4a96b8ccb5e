"""Writes docs/results.md: three datasets from a web address to pictures of a generator and a page.

    python benchmarks/results.py --out /tmp/results --photographs tops256 --minutes 60

Every run is trained on one CPU thread for `--minutes` of CPU time (those of the failures for 0.18
of it), so all of it takes ten times that, and half an hour for data and pictures: the script says
how much is left. It can be stopped at any time and continues there; with more minutes, it continues
all runs. `--page` only writes the page and its pictures, of the runs that exist.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import results_pictures as pictures
import torch
from results_datasets import PORTS, build, status
from results_runs import ALL, COLLAPSE, COMPARED, VANISHING, Training, run_training, seconds
from results_text import DATASETS, HEAD, SEEN, TAIL

from pipeline.contract import format_bytes, format_duration, write_atomic
from training.pretrained.inference import load_generator

DOCS = Path(__file__).parents[1] / "docs"
PRICE = 0.475
"""Per hour: the price of a rented GPU in the diary."""
SHOWN = {"shells": "shells-shells64", "garments": "garments-shells64", "prints": "prints-shells64"}
"""The run whose images over time, interpolations and projections are shown."""


class Page:
    """The page and its pictures, of what exists below `out`."""

    def __init__(self, out: Path, steps: int) -> None:
        self.out, self.steps = out, steps
        self.folder = DOCS / "pictures/results"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lines: list[str] = []

    def run(self, name: str) -> Path:
        return self.out / "runs" / name / "run"

    def exists(self, name: str) -> bool:
        return any((self.run(name) / "checkpoints").glob("*.json"))

    def image(self, name: str, alt: str, suffix: str = "jpg") -> tuple[Path, str]:
        """Return the file of a picture, and its Markdown."""
        return self.folder / f"{name}.{suffix}", f"![{alt}](pictures/results/{name}.{suffix})"

    def add(self, *lines: str) -> None:
        self.lines += [*lines, ""]

    def facts(self, one: Training) -> str:
        """Return the length of a run and what it costs, in words."""
        spent = seconds(one.name, self.out)
        seen = load_generator(str(self.run(one.name)), torch.device("cpu")).seen
        return f"{seen / 1000:.1f} kimg in {spent / 60:.1f} CPU minutes"

    def seen(self, name: str) -> str:
        """Return what was seen by eye, if the run has not been continued since."""
        run = next(one.name for one in ALL if name.startswith(one.name))
        spent = seconds(run, self.out)
        found = (texts.get(name) for after, texts in SEEN.items() if abs(spent - after) < 10)
        return "".join(f" {text}" for text in found if text)

    def dataset(self, name: str) -> None:
        """The section of a dataset: its counts, card and trainings."""
        manifest = self.out / "manifests" / name
        if not (manifest / "shards.json").exists():
            return
        found, index = status(name, self.out), json.loads((manifest / "shards.json").read_text())
        self.add(f"## {DATASETS[name][0]}", "", DATASETS[name][1])
        failed = ", ".join(f"{kind} {count}" for kind, count in sorted(found.failed.items()))
        rejected = ", ".join(f"{kind} {count}" for kind, count in sorted(found.rejected.items()))
        self.add(
            "| stage | result |", "| --- | --- |",
            f"| crawl | {sum(found.pages.values()):,} pages, {found.urls:,} image URLs |",
            f"| download | {found.images:,} images, {format_bytes(found.bytes)} |",
            f"| failures of both | {failed or 'none'} |",
            f"| select | {found.kept:,} kept; rejected: {rejected or 'none'} |",
            f"| shard | {found.samples:,} samples in {found.shards} shards, "
            f"{format_bytes(found.shard_bytes)} |",
            f"| dataset card | {index['resolution'][0]} px, {index['channels']} channels, "
            f"{len(index['labels'])} labels: {', '.join(index['labels'])} |",
        )  # fmt: skip
        path, shown = self.image(f"{name}-real", f"training images of {name}")
        pictures.training_images(manifest, path)
        self.add(shown, "", "*Training images.*")
        runs = [one for one in COMPARED if one.dataset == name and self.exists(one.name)]
        self.table(runs)
        for one in runs:
            path, shown = self.image(f"{one.name}-losses", f"losses of {one.name}", "svg")
            pictures.losses(self.run(one.name), path)
            self.add(
                f"**{one.title}**, {self.facts(one)}: losses, and the outputs of D.", "", shown
            )
        if self.exists(SHOWN[name]):
            self.of_run(name, SHOWN[name])

    def table(self, runs: list[Training]) -> None:
        """Samples of several runs side by side."""
        if not runs:
            return
        cells = []
        for one in runs:
            path, shown = self.image(f"{one.name}-samples", f"samples of {one.name}")
            pictures.samples(one.name, self.out, path)
            cells.append(f"{shown}<br>{one.title}: {self.facts(one)}.{self.seen(one.name)}")
        for start in range(0, len(cells), 3):
            some = cells[start : start + 3]
            self.add(
                f"| {' | '.join(['&nbsp;'] * len(some))} |", "|" + " --- |" * len(some),
                f"| {' | '.join(some)} |",
            )  # fmt: skip

    def of_run(self, dataset: str, name: str) -> None:
        """Images of one run: over time, interpolations, neighbours, projections."""
        manifest, title = self.out / "manifests" / dataset, name.partition("-")[2]
        captions = {
            "film": "The same eight latents over time, one row per time.",
            "interpolations": "Interpolations, one per row.",
            "nearest": "Samples (left), and the nearest training images by pixels.",
            "projections": f"Training images (above), and the nearest that the generator makes "
            f"(below): {self.steps} steps of projection by pixels.",
        }
        for kind, caption in captions.items():
            path, shown = self.image(f"{name}-{kind}", f"{kind} of {name}")
            if kind == "film":
                pictures.film(self.run(name), path)
            elif kind == "interpolations":
                pictures.interpolations(name, self.out, path)
            elif kind == "nearest":
                pictures.nearest(name, manifest, self.out, path)
            else:
                pictures.projections(name, manifest, self.out, path, self.steps)
            self.add(shown, "", f"*`{title}`: {caption}{self.seen(f'{name}-{kind}')}*")
        self.static_page(name)

    def static_page(self, name: str) -> None:
        """Export the generator as a page for a browser."""
        folder = self.out / "pages" / name
        if not (folder / "index.html").exists():
            words = ["-m", "training.export", str(self.run(name)), "--static", "--out", str(folder)]
            log = (self.out / "export.log").open("a")
            if subprocess.run([sys.executable, *words], stdout=log, stderr=log).returncode:
                self.add("*The page could not be exported: it needs `shellgan[export]`.*")
                return
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.add(
            f"`python -m training.export RUN --static` wrote the web page of this generator: "
            f"{format_bytes(size)}, which any web host can serve."
        )

    def failure(self, title: str, kind: str, text: str, runs: tuple[Training, ...]) -> None:
        """The section of a failure, provoked and cured."""
        some = [one for one in runs if self.exists(one.name)]
        if not some:
            return
        self.add(f"### {title}", "", text)
        path, shown = self.image(kind, f"curves of {kind}", "svg")
        labels = {f"{one.name.partition('-')[2]}": self.run(one.name) for one in some}
        pictures.failures(labels, path, kind)
        self.add(shown)
        self.table(some)

    def write(self) -> None:
        """Write the page."""
        spent = sum(seconds(one.name, self.out) for one in ALL) / 3600
        self.lines = [HEAD]
        for name in PORTS:
            self.dataset(name)
        self.add("## Failures, provoked and cured")
        self.failure("Vanishing gradients", "vanishing", DATASETS["vanishing"][1], VANISHING)
        self.failure("Mode collapse", "collapse", DATASETS["collapse"][1], COLLAPSE)
        self.add(
            "## Cost", "",
            f"All trainings of this page took {spent:.2f} hours of one CPU thread. At {PRICE} per "
            f"hour, the price of a rented GPU in the diary, that would be {spent * PRICE:.2f}; the "
            f"diary's 14 hours of StyleGAN2 were {14 * PRICE:.2f}.",
        )  # fmt: skip
        write_atomic(DOCS / "results.md", "\n".join(self.lines) + TAIL)


def main() -> int:
    """Build the datasets, train, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="data and runs are kept there")
    parser.add_argument("--photographs", type=Path, help="a folder LABEL/IMAGE.jpg")
    parser.add_argument("--minutes", type=float, default=60, help="CPU time of each run")
    parser.add_argument("--steps", type=int, default=200, help="of each projection")
    parser.add_argument("--page", action="store_true", help="only write the page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shards = {}
    if not args.page:
        for name in PORTS:
            shards[name] = build(name, args.out, args.photographs)
        for number, one in enumerate(ALL):
            left = sum(
                max(0.0, args.minutes * 60 * other.share - seconds(other.name, args.out))
                for other in ALL[number:]
            )
            print(f"{one.name}: about {format_duration(left)} of CPU time left", flush=True)
            run_training(one, shards[one.dataset], args.out, args.minutes)
    Page(args.out, args.steps).write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
