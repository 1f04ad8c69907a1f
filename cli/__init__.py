"""The command line: reads Compose files, talks to a controller, shows what happens. Imports core and proto only."""

import gc

# Importing makes many objects and no garbage; looking for some meanwhile is a tenth of a small command's time.
gc.set_threshold(100_000, 20, 20)
