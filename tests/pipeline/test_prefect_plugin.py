"""The command line's completion touches our deployments and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.prefect_plugin import complete_deployment_name

PROJECT = Path(__file__).parents[2]
NAMES = {"scrape-shells", "build-shards"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("deployment run scrape-shells", "deployment run scrape-shells/scrape-shells"),
        ("deployment run scrape-shells -w", "deployment run scrape-shells/scrape-shells -w"),
        ("deployment run -w build-shards", "deployment run -w build-shards/build-shards"),
        (
            "deployment run --param recipe=x build-shards",
            "deployment run --param recipe=x build-shards/build-shards",
        ),
        ("deployment run --tag scrape-shells x/y", "deployment run --tag scrape-shells x/y"),
        ("deployment run a/scrape-shells", "deployment run a/scrape-shells"),
        ("deployment run other", "deployment run other"),
        ("deployment ls scrape-shells", "deployment ls scrape-shells"),
        ("deployment run", "deployment run"),
        ("", ""),
    ],
)
def test_completion(words: str, expected: str) -> None:
    assert complete_deployment_name(["prefect", *words.split()], NAMES) == [
        "prefect",
        *expected.split(),
    ]


def test_prefect_in_this_folder_does_not_track() -> None:
    """In a process of its own: the hook runs when Prefect is imported."""
    code = "import prefect, os; print(os.environ.get('DO_NOT_TRACK'))"
    env = {name: value for name, value in os.environ.items() if name != "DO_NOT_TRACK"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=env, capture_output=True, text=True
    )
    assert result.stdout == "1\n", result.stderr
