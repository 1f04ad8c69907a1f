"""`argosy service create`: a service of its own, without a Compose file."""

from typing import Any

import click

from argosy.cli import complete
from argosy.cli.commands import network_option
from argosy.cli.commands.file_options import add_files
from argosy.cli.commands.job_options import MODES, apply_mode, job_options
from argosy.cli.commands.port_options import publish_option, publish_ports
from argosy.cli.commands.service_options import apply_options, pair, refuse_idle_check, spec_options
from argosy.cli.output import notice, say
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import settle, waiting_options


@click.command(
    "create",
    help="Create a service, and wait until it runs: argosy service create --name web --replicas 3 IMAGE [COMMAND...]",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.option("--name", required=True, metavar="NAME", help="What it is called.")
@click.option("--mode", type=click.Choice(MODES), default="replicated", help="A number of tasks, or one on each node.")
@job_options
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable.")
@click.option("-l", "--label", multiple=True, metavar="NAME=VALUE", help="Set a label of the service.")
@click.option("--container-label", multiple=True, metavar="NAME=VALUE", help="Set a label of the containers.")
@click.option("--constraint", multiple=True, metavar="EXPRESSION", help="Run where this holds: node.labels.zone==eu.")
@click.option("--placement-pref", multiple=True, metavar="spread=ATTRIBUTE", help="Spread over: node.labels.zone.")
@click.option("--network", multiple=True, metavar="NETWORK", help=network_option.HELP)
@click.option(
    "--config", "configs", multiple=True, metavar="NAME", help="Give it a config: NAME, or source=…,target=…."
)
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="Give it a secret, in /run/secrets.")
@publish_option
@click.option("--cap-add", multiple=True, metavar="CAPABILITY", help="Give the program a capability.")
@click.option("--cap-drop", multiple=True, metavar="CAPABILITY", help="Take a capability from it.")
@spec_options
@waiting_options
@click.argument("image", shell_complete=complete.images)
@click.argument("arguments", nargs=-1, metavar="[COMMAND...]")
@pass_session
def command(session: Session, /, detach: bool, timeout: float, **options: Any) -> None:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    spec = _spec(options)
    refuse_idle_check(session, options, spec)
    request = pb.CreateServiceRequest(project=session.project, spec=spec)
    created = session.control.CreateService(request)
    notice(f"{created.spec.name}: created")
    if not detach:
        settle(session, [created], timeout=timeout, continues="the service goes on coming up")
        say(_outcome(created.spec))


def _outcome(spec: Any) -> str:
    from argosy.cli.rows import is_job

    if not is_job(spec):
        return f"{spec.name} runs"
    return f"{spec.name}: its schedule is set" if spec.job.cron.schedule else f"{spec.name}: its run is complete"


def _spec(options: dict[str, Any]) -> Any:
    from argosy.core.codec import encode, encode_into
    from argosy.core.service import ServiceSpec
    from argosy.proto.argosy.v1 import types_pb2 as types

    spec = encode(ServiceSpec(name=options["name"]), types.ServiceSpec)
    container, task = spec.task.container, spec.task
    container.image = options["image"]
    if options["arguments"]:
        container.command[:] = options["arguments"]
        container.command_set = True
    container.env[:] = ["=".join(pair(text, "--env")) for text in options["env"]]
    for text in options["label"]:
        name, value = pair(text, "--label")
        spec.labels[name] = value
    for text in options["container_label"]:
        name, value = pair(text, "--container-label")
        container.labels[name] = value
    container.cap_add[:] = options["cap_add"]
    container.cap_drop[:] = options["cap_drop"]
    task.placement.constraints[:] = options["constraint"]
    for text in options["placement_pref"]:
        kind, value = pair(text, "--placement-pref")
        if kind != "spread":
            raise click.UsageError(f"'{text}': a preference is spread=ATTRIBUTE (for --placement-pref)")
        task.placement.preferences.add(spread=value)
    add_files(container, options["configs"], secret=False)
    add_files(container, options["secrets"], secret=True)
    for text in options["network"]:
        encode_into(network_option.attachment(text), task.networks.add())
    publish_ports(spec, options["publish"])
    apply_options(options, spec)
    apply_mode(options, spec)
    return spec
