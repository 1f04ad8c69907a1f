"""One module for each command; each exposes a click command called `command`, imported only when it is used."""
