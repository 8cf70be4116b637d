"""Sphinx configuration. Build: `python -m sphinx -W -n docs docs/_build`."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "vpt"
author = "The vpt developers"
project_copyright = author
release = re.findall(r'__version__ = "(.+)"', (ROOT / "src" / "vpt" / "_version.py").read_text(encoding="utf-8"))[0]
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nitpicky = True
default_role = "code"

# Markdown. Headings get anchors, so that pages may link to them.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Notebooks hold no output; they run whenever the site is built.
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

# Docstrings.
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# The inventories of other projects come from the network: a release build sets this variable, a build on a machine
# without a network leaves it out and shows their names without links.
if os.environ.get("VPT_DOCS_INTERSPHINX"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "numpy": ("https://numpy.org/doc/stable", None),
    }
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|np|PIL|timm|click|pathlib|collections|typing|dataclasses|enum|starlette|datasets)\b.*"),
    (r"py:.*", r"(Tensor|nn|Image|NDArray|npt|Path|Iterable|Iterator|Mapping|Sequence|Callable|Literal|Any|Self)\b.*"),
    (r"py:.*", r"(bool|bytes|dict|float|frozenset|int|list|None|object|set|str|tuple|type|optional)"),
    (r"py:.*", r"(ABC|IntEnum|Exception|BaseException|OSError|RuntimeError|ValueError|TypeError|KeyError)"),
]

html_theme = "pydata_sphinx_theme"
html_title = f"vpt {release}"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "start": [], "methods": [], "faq": []}
html_static_path = ["_static"]
html_show_sourcelink = False
