"""The data set's card, for the report of a run trained on it."""

from __future__ import annotations

from pathlib import Path

from pipeline.contract import UserError, is_url, locate_index, read_bytes


def card_html(location: str) -> str:
    """The body of `card.html` beside the index that `location` means, its pictures in it. Empty
    where there is no card on this machine."""
    try:
        index = locate_index(location)
        if is_url(index):
            return ""
        page = read_bytes(Path(index).with_name("card.html")).decode()
    except (UserError, OSError, ValueError):
        return ""
    return page.partition("<main>")[2].rpartition("</main>")[0]
