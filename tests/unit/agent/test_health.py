"""Health from the outcomes of checks."""

import pytest

from argosy.agent.logic.health import Health, Told, command_of, effective_check
from argosy.core.service import Healthcheck, TcpProbe

CHECK = Healthcheck(test=("CMD", "true"), retries=3, start_period=10.0, start_interval=1.0, interval=30.0)


def run(outcomes, check=CHECK, step_s=5.0):
    health = Health(0.0)
    for i, well in enumerate(outcomes, start=1):
        health = health.after(check, i * step_s, well, "" if well else "broken")
    return health


@pytest.mark.parametrize(
    ("outcomes", "given_up"),
    [
        ([False], False),  # in the start period
        ([False, False, False, False], True),  # three after it (at 10, 15 and 20 s)
        ([False, False, False], False),
        ([True, False, False, False], True),  # once well, the start period is over
        ([True, False, False, True, False, False], False),
    ],
)
def test_giving_up(outcomes, given_up):
    assert run(outcomes).given_up(CHECK) is given_up


def test_checks_come_faster_in_the_start_period():
    assert Health(0.0).next_delay_s(CHECK, 5.0) == 1.0
    assert Health(0.0).next_delay_s(CHECK, 10.0) == 30.0
    assert Health(0.0, ever_well=True).next_delay_s(CHECK, 5.0) == 30.0


def test_the_reason_has_the_first_words():
    assert run([False] * 4).reason() == "health check failed 3 times: broken"
    said = Health(0.0).after(Healthcheck(retries=1), 1.0, False, "\n  no database \ntrace…\n")
    assert said.reason() == "health check failed once: no database"


READY = Healthcheck(tcp=TcpProbe(80), retries=2, start_interval=1.0, interval=10.0)


@pytest.mark.parametrize(
    ("outcomes", "ready"),
    [
        ([], False),  # nothing is known yet
        ([False], False),
        ([True], True),
        ([True, False], True),
        ([True, False, False], False),
        ([True, False, False, True], True),  # readiness comes back
    ],
)
def test_readiness_comes_and_goes(outcomes, ready):
    assert run(outcomes, READY).is_ready(READY) is ready


def test_readiness_is_asked_soon_until_it_was_there_once():
    assert Health(0.0).next_readiness_delay_s(READY) == 1.0
    assert run([True, False, False], READY).next_readiness_delay_s(READY) == 10.0


def test_why_a_task_is_not_ready():
    assert Health(0.0).why_unready() == "not ready: waiting for the first answer of its readiness check"
    assert run([False], READY).why_unready() == "not ready: broken"


def test_a_probe_of_the_service_is_its_check():
    assert effective_check(READY, CHECK) == READY


@pytest.mark.parametrize(
    ("spec", "image", "test"),
    [
        (None, None, None),
        (None, CHECK, ("CMD", "true")),
        (Healthcheck(test=("NONE",)), CHECK, None),
        (Healthcheck(interval=1.0), CHECK, ("CMD", "true")),
        (Healthcheck(test=("CMD-SHELL", "exit 0")), CHECK, ("CMD-SHELL", "exit 0")),
        (Healthcheck(interval=1.0), None, None),
    ],
)
def test_the_services_check_goes_over_the_images(spec, image, test):
    check = effective_check(spec, image)
    assert (check.test if check else None) == test


def test_shell_checks_run_in_a_shell():
    assert command_of(Healthcheck(test=("CMD-SHELL", "wget -q localhost"))) == ("/bin/sh", "-c", "wget -q localhost")
    assert command_of(Healthcheck(test=("CMD", "a", "b"))) == ("a", "b")


def test_words_that_differ_each_time_are_told_ever_more_rarely():
    told, at = Told(), []
    for now in range(400):
        before, told = told, told.after(False, f"not ready: {now}", now)
        if told is not before:
            assert told.why_not == f"not ready: {now}"
            at.append(now)
    assert at == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]


def test_what_is_the_same_is_told_once_and_a_change_at_once():
    first = Told().after(False, "not ready: broken", 0.0)
    assert first.after(False, "not ready: broken", 99.0) is first
    well = first.after(True, "", 0.1)
    assert (well is not first, well.well) == (True, True)
    assert well.after(True, "of no matter", 99.0) is well
    again = well.after(False, "not ready: broken", 0.2)
    assert (again.well, again.why_not) == (False, "not ready: broken")
