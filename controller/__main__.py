"""`python -m argosy.controller`."""

from argosy.controller.main import main

main(prog_name="argosy controller")
