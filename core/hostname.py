"""Host names of containers from templates: "{{.Service.Name}}-{{.Task.Slot}}" becomes "web-3".

The placeholders are Docker Swarm's. Controllers validate templates when a service is declared, agents expand them
when they make a task.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from argosy.core.errors import InvalidError
from argosy.core.names import host_name_problem

MAX_HOSTNAME: Final = 64
"""The kernel's HOST_NAME_MAX (sethostname(2))."""


@dataclass(frozen=True, slots=True)
class HostnameContext:
    """What placeholders may name. A slot of 0 (global services) reads as the node's id, as in Swarm."""

    service_id: str = ""
    service_name: str = ""
    service_labels: Mapping[str, str] = field(default_factory=dict)
    node_id: str = ""
    node_hostname: str = ""
    task_id: str = ""
    slot: int = 0


_FIELDS: Final[Mapping[str, Callable[[HostnameContext], str]]] = {
    ".Service.ID": lambda c: c.service_id,
    ".Service.Name": lambda c: c.service_name,
    ".Node.ID": lambda c: c.node_id,
    ".Node.Hostname": lambda c: c.node_hostname,
    ".Task.ID": lambda c: c.task_id,
    ".Task.Name": lambda c: f"{c.service_name}.{c.slot or c.node_id}.{c.task_id}",
    ".Task.Slot": lambda c: str(c.slot) if c.slot else c.node_id,
}
_PLACEHOLDER: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_LABEL: Final = re.compile(r'index\s+\.Service\.Labels\s+"([^"]*)"')
_SAMPLE: Final = HostnameContext("s" * 13, "service", {}, "n" * 13, "node", "t" * 13, 1)


def expand_hostname(template: str, context: HostnameContext) -> str:
    """Return `template` with its placeholders filled in; InvalidError when it, or the result, is no host name."""
    name = _fill(template, context)
    problem = _result_problem(name)
    if problem:
        raise InvalidError(f'host name "{template}" becomes "{name}": {problem}')
    return name


def hostname_problem(template: str) -> str | None:
    """Say what is wrong with a template whatever it will be filled with, or None."""
    try:
        name = _fill(template, _SAMPLE)
    except InvalidError as error:
        return str(error)
    return host_name_problem(name) if "{{" in template else _result_problem(name)


def _fill(template: str, context: HostnameContext) -> str:
    name = _PLACEHOLDER.sub(lambda match: _value(match[1].strip(), template, context), template)
    if "{{" in name or "}}" in name:
        raise InvalidError(f'in "{template}" a placeholder is not closed: write it like {{{{.Task.Slot}}}}')
    return name


def _value(inside: str, template: str, context: HostnameContext) -> str:
    reader = _FIELDS.get(inside)
    if reader:
        return reader(context)
    label = _LABEL.fullmatch(inside)
    if label:
        return context.service_labels.get(label[1], "" if context is not _SAMPLE else "label")
    near = difflib.get_close_matches(inside, _FIELDS, 1, 0.5)
    hint = f"did you mean {{{{{near[0]}}}}}?" if near else f"there are {', '.join(_FIELDS)}"
    raise InvalidError(f'in "{template}" nothing is known as "{inside}": {hint}')


def _result_problem(name: str) -> str | None:
    if len(name) > MAX_HOSTNAME:
        return f"a host has a name of at most {MAX_HOSTNAME} letters, this one has {len(name)}"
    return host_name_problem(name)
