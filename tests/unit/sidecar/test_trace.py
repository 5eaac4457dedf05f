"""W3C trace context: what is a traceparent, and which traces are sampled."""

from __future__ import annotations

import ctypes
import re
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from .native import TraceContext, TraceRandom, library

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
# The grammar of the specification, for versions known and to come.
VALID = re.compile(
    rb"(?!ff)(?:00|[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
HEX = st.text("0123456789abcdef")


def parse(text: bytes) -> TraceContext | None:
    context = TraceContext()
    return context if library().trace_parse(context, text, len(text)) else None


def written(context: TraceContext) -> str:
    out = ctypes.create_string_buffer(55)
    library().trace_format(out, context)
    return out.raw.decode()


def random_source(seed: int = 1) -> TraceRandom:
    return TraceRandom((ctypes.c_uint64 * 4)(seed, 2, 3, 4))


def new_trace(source: TraceRandom) -> TraceContext:
    context = TraceContext()
    library().trace_new_trace(context, source)
    library().trace_new_span(context, source)
    return context


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
def test_what_was_read_is_written_again(flags: str) -> None:
    text = f"00-{TRACE_ID}-{SPAN_ID}-{flags}"
    context = parse(text.encode())
    assert context is not None
    assert written(context) == text


def test_flags_that_nobody_knows_are_not_passed_on() -> None:
    context = parse(f"00-{TRACE_ID}-{SPAN_ID}-ff".encode())
    assert context is not None
    assert written(context).endswith("-03")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID}-{SPAN_ID}-01 ",
        f"cc-{TRACE_ID}-{SPAN_ID}-01.more",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"0x-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00_{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0g",
        f"00-{TRACE_ID[:-1]}é-{SPAN_ID}-01",
    ],
)
def test_what_is_no_traceparent(text: str) -> None:
    assert parse(text.encode()) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    context = parse(f"cc-{TRACE_ID}-{SPAN_ID}-01-what-the-future-brings".encode())
    assert context is not None
    assert written(context) == f"00-{TRACE_ID}-{SPAN_ID}-01"


PLAUSIBLE = st.builds(
    lambda version, trace_id, span_id, flags, rest: f"{version}-{trace_id}-{span_id}-{flags}{rest}".encode(),
    st.sampled_from(["00", "01", "fe", "ff"]),
    st.text("0123456789abcdef", min_size=32, max_size=32) | st.just("0" * 32) | HEX,
    st.text("0123456789abcdefA", min_size=16, max_size=16) | st.just("0" * 16) | HEX,
    st.text("0123456789abcdef", min_size=2, max_size=2) | HEX,
    st.sampled_from(["", "-", "-x", "x"]),
)


@given(PLAUSIBLE | st.binary(max_size=80))
def test_nothing_but_the_grammar_is_a_traceparent(text: bytes) -> None:
    found = VALID.fullmatch(text)
    valid = found is not None and (found[4] is None or not text.startswith(b"00"))
    context = parse(text)
    assert (context is not None) == valid
    if context is not None and found is not None:
        assert (bytes(context.trace_id).hex(), bytes(context.span_id).hex()) == (found[1].decode(), found[2].decode())


@given(st.floats(0, 1), st.integers(0, 2**128 - 1))
@example(0.5, (1 << 63) - 1)
@example(0.5, 1 << 63)
@example(1.0, (1 << 64) - 1)
@example(0.0, 0)
def test_all_decide_as_opentelemetry_does(ratio: float, trace_id: int) -> None:
    context = TraceContext((ctypes.c_uint8 * 16)(*trace_id.to_bytes(16)))
    sampler = library().trace_sampler_of(ratio)
    oracle = TraceIdRatioBased(ratio).should_sample(None, trace_id, "").decision
    assert bool(library().trace_is_sampled(sampler, context)) == (oracle == Decision.RECORD_AND_SAMPLE)


def test_the_share_of_traces_that_are_sampled_is_the_ratio() -> None:
    source, sampler = random_source(), library().trace_sampler_of(0.25)
    sampled = sum(library().trace_is_sampled(sampler, new_trace(source)) for _ in range(20_000))
    assert 4700 < sampled < 5300  # five standard deviations


def test_new_ids_are_valid_and_differ() -> None:
    source = random_source()
    contexts = [new_trace(source) for _ in range(5000)]
    assert all(parse(written(context).encode()) is not None for context in contexts)
    assert len({bytes(context.trace_id) for context in contexts} | {bytes(c.span_id) for c in contexts}) == 10_000
    bits = Counter(bit for c in contexts for bit in range(64) if int.from_bytes(bytes(c.span_id)) >> bit & 1)
    assert all(2300 < bits[bit] < 2700 for bit in range(64))
    assert {context.flags for context in contexts} == {2}  # which says that the id is random


def test_two_workers_make_different_ids() -> None:
    assert bytes(new_trace(random_source(1)).trace_id) != bytes(new_trace(random_source(5)).trace_id)
