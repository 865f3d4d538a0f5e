"""The site: executed notebooks, guides, results and the package's reference as linked pages that need no server.

Sphinx makes it, with myst-nb for the notebooks and the Furo theme: autodoc reads the docstrings, the search index is a
script, which works from a file, and nothing is fetched from elsewhere. All of them come with the extra [site].
"""

import importlib.util
import io
import os
import shutil
from pathlib import Path

from . import sources

NEEDED = {"sphinx": "sphinx", "myst_nb": "myst-nb", "furo": "furo", "bokeh": "bokeh"}
CONFIG = {
    "project": "kdlab",
    "copyright": "the kdlab authors",
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "kdlab.course.site.extension"],
    "html_theme": "furo",
    "html_title": "kdlab",
    "html_static_path": ["_static"],
    "html_extra_path": ["_extra"],
    "html_css_files": ["site.css"],
    "html_js_files": ["site.js"],
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_search_summary": False,  # it would fetch the pages, which a browser refuses to a file
    "html_math_renderer": "mathml",
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {"require.js": {}, "embed-amd.js": {}},
    "nb_merge_streams": True,
    "nb_render_markdown_format": "myst",  # tables, too
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 3,
    "default_role": "py:obj",  # in docstrings, `code`: a link where it is a name that the reference has
    "autodoc_member_order": "bysource",
    "autodoc_typehints_format": "short",
    "autodoc_preserve_defaults": True,
    "autodoc_inherit_docstrings": False,
    "toc_object_entries": False,
    "suppress_warnings": ["mystnb.unknown_mime_type", "myst.xref_missing_html"],
}


def build(root: Path, executed: Path, out: Path) -> list[str]:
    """Write the site of the course in `root` into `out`, anew; returns what Sphinx warned of.

    executed: the folder of executed notebooks, as `kdlab run` writes them; those that are not there are left out.
    Raises ValueError where none is there, where `root` is no clone with its docs/, or where the extra is missing.
    """
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(f"the site is made by {', '.join(missing)}, not installed here: pip install 'kdlab[site]'")
    if not (root / "docs").is_dir():
        raise ValueError(f"the site is made in a clone of kdlab, and {root} has no docs/")
    written, pages = out.parent / "site-sources", sources.pages(root, executed)
    shutil.rmtree(written, ignore_errors=True)
    sources.write(root, pages, written)
    shutil.rmtree(out, ignore_errors=True)
    return _sphinx(written, out)


def _sphinx(written: Path, out: Path) -> list[str]:
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    said = io.StringIO()
    with patch_docutils(written), docutils_namespace():
        app = Sphinx(
            written,
            None,
            out,
            written.parent / "site-doctrees",
            "html",
            CONFIG,
            status=None,
            warning=said,
            freshenv=True,
            parallel=os.cpu_count() or 1,
        )
        app.build(force_all=True)
    return [line for line in said.getvalue().splitlines() if line.strip()]
