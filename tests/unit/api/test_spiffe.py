import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api.spiffe import SpiffeId, SpiffeIdError, workload_id

SEGMENT_CHARACTERS = string.ascii_letters + string.digits + "._-"
trust_domains = st.text(string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=255)
segments = st.text(SEGMENT_CHARACTERS, min_size=1, max_size=40).filter(lambda s: s not in {".", ".."})
paths = st.lists(segments, max_size=10).map(lambda parts: "".join(f"/{part}" for part in parts))


@given(trust_domains, paths)
def test_every_id_the_standard_allows_survives_formatting_and_parsing(trust_domain: str, path: str) -> None:
    spiffe_id = SpiffeId(trust_domain, path)
    assert str(spiffe_id) == f"spiffe://{trust_domain}{path}"
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id


@given(st.text(max_size=80) | st.text("spifeSPIFE:/.%@?#a ", max_size=40).map(lambda s: "spiffe://" + s))
def test_what_is_accepted_has_one_spelling_and_only_allowed_characters(text: str) -> None:
    try:
        spiffe_id = SpiffeId.parse(text)
    except SpiffeIdError:
        return
    assert str(spiffe_id) == text
    assert spiffe_id.trust_domain == spiffe_id.trust_domain.lower()
    assert set(text.removeprefix("spiffe://")) <= set(SEGMENT_CHARACTERS + "/")
    assert not {"", ".", ".."} & set(spiffe_id.path.split("/")[1:])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not start with"),
        ("http://example.org/a", "does not start with"),
        ("SPIFFE://example.org/a", "does not start with"),
        ("spiffe:/example.org/a", "does not start with"),
        ("spiffe://", "trust domain is empty"),
        ("spiffe:///a", "trust domain is empty"),
        ("spiffe://Example.org/a", "characters other than a-z"),
        ("spiffe://example.org:80/a", "characters other than a-z"),
        ("spiffe://user@example.org/a", "characters other than a-z"),
        ("spiffe://ex%61mple.org/a", "characters other than a-z"),
        ("spiffe://exämple.org/a", "characters other than a-z"),
        ("spiffe://example.org\n/a", "characters other than a-z"),
        ("spiffe://example.org?a", "characters other than a-z"),
        ("spiffe://example.org/", "ends with a slash"),
        ("spiffe://example.org/a/", "ends with a slash"),
        ("spiffe://example.org//a", "empty segment"),
        ("spiffe://example.org/a//b", "empty segment"),
        ("spiffe://example.org/./a", "relative segment '.'"),
        ("spiffe://example.org/a/..", "relative segment '..'"),
        ("spiffe://example.org/a%2Fb", "characters other than letters"),
        ("spiffe://example.org/a?b", "characters other than letters"),
        ("spiffe://example.org/a#b", "characters other than letters"),
        ("spiffe://example.org/a b", "characters other than letters"),
        ("spiffe://example.org/a\n", "characters other than letters"),
        ("spiffe://example.org/\u0430", "characters other than letters"),
        ("spiffe://" + "a" * 256 + "/b", "trust domain has 256 bytes"),
        ("spiffe://example.org/" + "a" * 2048, "more than 2048 bytes"),
    ],
)
def test_a_refused_id_names_the_reason(text: str, reason: str) -> None:
    with pytest.raises(SpiffeIdError, match=reason.replace(".", r"\.")):
        SpiffeId.parse(text)


def test_the_longest_ids_are_accepted_and_one_byte_more_is_not() -> None:
    longest = "spiffe://example.org/" + "a" * (2048 - len("spiffe://example.org/"))
    assert len(str(SpiffeId.parse(longest))) == 2048
    with pytest.raises(SpiffeIdError, match="2049 bytes"):
        SpiffeId("example.org", longest.removeprefix("spiffe://example.org") + "a")
    assert SpiffeId("a" * 255).trust_domain == "a" * 255


def test_dots_are_only_refused_where_they_are_relative() -> None:
    assert SpiffeId.parse("spiffe://example.org/.a/b./...").path == "/.a/b./..."


def test_a_workload_is_known_by_namespace_and_service_account() -> None:
    assert str(workload_id("example.org", "shop", "web")) == "spiffe://example.org/ns/shop/sa/web"


@pytest.mark.parametrize(
    ("namespace", "account", "reason"),
    [
        ("shop", "web/ns/other", "service account .* contains a slash"),
        ("a/sa/admin", "web", "namespace .* contains a slash"),
        ("", "web", "namespace is empty"),
        ("shop", "", "service account is empty"),
        ("shop", "..", "relative segment"),
        ("shöp", "web", "characters other than"),
    ],
)
def test_names_cannot_reach_into_other_identities(namespace: str, account: str, reason: str) -> None:
    with pytest.raises(SpiffeIdError, match=reason):
        workload_id("example.org", namespace, account)
