"""The nginx-free parts of the C module, compiled with all warnings as errors and loaded into the test."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import weakref
from functools import cache
from pathlib import Path

import nginx_mesh.sidecar

MODULE = Path(nginx_mesh.sidecar.__file__).parent / "module"
METHODS = (
    "round_robin",
    "least_conn",
    "least_time",
    "least_time last_byte",
    "least_time last_byte inflight",
    "random",
    "random two",
    "random two least_conn",
    "random two least_time",
    "random two least_time=last_byte",
)
DONE, FAILED, ABANDONED = range(3)
SECOND = 1_000_000


class Average(ctypes.Structure):
    """lb_average."""

    _fields_ = (("us", ctypes.c_double), ("at", ctypes.c_int64))


class Endpoint(ctypes.Structure):
    """lb_endpoint."""

    _fields_ = (
        ("active", ctypes.c_uint32),
        ("started_sum", ctypes.c_int64),
        ("fails", ctypes.c_uint32),
        ("down_until", ctypes.c_int64),
        ("first_byte", Average),
        ("last_byte", Average),
    )


class Rate(ctypes.Structure):
    """limit_rate."""

    _fields_ = (("rate", ctypes.c_uint64), ("burst", ctypes.c_uint64), ("delay", ctypes.c_uint64))


class Bucket(ctypes.Structure):
    """limit_bucket."""

    _fields_ = (("used", ctypes.c_uint64), ("excess", ctypes.c_uint64), ("last", ctypes.c_int64))


class Histogram(ctypes.Structure):
    """metric_histogram."""

    _fields_ = (("sum", ctypes.c_uint64), ("buckets", ctypes.c_uint32 * 14))


class BreakerStruct(ctypes.Structure):
    """breaker."""

    _fields_ = (
        ("errors", ctypes.c_uint32),
        ("timeout", ctypes.c_int64),
        ("state", ctypes.c_int),
        ("since", ctypes.c_int64),
        ("trying", ctypes.c_uint),
        ("epoch", ctypes.c_uint64),
        ("trips", ctypes.c_uint64),
        ("failures", ctypes.POINTER(ctypes.c_int64)),
        ("n", ctypes.c_uint32),
        ("next", ctypes.c_uint32),
    )


class Share(ctypes.Structure):
    """split_share."""

    _fields_ = (("weight", ctypes.c_uint32), ("usable", ctypes.c_uint32))


class TraceContext(ctypes.Structure):
    """trace_context."""

    _fields_ = (("trace_id", ctypes.c_uint8 * 16), ("span_id", ctypes.c_uint8 * 8), ("flags", ctypes.c_uint8))


class TraceSampler(ctypes.Structure):
    """trace_sampler."""

    _fields_ = (("any", ctypes.c_int), ("last", ctypes.c_uint64))


class TraceRandom(ctypes.Structure):
    """trace_random."""

    _fields_ = (("s", ctypes.c_uint64 * 4),)


class ReportStruct(ctypes.Structure):
    """report."""

    _fields_ = (("start", ctypes.c_void_p), ("pos", ctypes.c_void_p), ("end", ctypes.c_void_p))


class PoolStruct(ctypes.Structure):
    """lb_pool."""

    _fields_ = (
        ("items", ctypes.POINTER(ctypes.POINTER(Endpoint))),
        ("n", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("cursor", ctypes.c_size_t),
        ("rng", ctypes.c_uint64),
        ("first_byte", Average),
        ("last_byte", Average),
    )


class Tried(ctypes.Structure):
    """lb_tried."""

    _fields_ = (("items", ctypes.POINTER(ctypes.POINTER(Endpoint))), ("n", ctypes.c_size_t))


def sanitized() -> dict[str, str]:
    """The environment for a process in which `build` uses AddressSanitizer, too.

    Its runtime has to be there before anything is allocated, and what Python allocates has to come from malloc: then
    there is a guarded zone around each buffer that a test hands to C. What Python leaks is not our business.
    """
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True).stdout
    return {
        **os.environ,
        "LD_PRELOAD": runtime.strip(),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",
    }


def build(*sources: Path) -> ctypes.CDLL:
    """C files as a shared library that ends the process on undefined behaviour."""
    address = "libasan" in os.environ.get("LD_PRELOAD", "")
    sanitizers = "address,undefined" if address else "undefined"
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "native.so"
        command = ["gcc", "-shared", "-fPIC", *flags, f"-I{MODULE}", "-o", str(target), *map(str, sources)]
        subprocess.run(command, check=True, env=environment)
        return ctypes.CDLL(str(target))


@cache
def library() -> ctypes.CDLL:
    """The nginx-free files."""
    names = ("lb", "protocol_detection", "limit", "metric", "breaker", "split", "path", "text", "trace", "report")
    loaded = build(*(MODULE / f"{name}.c" for name in names))
    loaded.lb_pick.restype = ctypes.POINTER(Endpoint)
    loaded.lb_pick.argtypes = (ctypes.POINTER(PoolStruct), ctypes.c_int, Tried, ctypes.c_int64)
    loaded.lb_pool_init.argtypes = (ctypes.POINTER(PoolStruct), ctypes.c_uint64)
    loaded.lb_pool_add.argtypes = loaded.lb_pool_remove.argtypes = (
        ctypes.POINTER(PoolStruct),
        ctypes.POINTER(Endpoint),
    )
    loaded.lb_down.restype = ctypes.c_int64
    for function in (loaded.lb_begin, loaded.lb_down):
        function.argtypes = (ctypes.POINTER(Endpoint), ctypes.c_int64)
    loaded.lb_first_byte.argtypes = (
        ctypes.POINTER(PoolStruct),
        ctypes.POINTER(Endpoint),
        ctypes.c_int64,
        ctypes.c_int64,
    )
    loaded.lb_end.argtypes = (
        ctypes.POINTER(PoolStruct),
        ctypes.POINTER(Endpoint),
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int64,
    )
    loaded.text_invalid.restype = loaded.text_repair.restype = ctypes.c_size_t
    loaded.text_invalid.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    loaded.text_repair.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    loaded.text_printable.restype = ctypes.c_size_t
    loaded.text_printable.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    loaded.path_is_ambiguous.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    for name in ("path_merge_slashes", "path_cut_parameters"):
        getattr(loaded, name).restype = ctypes.c_size_t
        getattr(loaded, name).argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    loaded.protocol_detect.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    loaded.limit_take.restype = ctypes.c_uint64
    for function in (loaded.limit_admits, loaded.limit_take, loaded.limit_is_idle):
        function.argtypes = (ctypes.POINTER(Bucket), ctypes.POINTER(Rate), ctypes.c_int64)
    loaded.metric_bucket.restype = ctypes.c_size_t
    loaded.metric_bucket.argtypes = (ctypes.c_uint64,)
    loaded.metric_observe.argtypes = (ctypes.POINTER(Histogram), ctypes.c_uint64)
    breaker, ticket = ctypes.POINTER(BreakerStruct), ctypes.POINTER(ctypes.c_uint64)
    loaded.breaker_init.argtypes = (breaker, ctypes.c_uint32, ctypes.c_int64)
    loaded.breaker_free.argtypes = (breaker,)
    loaded.breaker_admit.argtypes = (breaker, ticket, ctypes.c_int64)
    loaded.breaker_begun.argtypes = (breaker, ticket)
    loaded.breaker_end.argtypes = (breaker, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64)
    loaded.breaker_wait.restype = ctypes.c_int64
    for function in (loaded.breaker_seen, loaded.breaker_wait):
        function.argtypes = (breaker, ctypes.c_int64)
    loaded.split_pick.restype = ctypes.c_size_t
    loaded.split_pick.argtypes = (ctypes.POINTER(Share), ctypes.c_size_t, ctypes.c_uint64)
    context, random = ctypes.POINTER(TraceContext), ctypes.POINTER(TraceRandom)
    loaded.trace_parse.argtypes = (context, ctypes.c_char_p, ctypes.c_size_t)
    loaded.trace_format.argtypes = (ctypes.c_char_p, context)
    loaded.trace_sampler_of.restype = TraceSampler
    loaded.trace_sampler_of.argtypes = (ctypes.c_double,)
    loaded.trace_is_sampled.argtypes = (ctypes.POINTER(TraceSampler), context)
    loaded.trace_new_trace.argtypes = loaded.trace_new_span.argtypes = (context, random)
    report = ctypes.POINTER(ReportStruct)
    loaded.report_begin.argtypes = (report, ctypes.c_char_p, ctypes.c_size_t)
    loaded.report_text.argtypes = (report, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t)
    loaded.report_number.argtypes = (report, ctypes.c_char_p, ctypes.c_int64)
    loaded.report_end.restype = ctypes.c_size_t
    loaded.report_end.argtypes = (report,)
    return loaded


class Breaker:
    """A circuit breaker; times are milliseconds."""

    def __init__(self, errors: int, timeout: int) -> None:
        self._breaker = BreakerStruct()
        assert library().breaker_init(self._breaker, errors, timeout) == 0
        weakref.finalize(self, library().breaker_free, self._breaker)

    def admit(self, now: int) -> int | None:
        """A request's ticket, None when it may not pass."""
        ticket = ctypes.c_uint64()
        return ticket.value if library().breaker_admit(self._breaker, ticket, now) else None

    def begun(self, ticket: int) -> int:
        """The ticket from then on."""
        current = ctypes.c_uint64(ticket)
        library().breaker_begun(self._breaker, current)
        return current.value

    def end(self, ticket: int, outcome: int, now: int) -> None:
        library().breaker_end(self._breaker, ticket, outcome, now)

    def seen(self, now: int) -> str:
        return ("closed", "open", "half-open")[library().breaker_seen(self._breaker, now)]

    def wait(self, now: int) -> int:
        return int(library().breaker_wait(self._breaker, now))

    @property
    def trips(self) -> int:
        return int(self._breaker.trips)


