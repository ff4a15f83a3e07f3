"""How the documentation is built: `make docs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
# Worked pages run single examples: no progress bars, no colours, and a cache of kernels that is kept.
os.environ.setdefault("NO_COLOR", "1")

from pictures import Reports  # noqa: E402

from kofn import __version__  # noqa: E402

project = "kofn"
author = "the kofn authors"
copyright = "the kofn authors, Apache-2.0"
version = release = __version__
language = "en"

extensions = ["myst_parser", "sphinx_design", "sphinx_gallery.gen_gallery", "kofn_site"]
exclude_patterns = ["_build", "_ext", "methods.md", "generated", "worked"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
toc_object_entries = False
python_use_unqualified_type_names = True
add_module_names = False
suppress_warnings = ["config.cache"]

html_theme = "pydata_sphinx_theme"
html_title = "kofn"
html_static_path = ["_static"]
html_css_files = ["kofn.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "kofn"},
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button-field"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_nav_level": 1,
    "navigation_depth": 2,
}
# Pages without families beside them take the whole width.
_WIDE = ("index", "choose", "scale", "words", "how-good", "extend", "claims", "laws", "papers", "gallery/*", "search")
html_sidebars: dict[str, list[str]] = {page: [] for page in _WIDE}
html_context = {"default_mode": "auto"}
pygments_style = "default"
highlight_language = "none"

sphinx_gallery_conf = {
    "examples_dirs": ["worked"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": (Reports(),),
    "reset_modules": (),
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 10**6,
    # A plan as the last line of a block is shown as notebooks show it.
    "capture_repr": ("_repr_html_",),
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "only_warn_on_example_error": False,
    "write_computation_times": False,
    "plot_gallery": True,
}
