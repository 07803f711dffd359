"""How the documentation is built: ``make docs``."""

import convattn

project = "convattn"
author = "the convattn developers"
copyright = f"2026, {author}"
release = version = convattn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_mock_imports = ["ray"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"convattn {release}"
html_static_path = ["_static"]
html_css_files = ["compare.css", "tables.css"]
html_js_files = ["compare.js"]
