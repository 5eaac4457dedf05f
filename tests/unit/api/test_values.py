from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_mesh.api import values
from nginx_mesh.api.errors import FieldError


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("64k", 65536), ("64K", 65536), ("1m", 1 << 20), ("2G", 2 << 30), ("00", 0)],
)
def test_a_size_is_read_as_nginx_reads_it(text: str, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1.5m", "1mb", " 1m", "1 m", "1m\n", "9223372036854775808", "9999999999g"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(FieldError):
        values.parse_size(text)


@given(st.integers(0, (1 << 63) - 1))
def test_sizes_survive_being_written(size: int) -> None:
    assert values.parse_size(values.format_size(size)) == size


@given(st.integers(24, 999_999))
def test_ca_ttls_survive_being_written(hours: int) -> None:
    assert values.parse_ca_ttl(values.format_duration(hours * 3600)) == hours * 3600


@given(st.integers(1, 999_999), st.sampled_from("hm"))
def test_svid_ttls_survive_being_written(number: int, unit: str) -> None:
    seconds = values.parse_svid_ttl(f"{number}{unit}")
    assert seconds == number * {"h": 3600, "m": 60}[unit]
    assert values.parse_svid_ttl(values.format_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["23h", "0h", "720m", "720", "1000000h", "024h", "-24h", "24H", "24h "])
def test_ca_ttl_is_hours_from_24_to_999999(text: str) -> None:
    with pytest.raises(FieldError):
        values.parse_ca_ttl(text)


@pytest.mark.parametrize("text", ["0m", "0h", "30s", "1d", "1000000m", "1h30m", ""])
def test_svid_ttl_is_hours_or_minutes(text: str) -> None:
    with pytest.raises(FieldError):
        values.parse_svid_ttl(text)


@pytest.mark.parametrize(("text", "rate"), [("10r/s", 10_000), ("10r/m", 166), ("1r/m", 16), ("30r/m", 500)])
def test_a_rate_is_counted_per_thousand_seconds(text: str, rate: int) -> None:
    assert values.parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0r/s", "10", "10r/h", "10 r/s", "10r/,", "-1r/s", "1.5r/s", "1234567890r/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(FieldError):
        values.parse_rate(text)


@pytest.mark.parametrize(("value", "delay"), [(0, 0), (7, 7), ("7", 7), ("nodelay", -1)])
def test_delay_is_a_number_or_nodelay(value: int | str, delay: int) -> None:
    assert values.parse_delay(value) == delay


@pytest.mark.parametrize("value", [-1, "-1", "later", ""])
def test_what_is_no_delay_is_refused(value: int | str) -> None:
    with pytest.raises(FieldError):
        values.parse_delay(value)


@given(st.sets(st.integers(1, 65535)))
def test_port_lists_survive_being_written(ports: set[int]) -> None:
    assert values.parse_ports(values.format_ports(sorted(ports))) == tuple(sorted(ports))


def test_port_lists_may_have_spaces_and_repetitions() -> None:
    assert values.parse_ports(" 443 ,80,  80") == (80, 443)
    assert values.parse_ports("  ") == ()


@pytest.mark.parametrize("text", ["0", "65536", "80,", "80;81", "http", "-80", "8 0", "80\n81"])
def test_what_is_no_port_list_is_refused(text: str) -> None:
    with pytest.raises(FieldError):
        values.parse_ports(text)


@pytest.mark.parametrize(("text", "ratio"), [("0", 0), ("1", 1), ("0.01", 0.01), (".5", 0.5), ("1.0", 1)])
def test_a_ratio_is_from_0_to_1(text: str, ratio: float) -> None:
    assert values.parse_ratio(text) == ratio


@pytest.mark.parametrize("text", ["", "-0.1", "1.1", "nan", "inf", "1e-3", "5%"])
def test_what_is_no_ratio_is_refused(text: str) -> None:
    with pytest.raises(FieldError):
        values.parse_ratio(text)


def test_addresses_of_servers() -> None:
    assert values.parse_service_address("prometheus.monitoring:9090") == ("prometheus.monitoring", 9090)
    assert str(values.parse_host_port("[::1]:4317")) == "[::1]:4317"


@pytest.mark.parametrize(
    "text", ["prometheus:9090", "a.b", "a.b:0", "a.b:65536", "A.b:80", "a.b:80/x", "http://a.b:80"]
)
def test_prometheus_is_a_service_in_a_namespace(text: str) -> None:
    with pytest.raises(FieldError):
        values.parse_service_address(text)


@given(st.text())
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (
        values.parse_size,
        values.parse_ca_ttl,
        values.parse_svid_ttl,
        values.parse_rate,
        values.parse_delay,
        values.parse_ratio,
        values.parse_ports,
        values.parse_boolean,
        values.parse_dns_name,
        values.parse_host_port,
        values.parse_service_address,
    ):
        try:
            parse(text)
        except FieldError as error:
            assert error.reason
