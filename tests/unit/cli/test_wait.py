"""How often what is waited for is looked at."""

import pytest

from argosy.cli.progress.wait import rest_after


@pytest.mark.parametrize("look_s", [0.0005, 0.004, 0.06])
def test_looking_takes_a_fifth_of_the_time_at_most(look_s: float) -> None:
    assert look_s / (look_s + rest_after(look_s)) == pytest.approx(0.2)
