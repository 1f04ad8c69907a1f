"""Keeps `inside/` to the virtual machine: its tests state what that machine is, not what this host is."""

import os

collect_ignore = [] if os.environ.get("ARGOSY_VM") else ["inside"]
