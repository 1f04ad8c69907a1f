"""The simulator's seeds as tests. They run in processes of their own, where hashes of strings are no chance."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sim.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 500


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run seeds. They take all cores for a while: whatever is tested beside them, and timed, goes first."""
    command = ["nice", sys.executable, "-m", "tests.sim", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(900)
def test_every_invariant_holds():
    cores = os.cpu_count() or 1
    shares = [",".join(map(str, range(first, SEEDS + 1, cores))) for first in range(1, cores + 1)]
    with ThreadPoolExecutor(cores) as processes:
        done = list(processes.map(simulate, shares))
    failed = [one.stdout + one.stderr for one in done if one.returncode != 0]
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)


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
