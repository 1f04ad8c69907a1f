"""The `argosy` command: its list of commands, and the one place where errors become messages and exit statuses.

Commands are imported only when they are used: `argosy ps` in a script must not pay for what `argosy deploy` needs.
"""

import errno
import os
import sys
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from argosy.cli import interrupt
from argosy.cli.errors import EXIT_BUG, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_INVALID, CliError, explain, outcome_unknown
from argosy.cli.session import Session

COMMANDS: Final[dict[str, str]] = {
    "deploy": "Deploy a Compose file as a stack, and wait until it runs.",
    "stack": "List, look into and remove stacks.",
    "service": "Create, look into, change, update, stop and remove services.",
    "scale": "Set how many tasks services run: argosy scale web=5 api=2.",
    "rebalance": "Move tasks so that services are spread evenly again, as after a node has joined.",
    "ps": "List tasks.",
    "run": "Run a command in a container, with its output here, and exit with its status.",
    "job": "List jobs, and have one run now.",
    "logs": "Show what a service or task writes.",
    "node": "List, look into, drain and label nodes.",
    "cluster": "Look into the cluster itself, and say how tasks are placed.",
    "network": "List, look into, create, remove and verify networks.",
    "config": "Create, list, look into and remove configs: files for containers.",
    "secret": "Create, list, look into and remove secrets: files that only containers see.",
    "image": "Import, list and remove images.",
    "events": "Show what changes in the cluster, as it happens.",
    "dev": "Run a whole cluster on this machine.",
    "context": "Choose which cluster the commands talk to.",
    "version": "Show the versions of this program and of the cluster.",
    "completion": "Print a shell's completion script.",
}
HIDDEN: Final[frozenset[str]] = frozenset({"controller", "agent"})
"""How units and the dev cluster start daemons; people do not."""


class _LazyGroup(click.Group):
    """Knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in HIDDEN:
            return _daemon(cmd_name)
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"argosy.cli.commands.{cmd_name}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and name not in HIDDEN and not name.startswith("-"):
            ctx.fail(f"no such command '{name}'" + _nearest(name) + "; 'argosy --help' lists them")
        return super().resolve_command(ctx, args)


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _daemon(name: str) -> click.Command:
    """Return a command that becomes `python -m argosy.NAME` with all further arguments."""

    @click.command(
        name,
        hidden=True,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    @click.pass_context
    def run(ctx: click.Context) -> None:
        os.execv(sys.executable, [sys.executable, "-m", f"argosy.{name}", *ctx.args])

    return run


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--host", default="", metavar="ADDRESS", help="The controller: unix:///path or host:port (or a list).")
@click.option("--context", default="", metavar="NAME", help="The context to use (see 'argosy context').")
@click.option("--project", default="", metavar="NAME", help="The project to work in.")
@click.version_option(package_name="argosy", message="argosy %(version)s")
@click.pass_context
def cli(ctx: click.Context, host: str, context: str, project: str) -> None:
    """Argosy runs services across many hosts."""
    ctx.ensure_object(Session).choose(host, context, project)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """Run the command line and exit with its status.

    Without the interpreter's own ending: nothing of ours is left to do, and taking gRPC's threads down in order would
    cost as much again as a small command.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed: nobody wants to see it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as this process lives
    status = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or EXIT_FAILED
    os._exit(status)


def run(arguments: list[str]) -> int:
    """Run the command line; return the exit status. Messages go to stderr, never a traceback (but see ARGOSY_DEBUG)."""
    session = Session()
    try:
        result: Any = cli.main(args=arguments, prog_name="argosy", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_INVALID
    except click.UsageError as error:
        _tell(error.format_message(), _how_to_use(error))
        return EXIT_INVALID
    except click.ClickException as error:
        _tell(error.format_message())
        return EXIT_INVALID
    except (click.Abort, KeyboardInterrupt):
        interrupt.acted_on()
        if session.changes_sent:
            _tell("interrupted; what the cluster was asked for goes on", "look with 'argosy ps' or 'argosy service ls'")
        else:
            click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone: not an error. Keep the interpreter from flushing into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except CliError as error:
        _tell(error.message, error.hint)
        return error.status
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return _failed(error, session)
        _tell("cannot write the output: no space is left where it goes")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        return _failed(error, session)


def _failed(error: Exception, session: Session) -> int:
    if "grpc" in sys.modules:
        import grpc

        if isinstance(error, grpc.RpcError):
            known = explain(error)
            is_open = session.changes_sent and outcome_unknown(error)
            _tell(known.message, "it may have been done: look before you try again" if is_open else known.hint)
            return known.status
    if os.environ.get("ARGOSY_DEBUG"):
        raise error
    _tell(
        f"a bug in argosy: {type(error).__name__}: {error}", "please report it; ARGOSY_DEBUG=1 shows where it happened"
    )
    return EXIT_BUG


def _how_to_use(error: click.UsageError) -> str:
    return f"see '{error.ctx.command_path} --help'" if error.ctx is not None else ""


def _tell(message: str, hint: str = "") -> None:
    lines = (message or "it failed without saying why").strip()
    name = "argosy: " if os.environ.get("NO_COLOR") else click.style("argosy: ", fg="red")
    click.echo(name + lines, err=True)
    if hint:
        click.echo(f"  {hint}", err=True)


if __name__ == "__main__":
    main()
