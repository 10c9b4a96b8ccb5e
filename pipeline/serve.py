"""`python -m pipeline.serve`: register the deployments and serve them until interrupted.

One `scrape-NAME` for each recipe in pipeline/sites/, `build-shards` and `retry-failures`; the
flow has its deployment's name, so `prefect deployment run scrape-shells/scrape-shells` is the
canonical form and the bare name works in this folder (see prefect_plugin.py).
"""

from __future__ import annotations

import sys
from typing import Any

import httpx
from prefect import Flow, serve
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType

from pipeline.flows import build_shards, retry_failures, scrape
from pipeline.names import recipe_names, scrape_flow


def main() -> int:
    """Serve every deployment; returns the exit status."""
    url = PREFECT_API_URL.value()
    if not url:
        return _refuse("no Prefect server is set: run this in the folder of prefect.toml")
    try:
        httpx.get(f"{url}/health", timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        return _refuse(f"{url}: no Prefect server answers ({error}); start one: make serve")
    deployments = [
        _deployment(scrape.with_options(name=scrape_flow(recipe)), {"recipe": recipe})
        for recipe in recipe_names()
    ]
    deployments += [_deployment(build_shards), _deployment(retry_failures)]
    serve(*deployments, pause_on_shutdown=False, print_starting_message=False)
    return 0


def _deployment(flow: Flow[..., Any], parameters: dict[str, Any] | None = None) -> RunnerDeployment:
    """The deployment of `flow`, under the flow's own name."""
    # By module path: by file path Prefect would put this folder itself on sys.path, and our
    # http.py in the place of the standard library's.
    made = flow.to_deployment(
        name=flow.name, parameters=parameters, entrypoint_type=EntrypointType.MODULE_PATH
    )
    assert isinstance(made, RunnerDeployment)  # not a coroutine: there is no event loop here
    return made


def _refuse(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
