"""The virtual machine boots, tells the truth about what ran in it, and passes a few of the kernel tests."""

import pytest

from tests.vm import machine

# Booting takes 2 to 3 s on an idle machine, Python under TCG 10 to 20 times its usual time.
TIMEOUT_S = 240.0


@pytest.mark.timeout(300)
def test_kernel_tests_pass_on_debians_kernel() -> None:
    outcome = machine.run(machine.pytest_command("-q", *machine.SMOKE), timeout_s=TIMEOUT_S)
    assert outcome.exit_code == 0, f"{outcome.output}\n--- console\n{outcome.console[-4000:]}"
    assert " passed" in outcome.output.splitlines()[-1]


@pytest.mark.timeout(300)
def test_exit_status_is_the_commands_own() -> None:
    outcome = machine.run(["sh", "-c", "echo said; exit 7"], timeout_s=TIMEOUT_S)
    assert (outcome.exit_code, outcome.output.strip()) == (7, "said"), outcome.console[-4000:]


@pytest.mark.timeout(300)
def test_machine_that_dies_has_no_exit_status() -> None:
    outcome = machine.run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"], timeout_s=TIMEOUT_S)
    assert outcome.exit_code is None
    assert "sysrq triggered crash" in outcome.console
    assert outcome.seconds < TIMEOUT_S


@pytest.mark.timeout(300)
def test_machine_that_hangs_is_ended_at_its_time_limit() -> None:
    outcome = machine.run(["sleep", "600"], timeout_s=6)
    assert outcome.exit_code is None
    assert 6 <= outcome.seconds < 60
