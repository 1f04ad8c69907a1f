"""Changes to an image's configuration mean what a Dockerfile means by them."""

import json

import pytest

from argosy.cli.errors import InvalidInputError
from argosy.cli.images.changes import change_image, parse_change
from argosy.cli.images.local import assemble, document


def changed(*instructions, config=None):
    image = assemble(document({"os": "linux", "config": config or {}}), [])
    return json.loads(change_image(image, [parse_change(i) for i in instructions]).config)["config"]


@pytest.mark.parametrize(
    ("instruction", "result"),
    [
        ('CMD ["nginx", "-g", "x y"]', {"Cmd": ["nginx", "-g", "x y"]}),
        ("cmd echo $HOME", {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
        ("CMD []", {"Cmd": []}),
        ('ENTRYPOINT ["/init"]', {"Entrypoint": ["/init"]}),
        ('ENV A=1 B="2 3"', {"Env": ["A=1", "B=2 3"]}),
        ("ENV A 1 2", {"Env": ["A=1 2"]}),
        ("USER 1000:1000", {"User": "1000:1000"}),
        ("WORKDIR /srv/../app", {"WorkingDir": "/app"}),
        ('LABEL a.b=c "d"=e', {"Labels": {"a.b": "c", "d": "e"}}),
        ("STOPSIGNAL SIGQUIT", {"StopSignal": "SIGQUIT"}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            'HEALTHCHECK --interval=1m30s --retries=5 CMD ["x"]',
            {"Healthcheck": {"Interval": 90_000_000_000, "Retries": 5, "Test": ["CMD", "x"]}},
        ),
        ("HEALTHCHECK --timeout=500ms CMD x | y",
         {"Healthcheck": {"Timeout": 500_000_000, "Test": ["CMD-SHELL", "x | y"]}}),
    ],
)  # fmt: skip
def test_instructions(instruction, result):
    assert changed(instruction) == result


def test_changes_build_on_the_image():
    config = {
        "Env": ["PATH=/bin", "A=0"],
        "WorkingDir": "/srv",
        "Entrypoint": ["/old"],
        "Cmd": ["old"],
        "Labels": {"a": "1"},
    }
    result = changed("ENV A=1 B=2", "WORKDIR app", 'ENTRYPOINT ["/new"]', "LABEL b=2", config=config)
    assert result["Env"] == ["PATH=/bin", "A=1", "B=2"]
    assert result["WorkingDir"] == "/srv/app"
    assert result["Entrypoint"] == ["/new"]
    assert "Cmd" not in result
    assert result["Labels"] == {"a": "1", "b": "2"}


def test_no_change_is_the_same_image():
    image = assemble(b'{"os":  "linux"}', [])
    assert change_image(image, []) is image


@pytest.mark.parametrize(
    ("instruction", "says"),
    [
        ("RUN make", "no change that can be made"),
        ("", "no change"),
        ("CMD", "lacks what to run"),
        ("CMD ['x']", "no JSON list"),
        ('CMD [1, "x"]', "no list of strings"),
        ("ENV", "lacks NAME=VALUE"),
        ("ENV A", "is no NAME=VALUE"),
        ("ENV A='1", "cannot be split"),
        ("USER a b", "exactly one value"),
        ("STOPSIGNAL now", "no signal"),
        ("HEALTHCHECK --often CMD x", "no option of HEALTHCHECK"),
        ("HEALTHCHECK --interval=soon CMD x", "no duration"),
        ("HEALTHCHECK x", "lacks CMD"),
    ],
)
def test_what_is_refused(instruction, says):
    with pytest.raises(InvalidInputError, match=says):
        parse_change(instruction)
