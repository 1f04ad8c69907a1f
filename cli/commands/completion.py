"""`argosy completion`: scripts for the shells, to be put into their start-up files."""

import click

from argosy.cli.output import say


@click.command(name="completion", help='Print the completion script: eval "$(argosy completion bash)" in ~/.bashrc.')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    from click.shell_completion import get_completion_class

    from argosy.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    if shell == "bash":
        # Click asks bash for its version here, which fails where bash is not installed; every bash of this decade fits.
        kind = type("_Bash", (kind,), {"_check_version": staticmethod(lambda: None)})
    say(kind(cli, {}, "argosy", "_ARGOSY_COMPLETE").source())
