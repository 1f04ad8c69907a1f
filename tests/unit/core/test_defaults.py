"""What a service has that says nothing but its image: what people know from Docker and Swarm."""

import pytest

from argosy.controller.logic.change_service import REVISIONS_KEPT
from argosy.controller.logic.reap import HISTORY_PER_SLOT
from argosy.core.service import (
    DEFAULT_DRAIN_TIMEOUT_S,
    DEFAULT_STOP_GRACE_PERIOD_S,
    Disconnect,
    FailureAction,
    Healthcheck,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
    UpdateOrder,
)


@pytest.mark.parametrize("config", [ServiceSpec().update, ServiceSpec().rollback], ids=["update", "rollback"])
def test_update_and_rollback(config: UpdateConfig) -> None:
    assert (config.parallelism, config.delay, config.monitor, config.max_failure_ratio) == (1, 0.0, 5.0, 0.0)
    assert (config.failure_action, config.order) == (FailureAction.PAUSE, UpdateOrder.STOP_FIRST)
    assert config.progress_deadline == 600.0


def test_restart() -> None:
    assert RestartPolicy() == RestartPolicy(RestartCondition.ANY, delay=5.0, max_attempts=0, window=0.0)


def test_stopping() -> None:
    assert (DEFAULT_STOP_GRACE_PERIOD_S, DEFAULT_DRAIN_TIMEOUT_S) == (10.0, 10.0)


def test_health() -> None:
    check = Healthcheck()
    assert (check.interval, check.timeout, check.retries) == (30.0, 30.0, 3)
    assert (check.start_period, check.start_interval) == (0.0, 5.0)


def test_service() -> None:
    spec = ServiceSpec()
    assert (spec.mode, spec.replicas, spec.disconnect) == (ServiceMode.REPLICATED, 1, Disconnect.REPLACE)
    assert (spec.max_unavailable, spec.canary, spec.stopped) == ("", 0, False)


def test_what_is_kept() -> None:
    assert (HISTORY_PER_SLOT, REVISIONS_KEPT) == (5, 10)
