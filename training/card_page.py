"""A data set's card as HTML, for the report of a run trained on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from markdown_it import MarkdownIt

from pipeline.contract import UserError, is_url, locate_index


def card_html(location: str, embed: Callable[[Path], str]) -> str:
    """The card beside the index that `location` means, its pictures put in by `embed`, which gives
    a data URL. Empty where there is no card on this machine."""
    try:
        index = locate_index(location)
    except UserError:
        return ""
    if is_url(index):
        return ""
    card = Path(index).with_name("README.md")
    try:
        text = card.read_text(encoding="utf-8")
    except OSError:
        return ""
    page = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)

    def picture(found: re.Match[str]) -> str:
        path = card.with_name(found[1])
        return f'src="{embed(path)}"' if path.is_file() else 'src=""'

    return re.sub(r'src="([\w.-]+)"', picture, page)
