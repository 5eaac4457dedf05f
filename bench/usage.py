"""What processes use: CPU time and memory, from the kernel's own accounts."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

_CPUCLOCK_SCHED = 2


def cpu_ns(pids: Iterable[int]) -> int:
    """CPU time used so far by all threads, ended ones included, of `pids`, user and kernel together, in nanoseconds.

    Read from the process's CPU-time clock (clock_getcpuclockid(3)), which is what the scheduler counted, where
    utime and stime of /proc/PID/stat are rounded to 10 ms. Network softirqs that run in the process's context, which on
    veth and loopback is nearly all of them, are in it.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) for pid in pids)


def pss_kib(pids: Iterable[int]) -> int:
    """Proportional set size of `pids` together, in KiB."""
    return sum(parse_pss(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids)


def parse_pss(rollup: str) -> int:
    """The Pss line of a smaps_rollup, in KiB. ValueError when there is none."""
    for line in rollup.splitlines():
        field, _, value = line.partition(":")
        if field == "Pss":
            return int(value.split()[0])
    raise ValueError("no Pss line in smaps_rollup")
