"""`argosy context`: which cluster the commands talk to, when nothing else says so."""

import os

import click

from argosy.cli import context as contexts
from argosy.cli.output import Column, format_option, quiet_option, say, show
from argosy.cli.session import Session, pass_session


@click.group(name="context", help="Choose which cluster the commands talk to.")
def command() -> None:
    pass


@command.command("ls", help="List contexts; the one in use is marked.")
@quiet_option
@format_option
@pass_session
def list_contexts(session: Session, quiet: bool, form: str) -> None:
    directory = contexts.config_dir(os.environ)
    chosen = os.environ.get("ARGOSY_CONTEXT") or contexts.current(directory)
    rows = [
        {"name": c.name, "host": c.host, "project": c.project, "current": c.name == chosen}
        for c in contexts.load_all(directory)
    ]
    for name in contexts.dev_contexts():
        hosts = ",".join(contexts.dev_hosts(name.removeprefix(contexts.DEV_PREFIX)))
        rows.append({"name": name, "host": hosts, "project": contexts.DEFAULT_PROJECT, "current": name == chosen})
    columns = (
        Column("", lambda row: "*" if row["current"] else ""),
        Column("NAME", "name"),
        Column("HOST", "host", rank=1),
        Column("PROJECT", "project", rank=2),
    )
    show(rows, columns, form, quiet=quiet, quiet_key="name")


@command.command("create", help="Make a context NAME for the controller at HOST (unix:///path, host:port, or a list).")
@click.argument("name")
@click.argument("host")
@click.option("--project", default=contexts.DEFAULT_PROJECT, help="The project to work in.")
@click.option("--use", "chosen", is_flag=True, help="Use it from now on.")
def create(name: str, host: str, project: str, chosen: bool) -> None:
    directory = contexts.config_dir(os.environ)
    contexts.save(directory, contexts.Context(name, host, project))
    if chosen:
        contexts.use(directory, name)
    say(f"context {name} is made" + (" and used" if chosen else f"; use it: argosy context use {name}"))


@command.command("use", help="Use a context from now on; 'default' for none.")
@click.argument("name")
def use(name: str) -> None:
    contexts.use(contexts.config_dir(os.environ), "" if name == "default" else name)
    say(f"context {name} is used")


@command.command("rm", help="Delete contexts; the clusters go on.")
@click.argument("names", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    for name in names:
        contexts.remove(contexts.config_dir(os.environ), name)
        say(f"context {name} is deleted")
