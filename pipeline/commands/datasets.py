"""The commands that verify, export and import datasets and remove images from them."""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import sys
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.commands.common import Commands, add_command, command, job_from_args, open_job, say
from pipeline.commands.stages import add_variant
from pipeline.contract import DatasetPaths, is_url, listen, page_url, serve_app
from pipeline.crawl.manifest_exchange import export_manifest, import_manifest
from pipeline.errors import UserError
from pipeline.hub import HubRepo
from pipeline.importers.items import ImportOptions
from pipeline.importers.registry import FORMATS as IMPORT_FORMATS
from pipeline.importers.stage import import_dataset
from pipeline.job import check_files
from pipeline.outside_text import decode_text
from pipeline.shards.exports import FORMATS as EXPORT_FORMATS
from pipeline.shards.exports import export
from pipeline.shards.forget import forget
from pipeline.shards.publish import HUB_FORMATS, publish
from pipeline.shards.verify import verify
from pipeline.units import count_of

CURATE_PORT = 8973


def add(commands: Commands) -> None:
    """Add these commands to the parser."""
    check = add_command(commands, "verify", "check every shard, member and count", _verify)
    check.add_argument(
        "--repair", action="store_true", help="rebuild damaged shards from the originals"
    )
    add_variant(check)
    _add_curate(commands)
    gone = add_command(
        commands, "forget", "remove images and rebuild the shards that contain them", _forget
    )
    for option, what in (
        ("--url", "remove the image at this URL"),
        ("--host", "remove all images from this host"),
        ("--license", "remove all images whose licence contains this text"),
        ("--key", "remove the image with this key"),
    ):
        gone.add_argument(option, action="append", default=[], help=what)
    gone.add_argument(
        "--keys-from", type=Path, metavar="FILE", help="a text file with one key per line"
    )
    out = add_command(commands, "export", "write the samples in another tool's format", _export)
    out.add_argument(
        "out", type=Path, nargs="?",
        help="a new folder, or a zip file for nvlabs; not with --hub (default: NAME-FORMAT)",
    )  # fmt: skip
    out.add_argument("--out", type=Path, dest="named_out", metavar="OUT", help="the same as OUT")
    _add_format(
        out, EXPORT_FORMATS, "",
        "default: imagefolder, with --hub huggingface-webdataset (the shards)",
    )  # fmt: skip
    out.add_argument(
        "--hub", metavar="USER/NAME",
        help="upload the export to the Hugging Face Hub as a dataset, with the card; the files "
        "are listed first",
    )  # fmt: skip
    out.add_argument(
        "--public", action="store_true", help="with --hub: a new dataset is public, not private"
    )
    into = add_command(commands, "import", "add images in another tool's format", _import)
    into.add_argument("path", type=_local_path, help="a folder, a zip, a tar, or another file")
    _add_format(into, IMPORT_FORMATS, "", "default: detected from the files")
    into.add_argument(
        "--label",
        default="",
        help="what becomes the label: a column or key; attr:NAME or identity of CelebA",
    )
    into.add_argument("--split", default="", help="import only this part, such as train")
    for name, what, run in (
        ("export-manifest", "write the URL manifest for another downloader", _export_manifest),
        ("import-manifest", "add the rows of another downloader's manifest", _import_manifest),
    ):
        moved = add_command(commands, name, what, run)
        moved.add_argument("file", type=Path, help="a .parquet, .csv or .jsonl file")


def _local_path(text: str) -> Path:
    if is_url(text):
        raise UserError(f"{text}: import reads local files; download it and name the file")
    return Path(text)


def _add_curate(commands: Commands) -> None:
    by_eye = add_command(
        commands, "curate", "open a page to keep and reject images by eye; stop it with Ctrl-C",
        _curate,
    )  # fmt: skip
    by_eye.add_argument(
        "--port", type=int, default=CURATE_PORT,
        help=f"port on this machine (default: {CURATE_PORT}, or a free port if it is in use)",
    )  # fmt: skip
    by_eye.add_argument(
        "--no-network", action="store_true",
        help="compare images by colours and hashes, without computing the network's features",
    )  # fmt: skip
    by_eye.add_argument("--no-browser", action="store_true", help="do not open a browser window")


