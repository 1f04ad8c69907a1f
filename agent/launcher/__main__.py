"""Entry point: `python -I -S /path/to/agent/launcher --run-dir … --state-dir … --cgroup-parent …`."""

import os
import sys

if __package__:
    from .server import main
else:
    # Started by path, without site-packages: the package is found beside this file, and nowhere else.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    main = __import__("launcher.server", fromlist=["main"]).main

sys.exit(main(sys.argv[1:]))
