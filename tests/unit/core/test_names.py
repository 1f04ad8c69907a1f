"""Which names are lawful, and what a bad one is told."""

import pytest

from argosy.core.names import (
    dns_label_problem,
    host_name_problem,
    label_key_problem,
    service_name_problem,
    stack_name,
    unstacked_name,
)


@pytest.mark.parametrize("name", ["web", "a", "web-1", "shop_web", "Web", "1st", "x" * 63])
def test_names_of_services(name):
    assert service_name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "missing"),
        ("-web", 'such as "web"'),
        ("web_", 'such as "web"'),
        ("my web", 'such as "my-web"'),
        ("a.b", 'such as "a-b"'),
        ("ü", "use letters"),
        ("x" * 64, "64 letters"),
        ("web\n", 'such as "web"'),
    ],
)
def test_a_bad_name_says_what_would_be_right(name, says):
    assert says in service_name_problem(name)


def test_labels_of_dns_have_no_underscore():
    assert dns_label_problem("shop-web") is None
    assert 'such as "shop-web"' in dns_label_problem("shop_web")


@pytest.mark.parametrize(("name", "good"), [("db.internal", True), ("a..b", False), (".", False), ("a." * 127, False)])
def test_host_names(name, good):
    assert (host_name_problem(name) is None) is good


@pytest.mark.parametrize(
    ("key", "good"), [("zone", True), ("example.org/disk", True), ("", False), ("a b", False), ("-a", False)]
)
def test_keys_of_node_labels(key, good):
    assert (label_key_problem(key) is None) is good


def test_names_in_stacks():
    assert stack_name("shop", "web") == "shop_web"
    assert unstacked_name("shop", "shop_web") == "web"
    assert unstacked_name("shop", "shopping_web") == "shopping_web"
    assert unstacked_name("", "web") == "web"
