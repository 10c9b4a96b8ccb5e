"""Polite HTTP for pages: a blocking call that follows the politeness rules and returns failures as
values.

It runs `pipeline.web.request.Request` on the `requests` library.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Failure
from pipeline.web.connections import Watch
from pipeline.web.failures import FAILURE_KINDS, internal_failure
from pipeline.web.hosts import Host, Hosts, UnreadFile, requestable
from pipeline.web.opt_out.signals import Signal
from pipeline.web.politeness import Politeness
from pipeline.web.request import Done, FetchFile, Request, Send, WaitUntil, file_request
from pipeline.web.requests_transport import BodyLimit, DiskError, RequestsTransport
from pipeline.web.responses import MAX_POLICY, NO_HEADERS, RequestFailure, Response
from pipeline.web.waits import OnWait, Wait, WaitWatcher

__all__ = ["FAILURE_KINDS", "Fetcher", "FileTarget", "Politeness", "Response"]

_POLICY_LIMIT = BodyLimit(MAX_POLICY, may_cut=True)


@dataclass(frozen=True)
class FileTarget:
    """The file that the body of a 2xx response is written to. The body has at most `max_bytes`;
    there is no time limit as long as it arrives fast enough."""

    path: Path
    max_bytes: int


class Fetcher:
    """Fetches pages politely. Safe to use from several threads.

    Args:
        politeness: the rules.
        on_wait: called with long waits, from a thread of its own.
    """

    def __init__(self, politeness: Politeness, on_wait: OnWait | None = None) -> None:
        self.politeness = politeness
        self._waits = WaitWatcher(on_wait)
        self._stopped = threading.Event()
        self._transport = RequestsTransport(politeness)
        self._hosts = Hosts(politeness, Host)

    def close(self) -> None:
        self.stop()
        self._waits.close()
        self._transport.close()

    def stop(self) -> None:
        """End the waits of other threads: their requests fail as `host_cooldown`."""
        self._stopped.set()
        for host in self._hosts.all():
            with host.limiter.lock:
                host.limiter.lock.notify_all()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(
        self,
        url: str,
        *,
        stage: str,
        headers: Mapping[str, str] | None = None,
        copy: FileTarget | None = None,
        max_bytes: int | None = None,
    ) -> Response | Failure:
        """Send a GET request and return its response, or its failure.

        A 304 is a `Response` (send `If-None-Match` in `headers`); statuses other than that and 2xx
        are failures. With `copy`, the body of a 2xx is in that file, and the response's is empty.

        Args:
            max_bytes: maximum size of the body; None: `politeness.max_page_bytes`.

        Raises:
            OSError: the body cannot be written to the disk.
        """
        limit = BodyLimit(max_bytes or self.politeness.max_page_bytes)
        if copy is not None:
            limit = BodyLimit(copy.max_bytes, copy=copy.path)
        try:
            request = Request(self._hosts, url, headers or NO_HEADERS)
            self._run(request, limit)
            return request.result(stage, "" if copy else "politeness.max_page_bytes")
        except DiskError as error:
            raise error.reason from None
        except Exception as error:  # noqa: BLE001 - errors of one page are caught here
            return internal_failure(stage, url, error)

    def license_signals(self, url: str, licenses: Sequence[str]) -> list[Signal]:
        """Return the opt-out signals for `url` in RSL licences that a page links to."""
        if not licenses:
            return []
        host = self._hosts.of(url)
        wanted = requestable(licenses)
        while True:
            with host.limiter.lock:
                if (file := host.policy.next_license(wanted)) is None:
                    return host.policy.license_signals(url, wanted)
                if host.is_fetching:
                    host.limiter.lock.wait(1.0)
                    continue
                host.is_fetching = True
            self._fetch_file(FetchFile(host, file, file_request(self._hosts, host, file)))

    def take_unread(self) -> list[UnreadFile]:
        """Return the policy files that could not be read since the last call."""
        return [file for host in self._hosts.all() for file in host.policy.take_unread()]

    def _run(self, request: Request[Host], limit: BodyLimit) -> None:
        """Perform the request's actions until it is done."""
        while not isinstance(action := self._wait_turn(request), Done):
            if isinstance(action, FetchFile):
                self._fetch_file(action)
            else:
                self._send(request, action, limit)

    def _wait_turn(self, request: Request[Host]) -> Send | FetchFile[Host] | Done:
        """Wait until the request has an action, and return it."""
        if request.outcome is not None:
            return Done(request.outcome)
        lock, name = request.host.limiter.lock, request.host.name
        wait = WaitUntil(name, 0.0, "its turn")
        with self._waits.during(lambda now: wait.describe(now)), lock:
            while True:
                now = time.monotonic()
                if self._stopped.is_set():
                    request.abort(RequestFailure("host_cooldown", "stopped"), now)
                action = request.next(now)
                if not isinstance(action, WaitUntil):
                    return action
                wait = action
                lock.wait(min(action.time - now, 1.0))

    def _send(self, request: Request[Host], send: Send, limit: BodyLimit) -> None:
        watch, name = Watch(), request.host.name
        try:
            with self._waits.during(lambda _: _request_wait(name, watch)):
                response = self._transport.request(send.url, send.headers, limit, watch)
            request.receive(response, time.monotonic())
        finally:
            request.release(time.monotonic())

    def _fetch_file(self, file: FetchFile[Host]) -> None:
        """Fetch a policy file. Its host receives every outcome, so that waiting requests
        continue."""
        try:
            self._run(file.request, _POLICY_LIMIT)
        except Exception as error:  # noqa: BLE001 - errors of one policy file are caught here
            file.request.abort(error, time.monotonic())
        finally:
            outcome = file.request.outcome or RequestFailure("internal", "interrupted")
            file.host.take_file(file.url, outcome, time.monotonic())


def _request_wait(host: str, watch: Watch) -> Wait:
    reason = watch.waits_for()
    so_far = f" ({watch.nbytes / 1e6:.1f} MB so far)" if watch.nbytes else ""
    return Wait(host, reason, reason + so_far)
