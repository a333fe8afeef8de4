"""Settings of the site: sphinx-build -W --keep-going -b html docs docs/_build/html"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The sources beside this file are what is documented, whichever version is installed.
sys.path[:0] = [str(HERE.parent), str(HERE / '_ext')]

import mmacmix  # noqa: E402

project = 'mmacmix'
author = 'The mmacmix contributors'
project_copyright = author
version = release = mmacmix.__version__

extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.mathjax',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'tool_help',
]
exclude_patterns = ['_build', '_ext', 'jupyter_execute', '**.ipynb_checkpoints']

myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 3
# The outputs in the notebook are shown as they are; the tests run it.
nb_execution_mode = 'off'
nb_merge_streams = True

add_module_names = False
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# Longer signatures get a line for each argument.
python_maximum_signature_line_length = 88

html_theme = 'furo'
html_static_path = ['_static']
html_css_files = ['site.css']
html_title = f'mmacmix {release}'
html_show_sphinx = False
html_copy_source = False
