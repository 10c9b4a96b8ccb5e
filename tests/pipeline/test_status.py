"""The screen of `status`, to the letter."""

from __future__ import annotations

from pipeline.status import Status, format_status


def test_an_empty_dataset() -> None:
    assert format_status(Status("mine")) == (
        "dataset   mine\n"
        "pages     none yet\n"
        "URLs      0\n"
        "images    0 of 0 attempted, 0 B\n"
        "failed    none\n"
        "kept      0\n"
        "rejected  none\n"
        "shards    0 with 0 samples, 0 B"
    )


def test_a_dataset_at_work_with_failures() -> None:
    status = Status(
        "mine", pages={"new": 2, "held": 1500, "done": 3}, urls=4000, images=1000, attempted=1010,
        bytes=3_000_000, rate=10.0, failed={"timeout": 3, "internal": 1, "opt_out": 6},
        opt_outs={"robots": 4, "noai": 2}, retryable=3, kept=900, rejected={"small": 1100},
        shards=2, samples=900, shard_bytes=2_000_000, damaged=("shards.json: cut off",),
        failure_log="logs/mine/failures.jsonl",
    )  # fmt: skip
    assert format_status(status) == (
        "dataset   mine\n"
        "pages     3 done, 1,500 fetched, 2 queued\n"
        "URLs      4,000\n"
        "images    1,000 of 1,010 attempted, 3.0 MB\n"
        "speed     10.0 images/s, 4:59 left\n"
        "failed    10: internal 1, opt_out 6, timeout 3; 3 retryable\n"
        "opt-outs  6: noai 2, robots 4\n"
        "internal  1 error of this program; the tracebacks are in logs/mine/failures.jsonl "
        "(kind internal)\n"
        "kept      900\n"
        "rejected  1,100: small 1,100\n"
        "shards    2 with 900 samples, 2.0 MB\n"
        "damaged   shards.json: cut off"
    )
