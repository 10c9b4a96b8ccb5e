"""Displays text from outside in Markdown and HTML without interpreting it."""

from __future__ import annotations

import base64
import html
import mimetypes
import re
from pathlib import Path

from pipeline.outside_text import printable, safe_text, without_passwords

STILL_PAGE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The Content-Security-Policy of a page without scripts whose images are embedded."""

_SPECIAL = re.compile(r"[\\`*\[\]<>&|!~$]|_(?![^\W_])|(?<![^\W_])_")
_LIVE = re.compile(r"\\.|[<\[\]&!]", re.DOTALL)
_FENCE = re.compile(r"^([ \t>]*)(```|~~~)", re.MULTILINE)  # an unclosed one would hide the rest
_MAX_CARD = 2 << 20
_MAX_IMAGE = 16 << 20


def escape_markdown(text: str) -> str:
    """Return one line of Markdown that displays `text` literally, also in a table."""
    line = printable(without_passwords(" ".join(text.split())))
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", line)


def code_span(text: str) -> str:
    """Return `text` as inline code in Markdown."""
    shown = printable(text).replace("`", "'").replace("|", "/")
    return f"`{shown}`"


def disarm_markdown(text: str) -> str:
    """Return a Markdown text from outside with links, images and tags displayed as text.

    Headings, tables, lists, emphasis and inline code are kept.
    """
    text = _FENCE.sub(r"\1\\\2", safe_text(text))
    return _LIVE.sub(lambda match: match[0] if match[0][0] == "\\" else f"\\{match[0]}", text)


def render_card(markdown: str, folder: Path) -> str:
    """Return the HTML of a dataset card from outside. Tags are displayed as text, links are
    removed, and only images in `folder` are shown, embedded in the page."""
    from markdown_it import MarkdownIt

    markdown = safe_text(markdown[:_MAX_CARD])
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "autolink", "html_inline", "html_block", "reference"])
    body: str = parser.render(markdown)
    return re.sub(r"<img ([^>]*)>", lambda match: _embedded_image(str(match[1]), folder), body)


def _embedded_image(attributes: str, folder: Path) -> str:
    """Return an `img` element with the embedded image; only its alternative text if it is not an
    image file in the folder."""
    named: dict[str, str] = dict(re.findall(r'(\w+)="([^"]*)"', attributes))
    name, words = named.get("src", ""), named.get("alt", "")
    kind = mimetypes.guess_type(name)[0] or ""
    path = folder / name
    if not re.fullmatch(r"\w[\w.-]*", name) or kind not in ("image/jpeg", "image/png"):
        return words
    try:
        if not path.is_file() or path.stat().st_size > _MAX_IMAGE:
            return words
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return words
    return f'<img src="data:{kind};base64,{data}" alt="{words}">'


def policy_element(policy: str = STILL_PAGE) -> str:
    """Return the meta element for a page's Content-Security-Policy."""
    return f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
