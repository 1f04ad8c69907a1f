"""Names that people give: services, networks, nodes, stacks, images; which are lawful and how they combine.

Service names become host names (RFC 1123 labels, at most 63 letters), to which we add the underscore, since a
service of a stack is called STACK_service and resolvers of containers accept it.
"""

import re
from dataclasses import dataclass
from typing import Final

from argosy.core.errors import InvalidError

MAX_LABEL: Final = 63
"""Letters in one label of a DNS name (RFC 1035, 2.3.4)."""
MAX_HOST_NAME: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.IGNORECASE)
_SERVICE: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?", re.IGNORECASE)
_LABEL_KEY: Final = re.compile(r"[a-z0-9](?:[a-z0-9._/-]*[a-z0-9])?", re.IGNORECASE)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REGISTRY: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])"
    r"(?::[0-9]{1,5})?"
)
_PATH: Final = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_OFFICIAL: Final = "library/"


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


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image's name, taken apart. `tag` is "" when only a digest was given; `digest` is "" or "sha256:…"."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The whole name, the same for all ways to write it: "docker.io/library/web:latest"."""
        return f"{self.registry}/{self.path}{self._suffix(self.tag)}"

    @property
    def familiar(self) -> str:
        """The name as people write it: "web:latest", "registry.example:5000/team/web:1"."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        return f"{self.path.removeprefix(_OFFICIAL)}{self._suffix(self.tag)}"

    def _suffix(self, tag: str) -> str:
        return (f":{tag}" if tag else "") + (f"@{self.digest}" if self.digest else "")


def is_digest(text: str) -> bool:
    """Whether `text` is the digest of content, "sha256:" and 64 hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def parse_image(text: str) -> ImageReference:
    """Return the parts of an image name in the distribution project's grammar; InvalidError says what is wrong."""
    rest, _, digest = text.partition("@")
    if "@" in text and not is_digest(digest):
        raise InvalidError(f'image "{text}": after "@" stands a digest, "sha256:" and 64 hexadecimal digits')
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise InvalidError(f'image "{text}": "{tag}" is no tag: letters, digits, "_", "." and "-", at most 128')
    registry, path = _split_registry(head)
    if not _REGISTRY.fullmatch(registry):
        raise InvalidError(f'image "{text}": "{registry}" is no registry: write HOST or HOST:PORT before the first "/"')
    if not _PATH.fullmatch(path):
        raise InvalidError(_path_message(text, path))
    if len(registry) + 1 + len(path) > 255:
        raise InvalidError(f'image "{text[:40]}…": the name has more than 255 letters')
    return ImageReference(registry, path, tag or ("" if digest else DEFAULT_TAG), digest)


def _split_registry(head: str) -> tuple[str, str]:
    first, slash, rest = head.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return first, (_OFFICIAL + rest if first == DEFAULT_REGISTRY and "/" not in rest else rest)
    return DEFAULT_REGISTRY, head if slash else _OFFICIAL + head


def _path_message(text: str, path: str) -> str:
    if not text:
        return "an image name is missing: write it like web:1.0"
    if path != path.lower():
        return f'image "{text}": names of images are in lower case: "{text.lower()}"'
    return f'image "{text}" is not an image name: write it like web:1.0 or registry.example:5000/team/web:1.0'
