"""`python -m argosy.agent`."""

from argosy.agent.main import main

main(prog_name="argosy agent")
