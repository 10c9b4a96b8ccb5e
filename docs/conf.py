"""Configuration of Sphinx, which builds the site: `make docs`."""

from __future__ import annotations

import shellgan

project = "ShellGAN"
release = shellgan.__version__
html_title = project
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "code"
"""Docstrings put code in single backticks, as Markdown does."""
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_use_rtype = False
myst_heading_anchors = 4
"""Headings up to this level have an anchor, named as on GitHub; a link to none is an error."""
html_theme = "furo"  # no fonts, scripts or pictures of other hosts
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
