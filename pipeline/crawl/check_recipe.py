"""Checks a recipe on one page, and proposes a recipe for a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.crawl.page import page_signals
from pipeline.errors import Failure, UserError
from pipeline.fetcher import Fetcher, Politeness
from pipeline.recipe import Recipe, load_recipe
from pipeline.sources import SOURCES, CorruptFile, FoundImage, Page, PageRequest
from pipeline.sources.folder import FolderSource
from pipeline.sources.html_options import HtmlSource
from pipeline.sources.html_proposal import describe_page
from pipeline.sources.page_view import PageView
from pipeline.sources.proposal import propose
from pipeline.sources.xml import read_xml
from pipeline.web.failures import internal_failure
from pipeline.web.host_headers import HostHeaders, take_credentials, with_host_headers
from pipeline.web.opt_out.signals import describe
from pipeline.web.urls import canonical_url
from pipeline.web.waits import OnWait

STAGE = "check"
_OVERRIDE = "politeness.opt_out_overrides can override it, with a reason"
COLUMNS = ("url", "title", "labels", "license", "attribution")


@dataclass(frozen=True)
class PageCheck:
    """The result of applying a recipe to one page.

    `images` are in page order, `follow` has the URLs of further pages, and `skipped` counts skipped
    entries by reason. `error` is why the page could not be read, or empty. `seen` describes an HTML
    page on which the recipe finds no image.
    """

    url: str
    images: tuple[FoundImage, ...] = ()
    follow: tuple[str, ...] = ()
    skipped: dict[str, int] = field(default_factory=dict)
    error: str = ""
    seen: str = ""

    def rows(self) -> list[tuple[str, ...]]:
        """Return the images as rows of text, in the order of `COLUMNS`."""
        return [
            (one.url, one.title, ", ".join(one.labels), one.license, one.attribution)
            for one in self.images
        ]


def check_recipe(path: Path | str, url: str, on_wait: OnWait | None = None) -> PageCheck:
    """Fetch the page at `url` with the politeness of the recipe, and apply the recipe to it.

    Args:
        path: path or URL of the recipe.
        on_wait: called during long waits.

    Raises:
        UserError: the recipe has an error, or `url` is not an http(s) URL.
    """
    recipe, address = load_recipe(path), _address(url)
    if isinstance(recipe.source, FolderSource):
        raise UserError(f"{path}: a folder has no pages to check; crawl it")
    with Fetcher(_with_credentials(recipe.politeness, url), on_wait) as fetcher:
        return check_page(recipe, address, fetcher)


def check_page(recipe: Recipe, address: str, fetcher: Fetcher) -> PageCheck:
    """Fetch a page, and apply the recipe to it.

    Raises:
        UserError: the recipe cannot be applied to it.
    """
    source = recipe.source
    assert not isinstance(source, FolderSource)
    adapter = SOURCES[source.kind]
    if isinstance(source, HtmlSource):  # stay on the page's host
        source = replace(source, start=(*source.start, address))
    is_html = isinstance(source, HtmlSource) and source.kind == "html"
    whole_list = PageRequest(address, 0, {"role": source.kind})
    most = max(recipe.politeness.max_page_bytes, adapter.page_bytes(whole_list))
    response = fetcher.get(address, stage=STAGE, max_bytes=most)
    if isinstance(response, Failure):
        return PageCheck(address, error=_describe(response))
    context = {"role": source.kind} if _is_list_page(source.kind, response.body) else {}
    request = PageRequest(address, 0, context)
    page = Page(request, response.body, response.url, response.headers)
    try:
        result = adapter.parse(source, page)
        rows = tuple(result.images)
    except UserError:
        raise
    except CorruptFile as error:
        return PageCheck(address, error=str(error))
    except Exception as error:  # noqa: BLE001 - errors of one page are caught here
        return PageCheck(address, error=_describe(internal_failure(STAGE, address, error)))
    signals = page_signals(fetcher, response, result.terms)
    if (refusing := recipe.politeness.refusing(signals)) and rows:
        return PageCheck(address, error=f"opt_out: {describe(refusing)} ({_OVERRIDE})")
    return PageCheck(
        address,
        rows,
        tuple(one.url for one in result.follow),
        dict(result.skipped),
        result.error,
        "" if rows or result.error or not is_html else describe_page(PageView(page)),
    )


def propose_recipe(
    url: str,
    politeness: Politeness | None = None,
    on_wait: OnWait | None = None,
    on_page: Callable[[str], None] = lambda _: None,
) -> str:
    """Return the text of a recipe for the site at `url`, from that page and a few pages behind it.

    Args:
        on_wait: called during long waits.
        on_page: called with the URL of each further page before it is requested.

    Raises:
        UserError: `url` is not an http(s) URL, or the page could not be fetched or read.
    """
    address = _address(url)
    rules = _with_credentials(politeness or Politeness(), url)
    with Fetcher(rules, on_wait) as fetcher:

        def get(one: str) -> Page | None:
            on_page(one)
            response = fetcher.get(one, stage=STAGE)
            if isinstance(response, Failure):
                return None
            return Page(PageRequest(one), response.body, response.url, response.headers)

        first = fetcher.get(address, stage=STAGE)
        if isinstance(first, Failure):
            private = first.kind == "private_address"
            hint = "; for new-recipe, use --allow-private" if private else ""
            raise UserError(f"{address}: {_describe(first)}{hint}")
        page = Page(PageRequest(address), first.body, first.url, first.headers)
        try:
            proposal = propose(page, get)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - errors of one page are caught here
            failed = internal_failure(STAGE, address, error)
            raise UserError(f"{address}: {_describe(failed)}") from None
        start = address
        if urlsplit(first.url).netloc != urlsplit(address).netloc:
            start = _address(first.url)  # links to its host are not offsite
            proposal.comments.append(f"{address} redirects to this host")
        return replace(proposal, start=start, private=rules.allow_private).to_toml()


def _with_credentials(politeness: Politeness, url: str) -> Politeness:
    """Return `politeness` with the user and password of `url` as headers for its host."""
    found: HostHeaders = {}
    take_credentials(url, found)
    return with_host_headers(politeness, found, ())


def _address(url: str) -> str:
    address = canonical_url(url)
    if address is None:
        raise UserError(f"{url}: not an http(s) URL")
    return address


def _describe(failed: Failure) -> str:
    status = f", status {failed.status}" if failed.status else ""
    hint = f" ({_OVERRIDE})" if failed.kind == "opt_out" else ""
    return f"{failed.kind}{status}{': ' if failed.detail else ''}{failed.detail}{hint}"


def _is_list_page(kind: str, body: bytes) -> bool:
    """Return True if a page is the sitemap or feed itself, not a page that it links to."""
    if kind not in ("sitemap", "feed"):
        return False
    if b"<html" in body[:1000].lower():
        return False
    return kind == "sitemap" or read_xml(body)[0] is not None
