"""The dataset card as a self-contained page, `manifests/NAME/card.html`."""

from __future__ import annotations

import html
from pathlib import Path

from pipeline.markup import policy_element, render_card

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --ink: #22201d; --soft: #6d675f;
  --line: #dfdad2; }
@media (prefers-color-scheme: dark) { :root { --paper: #171614; --ink: #ece8e1; --soft: #a29b90;
  --line: #36332e; } }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
img { max-width: 100%; border-radius: 4px; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border-top: 1px solid var(--line); padding: .25rem 1rem .25rem 0; text-align: left;
  overflow-wrap: break-word; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: normal; }
code { word-break: break-all; }
"""


def card_page(markdown: str, folder: Path) -> str:
    """Return the card's Markdown as an HTML page with the images in `folder` embedded."""
    title = html.escape(markdown.partition("\n")[0].lstrip("# ").replace("\\", "").strip())
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"{policy_element()}\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n"
        f"<main>\n{render_card(markdown, folder)}</main>\n</html>\n"
    )
