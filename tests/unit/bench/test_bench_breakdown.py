"""Reading a profile and telling what each feature costs."""

from __future__ import annotations

import pytest

from bench.breakdown import STEPS, medians, parse_report, profile_table, steps_table
from bench.load import Load
from bench.stats import HEADLINE, Sample

REPORT = """
# Samples: 4K of event 'cpu-clock'
 61.50%|[kernel.kallsyms]
  1.50%|[nf_conntrack]
 11.73%|nginx
  9.00%|libluajit-5.1.so.2.1.0
  4.00%|[JIT] tid 4711
  3.00%|ngx_http_lua_module.so
  2.27%|ngx_http_mesh_module.so
  4.00%|libcrypto.so.3
  2.00%|libssl.so.3
  0.90%|libc.so.6
  0.10%|something.so
"""


def test_a_profile_is_summed_by_component() -> None:
    shares = parse_report(REPORT)
    assert shares == {
        "kernel": pytest.approx(0.63),
        "nginx": pytest.approx(0.1173),
        "Lua": pytest.approx(0.16),
        "our C module": pytest.approx(0.0227),
        "TLS": pytest.approx(0.06),
        "libc": pytest.approx(0.009),
        "other": pytest.approx(0.001),
    }


def test_a_component_that_a_profile_lacks_counts_as_nothing() -> None:
    assert medians([{"Lua": 3.0}, {"Lua": 5.0, "libc": 1.0}, {"Lua": 4.0}]) == {"Lua": 4.0, "libc": 0.0}


def test_the_differences_of_the_components_add_up_to_that_of_the_whole() -> None:
    table = profile_table({"kernel": 30.0, "TLS": 5.0}, {"kernel": 33.0, "Lua": 9.0, "TLS": 4.0})
    columns = [list(column.cells) for column in table.columns]
    assert columns[0] == ["Lua", "kernel", "TLS", "all"]
    assert columns[3] == ["+9.0", "+3.0", "-1.0", "+11.0"]


def test_what_a_step_saves_is_told_within_rounds() -> None:
    """A round in which everything was twice as slow must not look like a saving."""
    load = Load(requests=1, duration_us=1, bytes=1, p50_us=1, p90_us=1, p99_us=1, errors=0)
    names = [step.name for step in STEPS]
    samples = []
    for round_, disturbance in enumerate((0.0, 100.0, 7.0)):
        samples.append(Sample("plain", HEADLINE, round_, load, 40.0 + disturbance))
        samples += [
            Sample(name, HEADLINE, round_, load, 60.0 - 2 * number + disturbance) for number, name in enumerate(names)
        ]
    saved = list(steps_table(samples).columns[2].cells)
    assert saved == ["", "2.0", "2.0", "2.0", "2.0", "2.0", "10.0"]
