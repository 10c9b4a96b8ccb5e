"""Names of recipes and flows. Has no heavy imports, because Prefect's plugin hook imports it at
every start."""

from __future__ import annotations

from pathlib import Path

RECIPES_DIR = Path(__file__).parent / "sites"
BUILD_SHARDS = "build-shards"
RETRY_FAILURES = "retry-failures"


def recipe_names() -> list[str]:
    """Return the names of the included recipes."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.toml"))


def scrape_flow(recipe: str) -> str:
    """Return the name of the flow, and of the deployment, that scrapes `recipe`."""
    return f"scrape-{recipe}"


def flow_names() -> list[str]:
    """Return the names of all flows of `python -m pipeline.serve`; the deployments have the same
    names."""
    return [*map(scrape_flow, recipe_names()), BUILD_SHARDS, RETRY_FAILURES]
