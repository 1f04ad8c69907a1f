"""Changes to an image's configuration, in the words of a Dockerfile: CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL,
STOPSIGNAL, HEALTHCHECK. Pure. `--change` gives whole instructions, other options parts of them.

Source: the Dockerfile reference, for the exec, shell and key=value forms; OCI image-spec, config.md, for the result.
"""

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from argosy.cli.errors import InvalidInputError
from argosy.cli.images.local import LocalImage, assemble, document

Config: TypeAlias = dict[str, Any]
"""The part "config" of an image configuration."""
Change: TypeAlias = Callable[[Config], None]
"""Changes a configuration in place."""

_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIGNAL: Final = re.compile(r"(SIG)?[A-Z][A-Z0-9+-]*|[0-9]{1,2}")
_ENV_NAME: Final = re.compile(r"[^=\s]+")


def parse_change(text: str) -> Change:
    """Return the change that an instruction such as `CMD ["nginx"]` means; InvalidInputError."""
    word, _, rest = text.strip().partition(" ")
    reader = _READERS.get(word.upper())
    if reader is None:
        raise InvalidInputError(
            f"'{text}' is no change that can be made to an image", f"changes begin with {', '.join(_READERS)}"
        )
    return reader(rest.strip(), text)


def change_image(image: LocalImage, changes: Sequence[Change]) -> LocalImage:
    """Return the image with changes made to its configuration; the very same without any."""
    if not changes:
        return image
    settings = json.loads(image.config)
    config = dict(settings.get("config") or {})
    for change in changes:
        change(config)
    return assemble(document({**settings, "config": config}), image.layers)


def set_entrypoint(words: Sequence[str]) -> Change:
    """ENTRYPOINT; it takes back the image's command, which belonged to the old one, as Docker does."""

    def change(config: Config) -> None:
        config["Entrypoint"] = list(words)
        config.pop("Cmd", None)

    return change


def set_command(words: Sequence[str]) -> Change:
    """CMD."""
    return _set("Cmd", list(words))


def set_env(name: str, value: str) -> Change:
    """ENV: replaces the variable where it stands, or adds it."""

    def change(config: Config) -> None:
        env = [str(v) for v in config.get("Env") or ()]
        index = next((i for i, v in enumerate(env) if v.partition("=")[0] == name), len(env))
        config["Env"] = [*env[:index], f"{name}={value}", *env[index + 1 :]]

    return change


def set_label(name: str, value: str) -> Change:
    """LABEL."""

    def change(config: Config) -> None:
        config["Labels"] = {**(config.get("Labels") or {}), name: value}

    return change


def set_user(user: str) -> Change:
    """USER."""
    return _set("User", user)


def set_workdir(path: str) -> Change:
    """WORKDIR; a relative one goes on from the image's."""

    def change(config: Config) -> None:
        config["WorkingDir"] = posixpath.normpath(posixpath.join(config.get("WorkingDir") or "/", path))

    return change


def parse_words(text: str) -> list[str]:
    """Return a JSON list of strings, or words split as a shell does; InvalidInputError."""
    words = _json_words(text)
    if words is not None:
        return words
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidInputError(f"'{text}' cannot be split into words: {error}") from None


def parse_pair(text: str, what: str) -> tuple[str, str]:
    """Return name and value of NAME=VALUE; InvalidInputError."""
    name, equals, value = text.partition("=")
    if not equals or not _ENV_NAME.fullmatch(name) or "\0" in text:
        raise InvalidInputError(f"'{text}' is no {what}", "write NAME=VALUE")
    return name, value


def _set(key: str, value: Any) -> Change:
    def change(config: Config) -> None:
        config[key] = value

    return change


def _exec_or_shell(text: str, whole: str) -> list[str]:
    """Return the words of the exec form ["a", "b"], or the shell form wrapped in /bin/sh -c."""
    if not text:
        raise InvalidInputError(
            f"'{whole}' lacks what to run", 'write it as ["program", "argument"] or as a line for sh'
        )
    words = _json_words(text)
    return ["/bin/sh", "-c", text] if words is None else words


