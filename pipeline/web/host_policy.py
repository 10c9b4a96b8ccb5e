"""The policy files of a host: what they say about the use of its contents.

A driver fetches the URL that `next_file` returns and passes the outcome to `take_file`, until there
is none. Then `of_url` returns what applies to a URL. Missing and invalid files state nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.web.failures import describe_internal
from pipeline.web.opt_out.robots_lines import RobotsLines
from pipeline.web.opt_out.rsl import RslDocument, header_licenses, read_rsl
from pipeline.web.opt_out.signals import Signal
from pipeline.web.opt_out.tdmrep import PATH, Reservation, TdmRep, read_tdmrep
from pipeline.web.politeness import Politeness
from pipeline.web.responses import (
    RawResponse,
    RequestFailure,
    UrlPolicy,
    stated_reservation,
)
from pipeline.web.urls import request_url

TRIALS = 10
"""A header or a page may lift the reservation of a tdmrep.json. If none of this many responses of a
host does, its reserved URLs are refused without a request."""

MAX_FILES = 16
"""Maximum number of licence files to fetch per host."""


@dataclass(frozen=True)
class UnreadFile:
    """A policy file that could not be read, and why; reported once per host."""

    url: str
    reason: str


class HostPolicy:
    """The policy files of one host: usage lines of robots.txt, tdmrep.json and licences."""

    def __init__(self, host: str, politeness: Politeness) -> None:
        self._unread: list[UnreadFile] = []
        self._politeness = politeness
        self._tdmrep_url = host + PATH
        self._tdmrep: TdmRep | None = None
        self._licenses: dict[str, RslDocument | None] = {}
        self._confirmed = 0
        self._is_lifted = False

    def next_file(self, lines: RobotsLines) -> str | None:
        """Return the URL of the next policy file to fetch, or None. `lines` are the usage lines of
        robots.txt."""
        if not self._politeness.honour_opt_out:
            return None
        if self._tdmrep is None:
            return self._tdmrep_url
        return self.next_license(requestable(lines.licenses))

    def next_license(self, licenses: list[str]) -> str | None:
        """Return the first of `licenses` that has not been fetched, or None."""
        if not self._politeness.honour_opt_out or len(self._licenses) >= MAX_FILES:
            return None
        return next((one for one in licenses if one not in self._licenses), None)

    def take_file(self, url: str, outcome: RawResponse | RequestFailure) -> None:
        """Store the contents of a policy file from the outcome of its request."""
        body = outcome.body if isinstance(outcome, RawResponse) else b""
        if isinstance(outcome, RequestFailure):
            status = outcome.status or 0
            if not 400 <= status < 500 or status == 429:
                suffix = f", status {status}" if status else ""
                self._unread.append(UnreadFile(url, f"{outcome.kind}{suffix}"))
        if url == self._tdmrep_url:
            self._tdmrep = TdmRep()
        else:
            self._licenses[url] = None
        try:
            self._read(url, body)
        except Exception as error:  # noqa: BLE001 - errors of one policy file are caught here
            self._unread.append(UnreadFile(url, describe_internal(error)))
            return
        if isinstance(outcome, RawResponse) and self._licenses.get(url, self) is None:
            self._unread.append(UnreadFile(url, "not RSL"))

    def _read(self, url: str, body: bytes) -> None:
        if url == self._tdmrep_url:
            self._tdmrep = read_tdmrep(body)
        else:
            self._licenses[url] = read_rsl(body)

    def take_unread(self) -> list[UnreadFile]:
        """Return the policy files that could not be read since the last call."""
        unread, self._unread = self._unread, []
        return unread

    def of_url(self, url: str, lines: RobotsLines) -> UrlPolicy:
        """Return what the policy files say about `url`."""
        signals = lines.signals(url)
        signals += self.license_signals(url, requestable(lines.licenses))
        reservation = self._tdmrep.reservation(url) if self._tdmrep else None
        if reservation and self._confirmed >= TRIALS and not self._is_lifted:
            return UrlPolicy((*signals, *reservation.signals()))
        return UrlPolicy(tuple(signals), reservation)

    def license_signals(self, url: str, licenses: list[str]) -> list[Signal]:
        """Return the signals of the fetched licences among `licenses` for `url`."""
        documents = [(one, self._licenses.get(one)) for one in licenses]
        return [
            signal for one, document in documents if document
            for signal in document.signals(url, one)
        ]  # fmt: skip

    def note_response(self, reservation: Reservation | None, response: RawResponse) -> None:
        """Count whether a response lifts the reservation of the host's tdmrep.json."""
        if reservation is not None and reservation.reserved and 200 <= response.status < 300:
            stated = stated_reservation(response, reservation)
            if stated is not None and not stated.reserved:
                self._is_lifted = True
            else:
                self._confirmed += 1


def linked_licenses(response: RawResponse) -> list[str]:
    """Return the URLs of the licences that the headers of a response link to."""
    if "link" not in response.headers:
        return []
    return requestable(header_licenses(response.headers, response.url))


def requestable(licenses: Sequence[str]) -> list[str]:
    """Return the URLs in `licenses` that can be requested, normalized."""
    found = []
    for one in licenses:
        try:
            found.append(request_url(one))
        except ValueError:
            continue
    return found
