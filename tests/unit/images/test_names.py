"""Image names have one form."""

import pytest

from argosy.core.errors import InvalidError
from argosy.core.oci.names import normalise

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("web", "web:latest"),
        ("web:1", "web:1"),
        ("docker.io/library/nginx", "nginx:latest"),
        ("docker.io/grafana/loki:2", "grafana/loki:2"),
        ("registry.example:5000/a/b__c", "registry.example:5000/a/b__c:latest"),
        ("localhost:5000/web", "localhost:5000/web:latest"),
        (DIGEST, DIGEST),
        (f"web:1@{DIGEST}", DIGEST),
    ],
)
def test_forms(written, means):
    assert normalise(written) == means
    assert normalise(means) == means


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("", "empty"),
        ("Web", "did you mean web"),
        ("web:", "wanted NAME"),
        ("web@sha256:1", "64 hexadecimal"),
        ("../web", "wanted NAME"),
        ("-web", "wanted NAME"),
        ("web 1", "wanted NAME"),
        ("a" * 256, "longer than"),
        ("web\n", "wanted NAME"),
    ],
)
def test_what_is_refused(written, says):
    with pytest.raises(InvalidError, match=says):
        normalise(written)
