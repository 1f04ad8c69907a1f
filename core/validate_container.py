"""Validation of what runs in a task: everything about a container that can be judged without a cluster."""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from argosy.core.hostname import hostname_problem
from argosy.core.kernel_names import (
    EVERY_CAPABILITY,
    capability_name,
    capability_problem,
    sysctl_problem,
    tmpfs_option_problem,
    ulimit_problem,
)
from argosy.core.names import host_name_problem
from argosy.core.oci.digests import is_digest
from argosy.core.oci.names import normalise
from argosy.core.problem import Problem, Problems, duration, readable, said, when
from argosy.core.service import ContainerSpec, DnsConfig, Tmpfs, Ulimit
from argosy.core.signals import parse_signal
from argosy.core.validate_files import file_problems
from argosy.core.validate_health import healthcheck_problems, readiness_problems

_USER: Final = re.compile(r"([0-9]{1,20}|[A-Za-z_][A-Za-z0-9_.-]*\$?)(:([0-9]{1,20}|[A-Za-z_][A-Za-z0-9_.-]*\$?))?")
LARGEST_ID: Final = 65535
"""Each task has a range of 65,536 user and group ids."""
LARGEST_MODE: Final = 0o7777
HIGHEST_LIMIT: Final = (1 << 63) - 1


def container_problems(spec: ContainerSpec, where: str) -> Problems:
    """Yield what is wrong with a container; `where` is the path of the field that holds it."""
    yield from _image(spec, where)
    yield from _program(spec, where)
    yield from said(f"{where}.hostname", hostname_problem(spec.hostname) if spec.hostname else None)
    yield from when("" in spec.labels, f"{where}.labels", "a label needs a key")
    if spec.stop_signal:
        yield from readable(f"{where}.stop_signal", parse_signal, spec.stop_signal)
    if spec.stop_grace_period is not None:
        yield from duration(f"{where}.stop_grace_period", spec.stop_grace_period, "the grace period")
    yield from _ulimits(spec.ulimits, f"{where}.ulimits")
    yield from _tmpfs(spec.tmpfs, f"{where}.tmpfs")
    yield from _capabilities(spec, where)
    for name, value in spec.sysctls.items():
        path = f"{where}.sysctls[{name}]"
        yield from said(path, sysctl_problem(name))
        yield from when(not value.strip() or not _one_line(value), path, "a sysctl needs a value of one line")
    if spec.healthcheck is not None:
        yield from healthcheck_problems(spec.healthcheck, f"{where}.healthcheck")
    if spec.readiness is not None:
        yield from readiness_problems(spec.readiness, f"{where}.readiness")
    for i, entry in enumerate(spec.extra_hosts):
        yield from said(f"{where}.extra_hosts[{i}]", _extra_host(entry))
    yield from _dns(spec.dns, f"{where}.dns")
    yield from file_problems(spec.files, spec.tmpfs, f"{where}.files")


def _one_line(text: str) -> bool:
    return not any(c in text for c in "\n\0")


def _image(spec: ContainerSpec, where: str) -> Problems:
    if not spec.image:
        yield Problem(f"{where}.image", "an image is missing: name one that `argosy image ls` shows")
    else:
        yield from readable(f"{where}.image", normalise, spec.image)
    if spec.image_digest and not is_digest(spec.image_digest):
        yield Problem(f"{where}.image_digest", 'a digest is "sha256:" and 64 hexadecimal digits')


def _program(spec: ContainerSpec, where: str) -> Problems:
    for name, words in (("entrypoint", spec.entrypoint), ("command", spec.command)):
        yield from when(any("\0" in w for w in words), f"{where}.{name}", "a word of a command cannot hold a zero byte")
    for name, words, is_set in (
        ("entrypoint", spec.entrypoint, spec.entrypoint_set),
        ("command", spec.command, spec.command_set),
    ):
        yield from when(
            bool(words) and not is_set, f"{where}.{name}", f"{name} is given but {name}_set is false: set it to true"
        )
    for i, entry in enumerate(spec.env):
        yield from said(f"{where}.env[{i}]", _env(entry))
    repeated = [name for name, count in Counter(e.partition("=")[0] for e in spec.env).items() if count > 1]
    for name in repeated:
        yield Problem(f"{where}.env", f"the variable {name} is given more than once: keep one")
    yield from said(f"{where}.user", _user(spec.user))
    if spec.working_dir:
        yield from said(f"{where}.working_dir", _path(spec.working_dir, "the working directory"))


def _env(entry: str) -> str | None:
    name, _, value = entry.partition("=")
    if not name:
        return f'"{entry}" has no name before the "=": write NAME=value'
    if "\0" in value or any(c.isspace() or not c.isprintable() for c in name):
        return f"the name of the variable {name!r} has a blank or unprintable character: write NAME=value"
    return None


