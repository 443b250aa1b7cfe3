"""The documentation as a site, which `make docs` writes to build/docs. Its pages are docs/*.md and README.md."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))  # this checkout, whatever is installed

project = "dualfid_robot"
html_title = project
html_theme = "furo"
html_show_copyright = False  # LICENSE says it
html_static_path = ["_static"]
html_css_files = ["site.css"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]

# Headings have the anchors that GitHub gives them, so that a link works in both places.
myst_heading_anchors = 4
nb_execution_mode = "off"  # a test runs the notebook

# The reference is what docstrings say. Libraries of extras that are not installed are stood in for.
_EXTRAS = ("gymnasium", "mjviser", "mujoco_warp", "onnx", "onnxruntime", "onnxscript", "pybullet", "rsl_rl", "sapien")
autodoc_mock_imports = [name for name in _EXTRAS if importlib.util.find_spec(name) is None]
autodoc_default_options = {"members": True, "ignore-module-all": True}
add_module_names = False  # the heading says it
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_numpy_docstring = False
napoleon_use_rtype = False
# What stands before a colon in an attribute's docstring is no type.
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end
default_role = "code"  # single backquotes, as in Markdown


def write_reference(app: Sphinx) -> None:
    """Write reference/: a page for each package, with all its modules, and a page that lists the packages."""
    folder, source = DOCS / "reference", DOCS.parent / project
    folder.mkdir(exist_ok=True)
    packages = {}
    for place, _, files in os.walk(source, followlinks=True):
        if "__init__.py" in files:
            packages[".".join(Path(place).relative_to(source.parent).parts)] = Path(place)
    for package, place in sorted(packages.items()):
        names = [package, *(f"{package}.{path.stem}" for path in sorted(place.glob("[!_]*.py")))]
        sections = [f"{name}\n{'=-'[name != package] * len(name)}\n\n.. automodule:: {name}\n" for name in names]
        write_if_new(folder / f"{package}.rst", "\n".join(sections))
    lists = [
        f".. {kind}\n\n   " + "\n   ".join(sorted(packages)) for kind in ("autosummary::", "toctree::\n   :hidden:")
    ]
    write_if_new(folder / "index.rst", "Reference\n=========\n\n" + "\n\n".join(lists) + "\n")


def write_if_new(path: Path, text: str) -> None:
    """Write a file, unless it says this already: Sphinx reads again what has been written."""
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_reference)
