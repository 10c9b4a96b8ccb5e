"""Download from a URL with resumption after connection errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from pipeline.contract import UserError
from training.streaming.http_ranges import (
    MIN_SPEED,
    BeyondEnd,
    http_range,
    not_too_slow,
    read_body,
)
from training.streaming.schemes import (
    ATTEMPTS,
    HTTP,
    ConnectionDropped,
    check_scheme,
    file_system,
    from_store,
    given_up,
)
from training.streaming.shards import DamagedShard

_VALIDATORS = ("ETag", "Last-Modified")


class FetchCancelled(Exception):
    """The bytes are no longer needed."""


def fetch(
    url: str, size: int, write: Callable[[bytes], object], timeout: float, stop: threading.Event,
    on_retry: Callable[[str], object] = str,
) -> None:  # fmt: skip
    """Pass the first `size` bytes at `url` to `write`, in order.

    Args:
        timeout: seconds without a response, or with hardly any bytes, until a connection counts as
            lost.
        stop: cancels the fetch with `FetchCancelled` between two chunks.
        on_retry: takes the reason of each lost connection.

    Raises:
        UserError: the URL does not exist, is not readable, or gave nothing `ATTEMPTS` times in a
            row; the message names it.
        DamagedShard: the URL has fewer bytes than `size`, or changed between two connections.
    """
    validators: dict[str, str] = {}
    read = _http if check_scheme(url) in HTTP else _store
    have = failures = 0
    while have < size:
        before, short = have, False
        try:
            for chunk in read(url, have, timeout, validators):
                if stop.is_set():
                    raise FetchCancelled(url)
                write(chunk[: size - have])
                have = min(size, have + len(chunk))
                if have == size:
                    return
            short, lost = True, ConnectionDropped(f"ended after {have} of {size} bytes")
        except ConnectionDropped as error:
            lost = error
        reason = str(lost)
        failures = 0 if have - before >= MIN_SPEED else failures + 1
        if failures >= ATTEMPTS:
            if short:
                raise DamagedShard(f"{url}: {reason} (tried {ATTEMPTS} times)")
            raise UserError(given_up(url, reason))
        on_retry(f"{reason}; retry {failures} of {ATTEMPTS - 1}" if failures else reason)
        if stop.wait(lost.delay(failures)):
            raise FetchCancelled(url)


def _http(url: str, start: int, timeout: float, validators: dict[str, str]) -> Iterator[bytes]:
    """Yield the bytes from `start`. `validators` are those of the first response."""
    try:
        answer, left = http_range(url, start, None, timeout)
    except BeyondEnd:
        raise DamagedShard(f"{url}: has no more than {start} bytes, the index says more") from None
    now = {name: answer.headers[name] for name in _VALIDATORS if name in answer.headers}
    kept = [validators[name] == now[name] for name in validators.keys() & now.keys()]
    if kept and not any(kept):  # mirrors of a site may differ in one of them
        answer.close()
        raise DamagedShard(f"{url}: changed while it was read")
    validators.update(now)
    with closing(read_body(answer, timeout)) as chunks:
        for chunk in chunks:
            yield chunk[left:]
            left = max(0, left - len(chunk))


def _store(
    url: str,
    start: int,
    timeout: float,
    validators: dict[str, str],  # noqa: ARG001
) -> Iterator[bytes]:
    def chunks() -> Iterator[bytes]:
        with from_store(url, begin) as file:
            while chunk := from_store(url, lambda: file.read(1 << 20)):
                yield chunk

    def begin() -> Any:
        system, path = file_system(url)
        file = system.open(path, "rb")
        file.seek(start)
        return file

    return not_too_slow(chunks(), timeout)
