"""`python -m bench.policies`: what a request costs where a mesh has many policies. The last line is one JSON object.

One pair of sidecars is in a mesh of 300 Services that has three sets of policies in turn, round after round: one policy
of each kind; 1,000 TrafficTargets, 200 HTTPRouteGroups and 200 RateLimits spread over all Services; and as many, all
about the one Service that is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import click
import msgspec
from rich.table import Table

from bench import cores, load, run
from bench.app import PATH_REGEX
from bench.command import prepare, say, show
from bench.objects import pod, routes, service, target, unreached_limit
from bench.pairs.mesh import MeshPair
from bench.report import new_table
from bench.stats import HEADLINE, Memory, Sample, cpu, figures, memory_ratio, ratio
from bench.topology import APP_PORT, CLIENT_ADDRESS, SERVER_ADDRESSES, SERVICE_ADDRESS, SERVICE_PORT
from nginx_mesh.api.meta import Object

SERVICES, TARGETS, GROUPS, LIMITS = 300, 1000, 200, 200
ONE, SPREAD, PILED = SETS = ("one", "spread", "piled")
_TITLES = {ONE: "one of each kind", SPREAD: "many, spread over all Services", PILED: "many, all at one port"}


def mesh(policies: str) -> list[Object]:
    """300 Services, one of them the server, a client, and one of SETS."""
    return [*_services(), *_policies(policies)]


def _app(number: int) -> str:
    return f"s{number}" if number else "server"


def _services() -> Iterator[Object]:
    yield pod("client", CLIENT_ADDRESS, "client", port=APP_PORT)
    for number in range(SERVICES):
        name, place = _app(number), f"{number // 200}.{number % 200 + 1}"
        ip, vip = (f"10.202.{place}", f"10.97.{place}") if number else (SERVER_ADDRESSES[0], SERVICE_ADDRESS)
        yield pod(f"{name}-0", ip, name, port=APP_PORT)
        yield service(name, vip, SERVICE_PORT, APP_PORT, {"app": name})


def _policies(policies: str) -> Iterator[Object]:
    """Those that decide on the client's requests are the youngest; the client is the source of older ones, too."""
    yield routes("ours", PATH_REGEX)
    targets, groups, limits = (1, 1, 1) if policies == ONE else (TARGETS, GROUPS, LIMITS)

    def about(number: int) -> tuple[str, str, str]:
        """Destination, source, group."""
        service = number % SERVICES
        return (
            "server" if policies == PILED else _app(service),
            _app(SERVICES - service) if service else "client",
            f"g{1 + number % (groups - 1)}" if number else "ours",
        )

    for number in range(1, groups):
        yield routes(f"g{number}", f"^/v{number}/")
    # Of one age, the order is that of the names.
    for number in range(targets):
        yield target(f"t{targets - number:04}", *about(number))
    for number in range(limits):
        yield unreached_limit(f"l{limits - number:04}", *about(number))


def measure(each: run.Bed, pair: MeshPair, rounds: int, seconds: int) -> list[Sample]:
    """Samples named after the sets, in turn forwards and backwards. NotWorkingError: a request was not answered."""
    meshes = {policies: mesh(policies) for policies in SETS}
    samples: list[Sample] = []
    for round_ in range(1, rounds + 1):
        taken = []
        for policies in SETS if round_ % 2 else reversed(SETS):
            pair.become(meshes[policies])
            load.run(each.topology, HEADLINE, 1)
            sample = msgspec.structs.replace(each.sample(HEADLINE, round_, seconds), pair=policies)
            if sample.load.errors:
                raise load.NotWorkingError(f"{policies}: {sample.load.errors} requests failed")
            taken.append(sample)
        samples += taken
        say(f"round {round_}/{rounds}: " + ", ".join(f"{sample.pair} {sample.cpu_us:.1f} µs" for sample in taken))
    return samples


def headline(samples: Sequence[Sample], memory: Sequence[Memory]) -> dict[str, float | None]:
    """CPU per request, and memory, of many policies against one of each kind."""
    exact = {}
    for policies in (SPREAD, PILED):
        exact[f"cpu_{policies}_vs_one"] = ratio(samples, HEADLINE, policies, ONE, cpu)
        exact[f"pss_{policies}_vs_one"] = memory_ratio(memory, HEADLINE, policies, ONE)
    return {name: value if value is None else round(value, 3) for name, value in exact.items()}


def table(samples: Sequence[Sample], memory: Sequence[Memory]) -> Table:
    """Medians, and the ratios of the last line."""
    ratios = headline(samples, memory)
    found = new_table(
        f"Many policies, {HEADLINE}", ("policies",), ("CPU µs", "p50 ms", "PSS MiB", "CPU / one", "PSS / one")
    )
    for policies in SETS:
        of, pss = figures(samples, HEADLINE, policies), [each.pss_kib for each in memory if each.pair == policies]
        if of is None:
            continue
        numbers = (ratios.get(f"{what}_{policies}_vs_one") for what in ("cpu", "pss"))
        found.add_row(
            _TITLES[policies],
            f"{of.cpu_us:.1f}",
            f"{of.p50_us / 1000:.3f}",
            f"{pss[0] / 2 / 1024:.1f}" if pss else "-",
            *("" if number is None else f"{number:.3f}" for number in numbers),
        )
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=15, show_default=True, help="How often each set of policies has its turn.")
@click.option("--seconds", default=2, show_default=True, help="How long a turn lasts.")
def main(rounds: int, seconds: int) -> None:
    """Measure a pair of sidecars in a mesh with many policies against one with few, in one run."""
    root, where = prepare(), cores.split(cores.mine())
    with run.workspace() as directory:
        pair = MeshPair(root, directory, mesh=mesh(ONE))
        with run.bed(root, directory, pair, where) as each:
            samples = measure(each, pair, rounds, seconds)
        pairs = [partial(_pair, policies) for policies in SETS]
        memory = run.weigh(root, directory, pairs, where, seconds, say)
    show([table(samples, memory)])
    click.echo(msgspec.json.encode(headline(samples, memory)).decode())


def _pair(policies: str, root: Path, directory: Path) -> MeshPair:
    return MeshPair(root, directory, policies, mesh=mesh(policies))


if __name__ == "__main__":
    main()
