"""Runs sockpid from a bare checkout: `python3 -I -S runtime ...`, or `python3 -I -S runtime/__main__.py ...`.

The latter is quicker: what Python runs a directory with, runpy, imports more than sockpid does until it is attached.
"""

import sys

if __spec__ is None:  # run as a file: then with -I no path leads here
    sys.path.insert(0, __file__.rpartition("/")[0] or ".")

from sockpid.cli.cli import main

sys.exit(main())
