"""What the policy files of a host say about the use of its contents; kept like robots.txt.

A driver asks `next_file` for what to fetch, hands the outcome to `take_file`, and then knows by
`of_url` what holds for each URL. A file that is missing, broken or cannot be had says nothing.
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
"""A header or a page may lift the reservation of a tdmrep.json. After so many answers of a host of
which none did, reserved URLs are refused without a request."""

MAX_FILES = 16
"""More policy files are not fetched for one host, whatever its answers link to."""


@dataclass(frozen=True)
class UnreadFile:
    """A policy file that could not be had, and why; noted once for each host."""

    url: str
    reason: str


class HostPolicy:
    """The policy files of one host: robots.txt (its lines on use), tdmrep.json and licences."""

    def __init__(self, host: str, politeness: Politeness) -> None:
        self._unread: list[UnreadFile] = []
        self._politeness = politeness
        self._tdmrep_url = host + PATH
        self._tdmrep: TdmRep | None = None
        self._licenses: dict[str, RslDocument | None] = {}
        self._confirmed = 0
        self._is_lifted = False

    def next_file(self, lines: RobotsLines) -> str | None:
        """Return the URL of the next policy file to fetch, None if there is no more. `lines` are
        those of robots.txt."""
        if not self._politeness.honour_opt_out:
            return None
        if self._tdmrep is None:
            return self._tdmrep_url
        return self.next_license(requestable(lines.licenses))

    def next_license(self, licenses: list[str]) -> str | None:
        """Return the first of `licenses` that is yet to be fetched."""
        if not self._politeness.honour_opt_out or len(self._licenses) >= MAX_FILES:
            return None
        return next((one for one in licenses if one not in self._licenses), None)

    def take_file(self, url: str, outcome: RawResponse | RequestFailure) -> None:
        """Read a policy file as fetched."""
        body = outcome.body if isinstance(outcome, RawResponse) else b""
        if isinstance(outcome, RequestFailure):
            status = outcome.status or 0
            if not 400 <= status < 500 or status == 429:
                said = f", status {status}" if status else ""
                self._unread.append(UnreadFile(url, f"{outcome.kind}{said}"))
        if url == self._tdmrep_url:
            self._tdmrep = TdmRep()
        else:
            self._licenses[url] = None
        try:
            self._read(url, body)
        except Exception as error:  # noqa: BLE001 - the boundary of one policy file
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
        """Return the files that could not be read, since the last call."""
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
        """Return the signals of licences that were fetched, for `url`."""
        documents = [(one, self._licenses.get(one)) for one in licenses]
        return [
            signal for one, document in documents if document
            for signal in document.signals(url, one)
        ]  # fmt: skip

    def note_answer(self, reservation: Reservation | None, answer: RawResponse) -> None:
        """Learn from an answer whether this host lifts the reservations of its file."""
        if reservation is not None and reservation.reserved and 200 <= answer.status < 300:
            stated = stated_reservation(answer, reservation)
            if stated is not None and not stated.reserved:
                self._is_lifted = True
            else:
                self._confirmed += 1


def linked_licenses(answer: RawResponse) -> list[str]:
    """Return the licences that the headers of an answer link to, as URLs to request."""
    if "link" not in answer.headers:
        return []
    return requestable(header_licenses(answer.headers, answer.url))


def requestable(licenses: Sequence[str]) -> list[str]:
    """Return those of `licenses` that a request can be made for, as it is made."""
    found = []
    for one in licenses:
        try:
            found.append(request_url(one))
        except ValueError:
            continue
    return found
