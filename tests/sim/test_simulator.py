"""The simulator's seeds as tests. Each runs in a process of its own, where hashes of strings are no chance."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
SHARE = 50
"""Seeds in one test."""


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(1, 501, SHARE))
def test_every_invariant_holds(first: int):
    done = simulate(f"{first}..{first + SHARE - 1}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_a_seed_goes_the_same_way_every_time():
    seeds = "1..6"
    one, other = simulate(seeds, "--digest", "--twice"), simulate(seeds, "--digest")
    assert one.returncode == 0, one.stdout
    digests = [line for line in one.stdout.splitlines() if "digest" in line]
    assert len(digests) == 6
    assert digests == [line for line in other.stdout.splitlines() if "digest" in line]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_still_fits_the_code(mutant):
    text = (ROOT / mutant.path).read_text()
    for old, _ in mutant.edits:
        assert text.count(old) == 1, f"{mutant.path} has changed: let the mutant follow\n{old}"
