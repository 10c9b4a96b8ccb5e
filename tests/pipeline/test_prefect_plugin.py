"""The command line's completion touches our deployments and nothing else."""

import pytest

from pipeline.prefect_plugin import completed

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
    assert completed(["prefect", *words.split()], NAMES) == ["prefect", *expected.split()]
