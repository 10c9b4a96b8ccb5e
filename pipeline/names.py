"""The names of recipes and flows. Light: Prefect's plugin hook reads it at every start."""

from __future__ import annotations

from pathlib import Path

RECIPES_DIR = Path(__file__).parent / "sites"
BUILD_SHARDS = "build-shards"
RETRY_FAILURES = "retry-failures"


def recipe_names() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.toml"))


def scrape_flow(recipe: str) -> str:
    """The name of the flow, and of the deployment, that scrapes `recipe`."""
    return f"scrape-{recipe}"


def flow_names() -> list[str]:
    """Every flow that `python -m pipeline.serve` serves; each is its deployment's name too."""
    return [*map(scrape_flow, recipe_names()), BUILD_SHARDS, RETRY_FAILURES]
