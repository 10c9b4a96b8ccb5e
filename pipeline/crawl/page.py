"""Fetches and parses one page of a crawl. Errors of a page never end the crawl."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.contract import image_key
from pipeline.crawl.state import CrawlPage
from pipeline.errors import Failure, UserError
from pipeline.fetcher import Fetcher, FileTarget, Response
from pipeline.recipe import Recipe
from pipeline.sources import SOURCES, CorruptFile, Page, PageResult
from pipeline.sources.interface import PageTerms
from pipeline.web.failures import failure, internal_failure
from pipeline.web.opt_out.directives import meta_signals
from pipeline.web.opt_out.rsl import page_licenses, read_rsl
from pipeline.web.opt_out.signals import Signal, describe

STAGE = "crawl"

_NO_CONTENT = (204, 205)


@dataclass(frozen=True)
class FetchedPage:
    """The result of a fetched page (None if the page has not changed), and its validators."""

    result: PageResult | None
    etag: str | None = None
    last_modified: str | None = None
    digest: str | None = None


class PageReader:
    """Fetches and parses the pages of a recipe. Thread-safe.

    Args:
        copies: the folder for copies of files that may be larger than memory.
    """

    def __init__(self, recipe: Recipe, copies: Path) -> None:
        self._source = recipe.source
        self._politeness = recipe.politeness
        self._adapter = SOURCES[recipe.source.kind]
        self._copies = copies

    def visit(self, fetcher: Fetcher, page: CrawlPage) -> FetchedPage | Failure:
        """Fetch and parse one page. Every error becomes a failure of this page."""
        try:
            return self._fetch(fetcher, page)
        except (UserError, OSError):  # a mistake of the user, or a full or broken disk
            raise
        except Exception as error:  # noqa: BLE001 - errors of one page are caught here
            return internal_failure(STAGE, page.request.url, error)

    def _fetch(self, fetcher: Fetcher, page: CrawlPage) -> FetchedPage | Failure:
        if self._adapter.max_copy_bytes is not None:
            return self._copy(fetcher, page, self._adapter.max_copy_bytes(self._source))
        most = max(self._politeness.max_page_bytes, self._adapter.page_bytes(page.request))
        response = fetcher.get(
            page.request.url, stage=STAGE, headers=_validators(page), max_bytes=most
        )
        if isinstance(response, Failure):
            return response
        digest = hashlib.sha256(response.body).hexdigest()
        if response.status == 304 or (page.digest == digest and page.fetched):
            return FetchedPage(None)
        read = Page(page.request, response.body, response.url, response.headers)
        result = self.parse(read)
        if not isinstance(result, Failure):
            signals = page_signals(fetcher, response, result.terms)
            result = self._with_signals(page.request.url, result, signals)
        if isinstance(result, Failure):
            return result
        return FetchedPage(
            result, response.headers.get("etag"), response.headers.get("last-modified"), digest
        )

    def _copy(self, fetcher: Fetcher, page: CrawlPage, most: int) -> FetchedPage | Failure:
        """Copy a large file to the disk, from where it is parsed later."""
        url = page.request.url
        path = self.copy_path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.tmp")
        headers = _validators(page) if path.exists() else {}
        response = fetcher.get(url, stage=STAGE, headers=headers, copy=FileTarget(aside, most))
        if isinstance(response, Response) and response.status in _NO_CONTENT:
            response = failure(STAGE, url, "empty", status=response.status)
        if isinstance(response, Failure):
            aside.unlink(missing_ok=True)
            return response
        if response.status == 304:
            return FetchedPage(None)
        aside.replace(path)
        return FetchedPage(
            PageResult(), response.headers.get("etag"), response.headers.get("last-modified")
        )

    def copy_path(self, url: str) -> Path:
        return self._copies / image_key(url.partition("#")[0])

    def parse(self, page: Page) -> PageResult | Failure:
        """Parse a page. Every error of the parser becomes a failure of this page."""
        url = page.request.url
        try:
            result = self._adapter.parse(self._source, page)
        except UserError:
            raise
        except CorruptFile as error:
            return failure(STAGE, url, "parse_error", detail=str(error))
        except RecursionError:
            return failure(STAGE, url, "parse_error", detail="nested too deeply")
        except Exception as error:  # noqa: BLE001 - errors of one page are caught here
            return internal_failure(STAGE, url, error)
        if result.error:
            return failure(STAGE, url, "parse_error", detail=result.error)
        return result

    def _with_signals(
        self, url: str, result: PageResult, signals: Sequence[Signal]
    ) -> PageResult | Failure:
        """Return the result with the overridden opt-out signals of the page in its rows; a failure
        if a signal is not overridden. Signals do not affect pages without images."""
        if not signals or not result.images:
            return result
        if refusing := self._politeness.refusing(signals):
            return failure(STAGE, url, "opt_out", detail=describe(refusing))
        texts = tuple(dict.fromkeys(str(signal) for signal in signals))
        return replace(result, images=[replace(row, page_opt_out=texts) for row in result.images])


def _validators(page: CrawlPage) -> dict[str, str]:
    """Return the headers of a conditional request for a page."""
    headers = {"If-None-Match": page.etag, "If-Modified-Since": page.last_modified}
    return {name: value for name, value in headers.items() if value}


def page_signals(fetcher: Fetcher, response: Response, terms: PageTerms) -> list[Signal]:
    """Return all signals of a fetched page. Licences that it links to are fetched once per host."""
    signals = [*response.signals, *meta_signals(terms.metas, fetcher.politeness.user_agent)]
    signals += fetcher.license_signals(response.url, page_licenses(terms.links, response.url))
    for text in terms.licenses:
        document = read_rsl(text.encode("utf-8", "replace"))
        if document is not None:
            signals += document.signals(response.url, "")
    return list(dict.fromkeys(signals))