def _add_format(
    command: argparse.ArgumentParser, formats: Collection[str], default: str, text: str
) -> None:
    """Add `--format`, and its old name `--form`."""
    command.add_argument("--format", choices=formats, default=default, help=text)
    command.add_argument(
        "--form",
        dest="format",
        choices=formats,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def _verify(args: argparse.Namespace) -> int:
    with open_job(args) as (recipe, dataset, log):
        result = verify(recipe, dataset, log, repair=args.repair, variant=args.variant)
        log.emit("verify", "done", **asdict(result))
    for name, why in result.damaged.items():
        say(f"{name}: {why}")
    if result.damaged and not args.repair:
        variant = f" --variant {shlex.quote(args.variant)}" if args.variant else ""
        say(f"to rebuild damaged shards, run: {command(args, 'verify')} --repair{variant}")
    if not result.current:
        say(
            f"{dataset.shard_index}: out of date: the selection, the options or the originals have "
            "changed; run `shard` or `verify --repair`"
        )
    _print(args, asdict(result))
    return 0 if result.is_valid else 1


def _curate(args: argparse.Namespace) -> int:
    # imported here, because other commands need no web server
    from pipeline.curate.curator import Curator
    from pipeline.curate.image_table import load_image_table
    from pipeline.curate.server import HOST, create_app
    from pipeline.curate.thumbnails import lock_thumbnails

    with ExitStack() as stack:
        listener = stack.enter_context(listen(HOST, args.port, CURATE_PORT))
        with open_job(args) as (recipe, dataset, log):
            stack.enter_context(lock_thumbnails(dataset))
            table = load_image_table(recipe, dataset, log, not args.no_network)
        for note in table.notes:
            say(note)
        # The dataset is not locked any more, so that other commands can run beside the page.
        curator, token = Curator(table, dataset), secrets.token_urlsafe(16)
        url = f"{page_url(HOST, listener)}#{token}"
        say(f"{dataset.name}: {url}   (stop with Ctrl-C)", sys.stdout)
        sys.stdout.flush()
        serve_app(create_app(curator, token), listener, url, not args.no_browser)
    if curator.recorded and dataset.store:
        _upload_decisions(args, dataset)
    _print(args, {"recorded": curator.recorded})
    if curator.recorded:
        todo = " && ".join(command(args, name) for name in ("select", "shard"))
        new = count_of(curator.recorded, "new line")
        say(f"{new} in {dataset.curation}; to use what you decided, run: {todo}")
    return 0


def _upload_decisions(args: argparse.Namespace, dataset: DatasetPaths) -> None:
    """Upload what was decided, so that other machines obey it."""
    try:
        with open_job(args):
            pass
    except UserError as error:
        say(f"{dataset.curation}: not in the store yet ({error}); the next stage uploads it")


def _forget(args: argparse.Namespace) -> int:
    keys = list(args.key)
    if args.keys_from is not None:
        try:
            keys += decode_text(args.keys_from.read_bytes(), "strict").split()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"{args.keys_from}: cannot be read as a list of keys ({why})") from None
    with open_job(args) as (recipe, dataset, log):
        result = forget(
            recipe, dataset, log, urls=args.url, hosts=args.host, licenses=args.license, keys=keys
        )
        log.emit("forget", "done", **asdict(result))
    _print(args, asdict(result))
    if result.pending:
        todo = f"run {command(args, 'download')}, then `forget` again"
        say(f"{count_of(result.pending, 'image')} in parts that are not complete yet; {todo}")
    return 1 if result.pending else 0


def _export(args: argparse.Namespace) -> int:
    if args.out and args.named_out:
        raise UserError(f"export: two outputs, {args.out} and {args.named_out}; give one")
    out = args.out or args.named_out
    repo = HubRepo(args.hub, "dataset", args.public) if args.hub else None
    if args.public and not repo:
        raise UserError("--public: only with --hub")
    if out and repo:
        raise UserError("export: give either a folder for the export or --hub")
    with open_job(args) as (_recipe, dataset, log):
        if repo:
            form = args.format or HUB_FORMATS[0]
            result = publish(dataset, form, repo, log, say)
        else:
            form = args.format or "imagefolder"
            result = export(dataset, form, out or Path(f"{dataset.name}-{form}"), log)
        log.emit("export", "done", **asdict(result))
    return 0


def _import(args: argparse.Namespace) -> int:
    with open_job(args) as (recipe, dataset, log):
        result = import_dataset(
            args.path,
            dataset,
            log,
            args.format,
            recipe,
            ImportOptions(args.label, args.split),
            lambda found: None if args.quiet else say(f"{args.path}: {found}"),
        )
        log.emit("import", "done", **asdict(result))
    _print(args, asdict(result))
    if result.images and not args.quiet:
        todo = " && ".join(command(args, name) for name in ("select", "shard"))
        say(f"{count_of(result.images, 'new image')} not in the shards yet; run: {todo}")
    if result.failed:
        say(
            f"could not import {count_of(result.failed, 'file')}; "
            f"the reasons are in {dataset.failure_log}"
        )
    if result.failed_before:
        say(
            f"not read again, because an earlier import failed to: "
            f"{count_of(result.failed_before, 'image')}; the reasons are in {dataset.failure_log}"
        )
    if result.pending:
        say(
            f"{count_of(result.pending, 'image')} in parts that an interrupted import or download "
            "left incomplete; run that again, or, if its source no longer has all of them, run: "
            f"{command(args, 'download')} (which records the others as failed)"
        )
    return 1 if result.failed else 0


_READ_AS = ("latin_1", "utf_16", "utf_32")
_KEPT = {
    "not_utf8": "not_utf8 (kept, with U+FFFD)",
    "bad_boxes": "bad_boxes (kept without boxes)",
    "latin_1": "latin_1 (not UTF-8; read as Latin-1)",
    "utf_16": "utf_16 (read as UTF-16)",
    "utf_32": "utf_32 (read as UTF-32)",
}
"""Descriptions of what is kept."""


def _export_manifest(args: argparse.Namespace) -> int:
    dataset = job_from_args(args, reads=True).dataset
    check_files(dataset)
    count = export_manifest(dataset, args.file)
    say(f"{count_of(count, 'row')} in {args.file}", sys.stdout)
    return 0


def _import_manifest(args: argparse.Namespace) -> int:
    with open_job(args) as (_recipe, dataset, _log):
        added = import_manifest(dataset, args.file)
    say(f"{added.added:,} of {added.read:,} rows are new in {dataset.url_manifest}", sys.stdout)
    for reason, count in added.skipped.items():
        example = added.examples.get(reason)
        first = f", first {example}" if example else ""
        what = _KEPT.get(reason, f"skipped: {reason}")
        say(f"{what} {count:,}{first}", sys.stdout)
    return 1 if added.skipped.keys() - {"known", *_READ_AS} else 0


def _print(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(result))