def _json_words(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        raise InvalidInputError(
            f"'{text}' is no JSON list", 'write ["program", "argument"], with double quotes'
        ) from None
    if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
        raise InvalidInputError(f"'{text}' is no list of strings", 'write ["program", "argument"]')
    return words


def _pairs(text: str, whole: str) -> list[tuple[str, str]]:
    """Return the pairs of `A=1 B="2 3"`, or the one of the old form `A 1`."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidInputError(f"'{whole}' cannot be split into words: {error}") from None
    if len(words) > 1 and "=" not in words[0]:
        name, _, value = text.partition(" ")
        return [(name, value.strip())]
    if not words:
        raise InvalidInputError(f"'{whole}' lacks NAME=VALUE")
    return [parse_pair(word, "NAME=VALUE") for word in words]


def _all(changes: Sequence[Change]) -> Change:
    def change(config: Config) -> None:
        for one in changes:
            one(config)

    return change


def _read_env(text: str, whole: str) -> Change:
    return _all([set_env(name, value) for name, value in _pairs(text, whole)])


def _read_label(text: str, whole: str) -> Change:
    return _all([set_label(name, value) for name, value in _pairs(text, whole)])


def _read_word(setter: Callable[[str], Change]) -> Callable[[str, str], Change]:
    def read(text: str, whole: str) -> Change:
        words = parse_words(text)
        if len(words) != 1 or not words[0]:
            raise InvalidInputError(f"'{whole}' needs exactly one value")
        return setter(words[0])

    return read


def _set_stop_signal(text: str) -> Change:
    if not _SIGNAL.fullmatch(text):
        raise InvalidInputError(f"'{text}' is no signal", "write a name such as SIGTERM, or a number")
    return _set("StopSignal", text)


def _read_healthcheck(text: str, whole: str) -> Change:
    """`HEALTHCHECK [--interval=30s …] CMD …` or `HEALTHCHECK NONE`."""
    found: dict[str, Any] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        text = text.strip()
        name, _, value = option.removeprefix("--").partition("=")
        if name == "retries" and value.isdigit():
            found["Retries"] = int(value)
        elif name in _HEALTH_TIMES:
            found[_HEALTH_TIMES[name]] = _nanoseconds(value)
        else:
            known = ", ".join(f"--{n}=" for n in (*_HEALTH_TIMES, "retries"))
            raise InvalidInputError(f"'{option}' is no option of HEALTHCHECK", f"there are {known}")
    word, _, rest = text.partition(" ")
    if word.upper() == "NONE":
        return _set("Healthcheck", {"Test": ["NONE"]})
    if word.upper() != "CMD" or not rest.strip():
        raise InvalidInputError(f"'{whole}' lacks CMD and what to run", "or write HEALTHCHECK NONE")
    words = _json_words(rest.strip())
    test = ["CMD-SHELL", rest.strip()] if words is None else ["CMD", *words]
    return _set("Healthcheck", {**found, "Test": test})


_HEALTH_TIMES: Final[Mapping[str, str]] = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _nanoseconds(text: str) -> int:
    """Return a duration such as 1m30s."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInputError(f"'{text}' is no duration", "write it like 1m30s")
    return round(sum(float(number) * _SECONDS[unit] for number, unit in parts) * 1e9)


_READERS: Final[Mapping[str, Callable[[str, str], Change]]] = {
    "CMD": lambda text, whole: set_command(_exec_or_shell(text, whole)),
    "ENTRYPOINT": lambda text, whole: set_entrypoint(_exec_or_shell(text, whole)),
    "ENV": _read_env,
    "USER": _read_word(set_user),
    "WORKDIR": _read_word(set_workdir),
    "LABEL": _read_label,
    "STOPSIGNAL": _read_word(_set_stop_signal),
    "HEALTHCHECK": _read_healthcheck,
}
