"""`python -m tests.sim 1..500` runs seeds, one after the other; `make sim SEEDS=…` calls it.

Hashes of strings are chance too, so the program starts itself again without it.
"""

import os
import sys

if os.environ.get("PYTHONHASHSEED") != "0":
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])

from tests.sim.run import main

sys.exit(main(sys.argv[1:]))
