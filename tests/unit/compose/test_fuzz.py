"""Whatever a file holds, reading it ends in a stack or in problems with places, never in another exception."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.cli.compose.interpolate import InterpolationError, interpolate
from argosy.cli.compose.problems import ComposeError, Problem
from argosy.cli.compose.stack import Input, load_stack
from argosy.cli.compose.verdicts import all_keys

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**12),
    st.floats(allow_nan=True),
    st.sampled_from(["", "a", "1s", "64m", "a:b", "a=b", "$X", "${X:-y}", "!", "0x1F", "-1", "10.0.0.0/24", "global"]),
    st.text(max_size=8),
)
KEYS = st.sampled_from(sorted({part for key, _ in all_keys() for part in key.split(".")}))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
SERVICE_KEYS = sorted({key.split(".")[2] for key, _ in all_keys() if key.startswith("services.*.")})


def load(text: str) -> None:
    problems = _problems(text)
    assert problems is None or (problems and all(p.what and p.position.file for p in problems))


def _problems(text: str) -> tuple[Problem, ...] | None:
    try:
        load_stack(Input(["-"], "s", stdin=text), {})
    except ComposeError as error:
        return error.problems
    return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(SERVICE_KEYS), VALUES, max_size=5))
def test_services(service: dict[str, Any]) -> None:
    load(yaml.safe_dump({"services": {"web": {"image": "web", **service}}}))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["services", "networks", "include", "name", "volumes", "x-argosy"]), VALUES))
def test_files(document: dict[str, Any]) -> None:
    load(yaml.safe_dump(document))


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab:-?+${}[],&*#!\n '\"<"), max_size=40))
def test_text(text: str) -> None:
    load(text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("AB$${}:-?+ x"), max_size=30))
def test_interpolation(text: str) -> None:
    with suppress(InterpolationError):
        interpolate(text, {"A": "1", "B": ""})


def test_the_demo_s_file_is_accepted() -> None:
    demo = Path(__file__).parents[3] / "deploy" / "demo" / "compose.yaml"
    assert load_stack(Input([str(demo)], "demo"), {}).services
