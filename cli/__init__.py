"""The command line: reads Compose files, talks to a controller, shows what happens. Imports core and proto only."""