def _user(text: str) -> str | None:
    if not text:
        return None
    if not _USER.fullmatch(text):
        return f'"{text}" is not a user: write USER, UID, USER:GROUP or UID:GID, such as 1000:1000'
    too_high = [part for part in text.split(":") if part.isdigit() and int(part) > LARGEST_ID]
    if too_high:
        return f"the id {too_high[0]} is too high: a container has the ids 0 to {LARGEST_ID}"
    return None


def _path(text: str, what: str) -> str | None:
    if not text.startswith("/"):
        return f'{what} "{text}" is not absolute: write it from the root, such as "/{text.lstrip("./")}"'
    if not _one_line(text) or ".." in text.split("/"):
        return f'{what} "{text}" cannot hold "..", line ends or zero bytes'
    return None


def _ulimits(ulimits: Iterable[Ulimit], where: str) -> Problems:
    seen: set[str] = set()
    for i, limit in enumerate(ulimits):
        path = f"{where}[{i}]"
        yield from said(path, ulimit_problem(limit.name))
        yield from when(limit.name in seen, path, f"the ulimit {limit.name} is given more than once: keep one")
        seen.add(limit.name)
        soft, hard = (math.inf if value == -1 else value for value in (limit.soft, limit.hard))
        if min(soft, hard) < 0 or max(limit.soft, limit.hard) > HIGHEST_LIMIT:
            yield Problem(path, f"a limit of {limit.name} is out of bounds: use 0 or more, or -1 for unlimited")
        elif soft > hard:
            have = "unlimited" if limit.soft == -1 else f"{limit.soft:,}"
            yield Problem(
                path, f"the soft limit of {limit.name} ({have}) is above the hard one ({limit.hard:,}): lower it"
            )


def _tmpfs(mounts: Iterable[Tmpfs], where: str) -> Problems:
    seen: set[str] = set()
    for i, mount in enumerate(mounts):
        path, target = f"{where}[{i}]", mount.target.rstrip("/")
        problem = _path(mount.target, "the target") if mount.target else "a target is missing: write it like /run"
        yield from said(f"{path}.target", problem)
        if problem is None:
            yield from when(
                not target, f"{path}.target", "the root cannot be a tmpfs: mount one below it, such as /tmp"
            )
            yield from when(target in seen, f"{path}.target", f"{target} is mounted more than once: keep one")
        seen.add(target)
        yield from when(mount.size_bytes < 0, f"{path}.size_bytes", "the size is negative: use 0 for the default")
        yield from when(
            not 0 <= mount.mode <= LARGEST_MODE, f"{path}.mode", "the mode has to be from 0 to 7777 in octal"
        )
        for option in filter(None, mount.options.split(",")):
            yield from said(f"{path}.options", tmpfs_option_problem(option))


def _capabilities(spec: ContainerSpec, where: str) -> Problems:
    for field, names in (("cap_add", spec.cap_add), ("cap_drop", spec.cap_drop)):
        for i, name in enumerate(names):
            yield from said(f"{where}.{field}[{i}]", capability_problem(name))
    both = set(map(capability_name, spec.cap_add)) & set(map(capability_name, spec.cap_drop))
    for name in sorted(both):
        what = "all capabilities are" if name == EVERY_CAPABILITY else f"{name} is"
        yield Problem(f"{where}.cap_drop", f"{what} both added and dropped: take it out of one of the two")


def _extra_host(entry: str) -> str | None:
    name, colon, address = entry.partition(":")
    if not colon or not name:
        return f'"{entry}" is not an extra host: write NAME:ADDRESS, such as db:192.0.2.7'
    problem = host_name_problem(name)
    if problem:
        return f'in "{entry}": {problem}'
    if not _is_address(address.removeprefix("[").removesuffix("]")):
        return f'in "{entry}": "{address}" is not an IP address'
    return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _dns(dns: DnsConfig, where: str) -> Problems:
    for i, server in enumerate(dns.nameservers):
        yield from when(
            not _is_address(server), f"{where}.nameservers[{i}]", f'"{server}" is not an IP address, such as 192.0.2.53'
        )
    for i, domain in enumerate(dns.search):
        if domain != ".":
            yield from said(f"{where}.search[{i}]", host_name_problem(domain.removesuffix(".")))
    for i, option in enumerate(dns.options):
        blank = not option or any(c.isspace() or not c.isprintable() for c in option)
        yield from when(blank, f"{where}.options[{i}]", f'"{option}" is not one option: write it like ndots:2')