class Pool:
    """A pool of endpoints, named by numbers."""

    def __init__(self, seed: int = 1) -> None:
        self._pool = PoolStruct()
        self._endpoints: dict[int, Endpoint] = {}
        library().lb_pool_init(self._pool, seed)

    def add(self, name: int) -> None:
        self._endpoints[name] = Endpoint()
        assert library().lb_pool_add(self._pool, self._endpoints[name]) == 0

    def remove(self, name: int) -> None:
        library().lb_pool_remove(self._pool, self._endpoints.pop(name))

    @property
    def names(self) -> set[int]:
        return set(self._endpoints)

    def active(self, name: int) -> int:
        return int(self._endpoints[name].active)

    def pick(self, method: str, now: int, tried: tuple[int, ...] = ()) -> int | None:
        array = (ctypes.POINTER(Endpoint) * len(tried))(*(ctypes.pointer(self._endpoints[name]) for name in tried))
        found = library().lb_pick(self._pool, METHODS.index(method), Tried(array, len(tried)), now)
        if not found:
            return None
        address = ctypes.addressof(found.contents)
        return next(name for name, e in self._endpoints.items() if ctypes.addressof(e) == address)

    def down(self, name: int, now: int) -> int:
        return int(library().lb_down(self._endpoints[name], now))

    def begin(self, name: int, now: int) -> None:
        library().lb_begin(self._endpoints[name], now)

    def first_byte(self, name: int, started: int, now: int) -> None:
        library().lb_first_byte(self._pool, self._endpoints[name], started, now)

    def end(self, name: int, outcome: int, started: int, now: int) -> None:
        library().lb_end(self._pool, self._endpoints[name], outcome, started, now)

    def serve(self, name: int, now: int, first: int, last: int) -> None:
        """A whole request: `first` and `last` are microseconds to the first and the last byte."""
        self.begin(name, now)
        self.first_byte(name, now, now + first)
        self.end(name, DONE, now, now + last)


def classify(data: bytes) -> str:
    """protocol_detect, by name."""
    return ("more", "plain", "tls", "mesh")[library().protocol_detect(data, len(data))]
