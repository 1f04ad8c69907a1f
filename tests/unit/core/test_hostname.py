"""Templates of host names."""

import pytest

from argosy.core.errors import InvalidError
from argosy.core.hostname import HostnameContext, expand_hostname, hostname_problem

CONTEXT = HostnameContext("sid", "web", {"team": "red"}, "nid", "host-1", "tid", 3)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("plain", "plain"),
        ("{{.Service.Name}}-{{.Task.Slot}}", "web-3"),
        ("{{ .Node.Hostname }}", "host-1"),
        ("{{.Task.Name}}", "web.3.tid"),
        ("{{.Service.ID}}.{{.Node.ID}}.{{.Task.ID}}", "sid.nid.tid"),
        ('{{index .Service.Labels "team"}}', "red"),
    ],
)
def test_placeholders_are_filled_in(template, name):
    assert expand_hostname(template, CONTEXT) == name
    assert hostname_problem(template) is None


def test_a_global_task_has_its_node_for_a_slot():
    assert expand_hostname("{{.Task.Slot}}", HostnameContext(node_id="nid")) == "nid"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{.Service.Nam}}", "did you mean {{.Service.Name}}"),
        ("{{.Zzz}}", "there are .Service.ID"),
        ("{{.Task.Slot", "not closed"),
        ("a b", "use letters"),
        ("x" * 65, "at most 64"),
        ("-x", "use letters"),
    ],
)
def test_a_bad_template_is_told_what_would_be_right(template, says):
    assert says in hostname_problem(template)
    with pytest.raises(InvalidError):
        expand_hostname(template, CONTEXT)


def test_a_result_that_is_no_host_name_is_refused():
    with pytest.raises(InvalidError, match="at most 64"):
        expand_hostname("{{.Service.Name}}", HostnameContext(service_name="w" * 65))
