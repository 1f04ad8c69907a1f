"""Names that people give: services, networks, nodes, stacks, labels; which are lawful and how they combine.

Service names become host names (RFC 1123 labels, at most 63 letters), to which we add the underscore, since a
service of a stack is called STACK_service and resolvers of containers accept it. Names of images: core/oci/names.py.
"""

import re
from typing import Final

MAX_LABEL: Final = 63
"""Letters in one label of a DNS name (RFC 1035, 2.3.4)."""
MAX_HOST_NAME: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.IGNORECASE)
_SERVICE: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?", re.IGNORECASE)
_LABEL_KEY: Final = re.compile(r"[a-z0-9](?:[a-z0-9._/-]*[a-z0-9])?", re.IGNORECASE)


def dns_label_problem(text: str) -> str | None:
    """Say what keeps `text` from being one label of a DNS name, or None."""
    return _label_problem(text, _LABEL, 'letters, digits and "-", with a letter or digit at both ends')


def service_name_problem(text: str) -> str | None:
    """Say what keeps `text` from naming a service, network or stack, or None."""
    return _label_problem(text, _SERVICE, 'letters, digits, "-" and "_", with a letter or digit at both ends')


def _label_problem(text: str, pattern: re.Pattern[str], rule: str) -> str | None:
    if not text:
        return "a name is missing"
    if len(text) > MAX_LABEL:
        return f'"{text[:20]}…" has {len(text)} letters: a name has at most {MAX_LABEL}'
    if not pattern.fullmatch(text):
        better = _suggest(text, pattern)
        return f'"{text}" is not a name: use {rule}' + (f', such as "{better}"' if better else "")
    return None


def _suggest(text: str, pattern: re.Pattern[str]) -> str:
    better = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")
    if not pattern.fullmatch(better):
        better = better.replace("_", "-")
    return better if better and pattern.fullmatch(better) else ""


def host_name_problem(text: str) -> str | None:
    """Say what keeps `text` from being a host name of one or more labels (underscores allowed), or None."""
    if len(text) > MAX_HOST_NAME:
        return f"a host name has at most {MAX_HOST_NAME} letters, this one {len(text)}"
    for label in text.split("."):
        problem = service_name_problem(label)
        if problem:
            return f'"{text}" has an empty part' if not label and text else problem
    return None


def alias_problem(text: str) -> str | None:
    """Say what keeps `text` from being one more name of a service on a network, or None.

    tasks.SERVICE and N.SERVICE are names that every service has already: an alias would take them from it.
    """
    head, dot, service = text.partition(".")
    problem = host_name_problem(text)
    if problem or not dot or not (head.lower() == "tasks" or head.isdecimal()):
        return problem
    meant = f"the task in slot {head}" if head.isdecimal() else "all tasks"
    return f'"{text}" means {meant} of {service}: choose another alias, such as "{head}-{service}"'


def label_key_problem(text: str) -> str | None:
    """Say what keeps `text` from being the key of a node label (constraints name it), or None."""
    if not text:
        return "a label needs a key"
    if len(text) > MAX_HOST_NAME or not _LABEL_KEY.fullmatch(text):
        return f'"{text}" is no key for a label: use letters, digits, ".", "_", "-" and "/", such as "zone"'
    return None


def stack_name(stack: str, name: str) -> str:
    """Return what the service or network `name` of a stack is called in the cluster."""
    return f"{stack}_{name}"


def unstacked_name(stack: str, full_name: str) -> str:
    """Return the name within its stack: the reverse of stack_name; other names as they are."""
    return full_name.removeprefix(f"{stack}_") if stack else full_name
