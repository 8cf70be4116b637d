"""Sphinx configuration. Build: `python -m sphinx -W -n docs docs/_build`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.ext import napoleon
from sphinx.ext.napoleon.docstring import GoogleDocstring

DOCS = Path(__file__).parent
ROOT = DOCS.parent

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
    (
        r"py:.*",
        r"(torch|numpy|np|PIL|timm|click|pathlib|collections|typing|dataclasses|enum|starlette|datasets|pydantic)\b.*",
    ),
    (r"py:.*", r"huggingface_hub\b.*"),
    (r"py:.*", r"(vpt\.model\.)?(readout|readout_base|split_forward|Readout|SplitForward)\b.*"),  # internal
    (r"py:.*", r"(vpt\.[a-z_.]+\.)?(WholeImages|StoredImage|StreamedImages|Scores|PlainModel)\b.*"),  # internal
    (
        r"py:.*",
        r"(Tensor|Module|nn|Image|NDArray|npt|Path|Iterable|Iterator|Mapping|Sequence|Callable|Literal|Any|Self)\b.*",
    ),
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

# Pages that live elsewhere in the repository: each build copies them into this folder.
COPIES = DOCS / "repository"
COPIED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "benchmarks/results/accuracy.md",
    "benchmarks/results/readme_figure.md",
    "benchmarks/results/segmentation.md",
    "benchmarks/results/four_sets/README.md",
    "benchmarks/results/ablations/README.md",
    "benchmarks/results/probes/README.md",
    "benchmarks/results/low_data/README.md",
    "benchmarks/results/images_per_class.md",
    "benchmarks/results/low_data_fixed/report.md",
    "benchmarks/results/many_tasks.md",
    "benchmarks/results/export.md",
    "benchmarks/results/start.md",
    "README.md",
)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^]]*)\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def copy_pages(*_: Any) -> None:
    """Copy the pages from elsewhere; one that is unchanged keeps its time, so that it is not built again."""
    for name in COPIED:
        text = (ROOT / name).read_text(encoding="utf-8")
        target = COPIES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def resolve_links(app: Any, docname: str, source: list[str]) -> None:
    """Point links that work in the repository to pages of this site; a link to any other file becomes text."""
    page = DOCS / f"{docname}.md"
    copied = page.is_relative_to(COPIES)
    folder = (ROOT / page.relative_to(COPIES) if copied else page).parent

    def resolve(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / match["path"]))
        if not target.is_relative_to(ROOT) or not target.exists():
            return match[0]  # not a file of the repository: left to Sphinx, which knows whether it is one of its pages
        if match["image"] or (target.is_relative_to(DOCS) and not copied):
            return f"{match['image']}[{match['text']}]({_relative(target, page)}{match['anchor'] or ''})"
        if target.is_relative_to(DOCS):
            return f"[{match['text']}](/{target.relative_to(DOCS).as_posix()}{match['anchor'] or ''})"
        name = target.relative_to(ROOT).as_posix()
        if name in COPIED:
            return f"[{match['text']}](/repository/{name}{match['anchor'] or ''})"
        return match["text"] if match["text"].startswith("`") else f"{match['text']} (`{name}` in the repository)"

    source[0] = _LINK.sub(resolve, source[0])


def _relative(target: Path, page: Path) -> str:
    return Path(os.path.relpath(target, page.parent)).as_posix()


class UntypedReturns(GoogleDocstring):
    """Google docstrings whose types are in the signature: a colon in the text of `Returns:` is only a colon."""

    def _consume_returns_section(self, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
        lines = self._dedent(self._consume_to_next_section())
        return [("", "", type(self)(lines, self._config).lines())] if lines else []

    def _consume_inline_attribute(self) -> tuple[str, list[str]]:
        lines = [self._lines.next(), *self._dedent(self._consume_to_end())]
        return "", type(self)(lines, self._config).lines()


def setup(app: Any) -> None:
    """Register the steps above."""
    napoleon.GoogleDocstring = UntypedReturns  # type: ignore[misc]
    app.connect("config-inited", copy_pages)
    app.connect("source-read", resolve_links)
