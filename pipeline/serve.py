"""`python -m pipeline.serve`: register the deployments and serve them until interrupted.

The deployments are `build-shards`, `retry-failures` and one `scrape-NAME` per recipe in
pipeline/sites/. Flow and deployment have the same name: the full name of a deployment is
`scrape-shells/scrape-shells`, and the short name works in this folder (see prefect_plugin.py).
`--runner`, `--workers` and `--runner-address` are the default parameters of the runs.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, get_args

import httpx
from prefect import Flow, serve
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType

from pipeline.errors import UserError
from pipeline.exit import CommandParser
from pipeline.flows import build_shards, retry_failures, scrape
from pipeline.names import recipe_names, scrape_flow
from pipeline.runners import ADDRESS_VARIABLE, RunnerName, resolve_runner


def main(argv: list[str] | None = None) -> int:
    """Serve all deployments and return the exit status."""
    args = _parse(argv)
    url = PREFECT_API_URL.value()
    if not url:
        return _refuse("PREFECT_API_URL is not set: run this in the folder of prefect.toml")
    try:
        httpx.get(f"{url}/health", timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        return _refuse(f"{url}: the Prefect server does not respond ({error}); run: make serve")
    try:
        resolve_runner(args.runner, args.workers, args.runner_address)
    except UserError as error:
        return _refuse(str(error))
    shared = {name: value for name, value in vars(args).items() if value is not None}
    deployments = [
        _deployment(scrape.with_options(name=scrape_flow(recipe)), {"recipe": recipe, **shared})
        for recipe in recipe_names()
    ]
    deployments += [_deployment(flow, shared) for flow in (build_shards, retry_failures)]
    serve(*deployments, pause_on_shutdown=False, print_starting_message=False)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        prog="python -m pipeline.serve",
        description="Register the deployments with the Prefect server and serve them.",
    )
    parser.add_argument(
        "--runner",
        choices=get_args(RunnerName),
        default="local",
        help="task runner for download and shard (default: local, in the process of the run)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="number of parallel tasks (default: all cores)"
    )
    parser.add_argument(
        "--runner-address",
        metavar="URL",
        help=f"address of the Dask scheduler or Ray cluster (default: {ADDRESS_VARIABLE}; if that "
        "is not set, a cluster is started on this machine)",
    )
    return parser.parse_args(argv)


def _deployment(flow: Flow[..., Any], parameters: dict[str, Any]) -> RunnerDeployment:
    """Return the deployment of `flow`, under the flow's own name."""
    # With a file path, Prefect would put this folder on sys.path, where `select` shadows the
    # standard library's module.
    deployment = flow.to_deployment(
        name=flow.name, parameters=parameters, entrypoint_type=EntrypointType.MODULE_PATH
    )
    assert isinstance(deployment, RunnerDeployment)  # not a coroutine: no event loop is running
    return deployment


def _refuse(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
