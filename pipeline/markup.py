"""Text from outside in Markdown and HTML: shown as it is, never obeyed."""

from __future__ import annotations

import base64
import html
import mimetypes
import re
from pathlib import Path

from pipeline.outside_text import printable, safe_text, without_passwords

STILL_PAGE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The Content-Security-Policy of a page without scripts that has its pictures in it."""

_SPECIAL = re.compile(r"[\\`*\[\]<>&|!~$]|_(?![^\W_])|(?<![^\W_])_")
_LIVE = re.compile(r"\\.|[<\[\]&!]", re.DOTALL)
_FENCE = re.compile(r"^([ \t>]*)(```|~~~)", re.MULTILINE)  # one without an end hides the rest
_MAX_CARD = 2 << 20
_MAX_PICTURE = 16 << 20


def escape_markdown(text: str) -> str:
    """`text` as one line of Markdown that shows it, also within a table."""
    line = printable(without_passwords(" ".join(text.split())))
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", line)


def code_span(text: str) -> str:
    """`text` as code in a line of Markdown."""
    shown = printable(text).replace("`", "'").replace("|", "/")
    return f"`{shown}`"


def disarm_markdown(text: str) -> str:
    """A whole Markdown text from outside without links, pictures and tags: they are shown as text.

    Headings, tables, lists, emphasis and code within a line stay.
    """
    text = _FENCE.sub(r"\1\\\2", safe_text(text))
    return _LIVE.sub(lambda match: match[0] if match[0][0] == "\\" else f"\\{match[0]}", text)


def render_card(markdown: str, folder: Path) -> str:
    """The HTML of a dataset card from outside: tags are shown as text, there are no links, and the
    only pictures are files in `folder`, which are put into the page."""
    from markdown_it import MarkdownIt

    markdown = safe_text(markdown[:_MAX_CARD])
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "autolink", "html_inline", "html_block", "reference"])
    body: str = parser.render(markdown)
    return re.sub(r"<img ([^>]*)>", lambda match: _picture(str(match[1]), folder), body)


def _picture(attributes: str, folder: Path) -> str:
    """The element of a picture, with the file in it; its words if it is no file of the folder."""
    named: dict[str, str] = dict(re.findall(r'(\w+)="([^"]*)"', attributes))
    name, words = named.get("src", ""), named.get("alt", "")
    kind = mimetypes.guess_type(name)[0] or ""
    path = folder / name
    if not re.fullmatch(r"\w[\w.-]*", name) or kind not in ("image/jpeg", "image/png"):
        return words
    try:
        if not path.is_file() or path.stat().st_size > _MAX_PICTURE:
            return words
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return words
    return f'<img src="data:{kind};base64,{data}" alt="{words}">'


def policy_element(policy: str = STILL_PAGE) -> str:
    """The element of a page's head that states its Content-Security-Policy."""
    return f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
