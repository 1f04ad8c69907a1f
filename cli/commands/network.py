"""`argosy network`: overlay networks."""

import click

from argosy.cli import complete
from argosy.cli.commands import network_attach, network_keys, network_verify
from argosy.cli.output import Column, format_option, notice, quiet_option, say, show
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import until_gone, waiting_options
from argosy.core.network import LEAST_MTU, MOST_MTU

COLUMNS = (
    Column("ID", "id", rank=2),
    Column("NAME", "name"),
    Column("SUBNET", "subnet"),
    Column("VNI", "vni", rank=3),
    Column("STACK", "stack", rank=1),
    Column(
        "FLAGS",
        lambda row: " ".join(name for name in ("internal", "attachable", "encrypted", "removing") if row[name]),
        rank=4,
    ),
)


MTU_OPTION = "com.docker.network.driver.mtu"
_TRUTHS = {"": True, "true": True, "1": True, "false": False, "0": False}


def _driver_options(ctx: click.Context, param: click.Parameter, options: tuple[str, ...]) -> dict[str, bool | int]:
    """Read the driver's options as Docker writes them: "encrypted" and "mtu", where they are given."""
    found: dict[str, bool | int] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name == "encrypted" and value.lower() in _TRUTHS:
            found["encrypted"] = _TRUTHS[value.lower()]
        elif name == MTU_OPTION and _is_mtu(value):
            found["mtu"] = int(value)
        elif name in ("encrypted", MTU_OPTION):
            example = "true" if name == "encrypted" else f"1400, or another number from {LEAST_MTU} to {MOST_MTU}"
            raise click.BadParameter(f"'{value}' is no value of '{name}': write {name}={example}")
        else:
            raise click.BadParameter(f"there is no option '{name}': there are 'encrypted' and '{MTU_OPTION}'")
    return found


def _is_mtu(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 10 and LEAST_MTU <= int(value) <= MOST_MTU


@click.group(name="network", help="List, look into, create, remove, verify and try networks.")
def command() -> None:
    pass


command.add_command(network_verify.command)
command.add_command(network_attach.command)
command.add_command(network_keys.command)


@command.command("ls", help="List networks.")
@quiet_option
@format_option
@pass_session
def list_networks(session: Session, quiet: bool, form: str) -> None:
    control = session.control
    from argosy.cli.rows import network_rows
    from argosy.proto.argosy.v1 import control_pb2 as pb

    reply = control.ListNetworks(pb.ListNetworksRequest(project=session.project))
    show(network_rows(reply.networks), COLUMNS, form, quiet=quiet)


@command.command(
    "inspect", help="Show networks in full, as JSON: slices by node, addresses used and free, who waits for one."
)
@click.option("--format", "form", type=click.Choice(["json"]), default="json", hidden=True)
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...", shell_complete=complete.networks)
@pass_session
def inspect(session: Session, form: str, networks: tuple[str, ...]) -> None:
    control = session.control
    from argosy.cli.messages import plain
    from argosy.cli.output import show_json
    from argosy.proto.argosy.v1 import control_pb2 as pb

    found = [control.GetNetwork(pb.GetNetworkRequest(project=session.project, ref=ref)) for ref in networks]
    show_json([plain(reply) for reply in found])


def _one_subnet(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> str:
    if len(given) > 1:
        raise click.BadParameter(f"{' and '.join(given)}: a network has one subnet; create another network")
    return given[0] if given else ""


@command.command("create", help="Create a network that stacks can join as an external one.")
@click.option(
    "--subnet",
    multiple=True,
    metavar="CIDR",
    callback=_one_subnet,
    help="Its addresses, like 10.20.0.0/16; else the cluster chooses.",
)
@click.option(
    "--ip-range",
    default="",
    metavar="CIDR",
    help="Choose tasks' addresses from this part of the subnet; services may ask for others.",
)
@click.option(
    "--mtu",
    type=click.IntRange(LEAST_MTU, MOST_MTU),
    default=None,
    metavar="BYTES",
    help="MTU of containers' links; else as the hosts' links allow.",
)
@click.option("--internal", is_flag=True, help="Without a way out of the cluster.")
@click.option("--attachable", is_flag=True, help="A mark for people: single containers may join any network.")
@click.option(
    "--encrypted", is_flag=True, help="What goes from host to host goes through WireGuard tunnels, or not at all."
)
@click.option(
    "--opt",
    "options",
    multiple=True,
    metavar="NAME[=VALUE]",
    callback=_driver_options,
    help=f"'encrypted' or '{MTU_OPTION}', as Docker writes them.",
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Set a label.")
@click.argument("name")
@pass_session
def create(
    session: Session,
    subnet: str,
    ip_range: str,
    mtu: int | None,
    internal: bool,
    attachable: bool,
    encrypted: bool,
    options: dict[str, bool | int],
    labels: tuple[str, ...],
    name: str,
) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb
    from argosy.proto.argosy.v1 import types_pb2 as types

    pairs = dict(label.partition("=")[::2] for label in labels)
    if (encrypted and not options.get("encrypted", True)) or (mtu and mtu != options.get("mtu", mtu)):
        raise click.UsageError("--opt says otherwise than --encrypted or --mtu: keep one of them")
    spec = types.NetworkSpec(
        name=name,
        labels=pairs,
        subnet=subnet,
        internal=internal,
        attachable=attachable,
        encrypted=encrypted or bool(options.get("encrypted")),
        ip_range=ip_range,
        mtu=mtu or options.get("mtu", 0),
    )
    network = control.CreateNetwork(pb.CreateNetworkRequest(project=session.project, spec=spec))
    say(f"network {network.spec.name} is created" + (f" with {network.subnet}" if network.subnet else ""))


@command.command("rm", help="Remove networks, and wait until they are gone.")
@waiting_options
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...", shell_complete=complete.networks)
@pass_session
def remove(session: Session, detach: bool, timeout: float, networks: tuple[str, ...]) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    for ref in networks if len(networks) > 1 else ():  # nothing is done to the first where there is no second
        control.GetNetwork(pb.GetNetworkRequest(project=session.project, ref=ref))
    gone = [control.RemoveNetwork(pb.RemoveNetworkRequest(project=session.project, ref=ref)) for ref in networks]
    for network in gone:
        notice(f"{network.spec.name}: being removed")
    if not detach:
        until_gone(session, (), gone, timeout=timeout)
        for network in gone:
            say(f"network {network.spec.name} removed")
