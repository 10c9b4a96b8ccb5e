"""The opt-out signals of a page, from its request, meta elements and RSL licences."""

from __future__ import annotations

from pipeline.fetcher import Fetcher, Response
from pipeline.sources.page_terms import PageTerms
from pipeline.web.opt_out.directives import meta_signals
from pipeline.web.opt_out.rsl import page_licenses, read_rsl
from pipeline.web.opt_out.signals import Signal


def page_signals(fetcher: Fetcher, response: Response, terms: PageTerms) -> list[Signal]:
    """Return all signals of a fetched page. Licences that it links to are fetched once per host."""
    signals = [*response.signals, *meta_signals(terms.metas, fetcher.politeness.user_agent)]
    signals += fetcher.license_signals(response.url, page_licenses(terms.links, response.url))
    for text in terms.licenses:
        document = read_rsl(text.encode("utf-8", "replace"))
        if document is not None:
            signals += document.signals(response.url, "")
    return list(dict.fromkeys(signals))
