"""The systemd units: what the others' promises rest on."""

from configparser import RawConfigParser
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))


def read(unit: Path) -> RawConfigParser:
    found = RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(unit)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_process_is_started_again_however_often_it_ended(unit: Path) -> None:
    """By itself systemd gives up after five starts in ten seconds, `Restart=always` or not."""
    found = read(unit)
    assert found["Service"]["Restart"] == "always"
    assert found["Unit"]["StartLimitIntervalSec"] == "0"


def test_containers_outlive_the_agent() -> None:
    service = read(next(unit for unit in UNITS if unit.stem == "argosy-agent"))["Service"]
    assert (service["KillMode"], service["RuntimeDirectoryPreserve"]) == ("process", "yes")
    assert not [key for key in service if key.startswith(("Private", "Protect"))]  # each makes a mount namespace
