"""Compose files written to a directory and loaded from there."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from argosy.cli.compose.problems import ComposeError
from argosy.cli.compose.stack import Input, Stack, load_stack
from argosy.core.service import ServiceSpec


class Files:
    """A directory of files. Every text is dedented."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, text: str) -> str:
        """Write a file; return its path."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    def load(
        self,
        text: str,
        *more: str,
        env: Mapping[str, str] | None = None,
        stack: str = "shop",
        profiles: tuple[str, ...] = (),
        env_files: tuple[str, ...] = (),
    ) -> Stack:
        """Load the files with these texts, as compose.yaml, compose-1.yaml …, as one stack."""
        names = [self.write("compose.yaml", text)]
        names += [self.write(f"compose-{i}.yaml", one) for i, one in enumerate(more, start=1)]
        return load_stack(Input(names, stack, env_files, profiles), env or {})

    def problems(self, text: str, *more: str, env: Mapping[str, str] | None = None, stack: str = "shop") -> list[str]:
        """Return what is wrong with files, each as it is shown, the directory cut off."""
        try:
            self.load(text, *more, env=env, stack=stack)
        except ComposeError as error:
            return [str(problem).replace(f"{self.directory}/", "") for problem in error.problems]
        return []

    def service(self, body: str, *, env: Mapping[str, str] | None = None) -> ServiceSpec:
        """Load a file whose one service `web` has this body (an image is added)."""
        lines = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
        return self.load(f"services:\n  web:\n    image: web\n{lines}\n", env=env).services[0]

    def service_problems(self, body: str) -> list[str]:
        """Return what is wrong with such a service."""
        lines = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
        return self.problems(f"services:\n  web:\n    image: web\n{lines}\n")


def by_name(stack: Stack) -> dict[str, ServiceSpec]:
    """Return a stack's services by their name in the file."""
    return {service.name.removeprefix(f"{stack.name}_"): service for service in stack.services}
