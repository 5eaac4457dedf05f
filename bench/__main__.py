"""`python -m bench`: the pair benchmark. The last line on stdout is one JSON object with the four headline ratios."""

from __future__ import annotations

import platform
from pathlib import Path

import click
import msgspec

from bench import breakdown, cores, run
from bench.command import prepare, say, show
from bench.load import Cell
from bench.pairs import Pair
from bench.pairs.envoy import EnvoyPair
from bench.pairs.mesh import MeshPair
from bench.pairs.plain import PlainPair
from bench.report import Run, tables
from bench.stats import CELLS, HEADLINE, UNLOADED

_PAIRS: dict[str, type[Pair]] = {pair.name: pair for pair in (PlainPair, EnvoyPair, MeshPair)}
_FULL = (CELLS, 7, 2)
_QUICK = ((UNLOADED, HEADLINE, Cell(32, "64k"), Cell(32, "1k", new_connections=True)), 3, 1)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds: under 90 s, for a first look.")
@click.option(
    "--pairs",
    default=",".join(_PAIRS),
    show_default=True,
    help="Which pairs to measure; the headline needs all of them.",
)
@click.option(
    "--breakdown",
    "breakdown_",
    is_flag=True,
    help="Instead: where the mesh spends what plain nginx does not, feature by feature and by profile.",
)
@click.option(
    "--shared",
    is_flag=True,
    help="Let the load, the application and the proxies share all cores, instead of half for the proxies alone.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("build/bench.json"),
    show_default=True,
    help="Where to write every sample as JSON.",
)
def main(quick: bool, pairs: str, breakdown_: bool, shared: bool, output: Path) -> None:
    """Measure our sidecar pair beside a plain nginx pair and an Envoy pair, in one run."""
    names = pairs.split(",")
    unknown = [name for name in names if name not in _PAIRS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(_PAIRS)}", param_hint="--pairs")
    root = prepare()
    cells, rounds, seconds = _QUICK if quick else _FULL
    where = cores.shared(cores.mine()) if shared else cores.split(cores.mine())
    with run.workspace() as directory:
        if breakdown_:
            show(breakdown.run(root, directory, where, say))
            return
        chosen = [_PAIRS[name] for name in names]
        with run.all_up(root, directory, [pair(root, directory) for pair in chosen], where) as beds:
            samples = run.measure(beds, cells, rounds, seconds, say)
        memory = run.weigh(root, directory, chosen, where, seconds, say)
    result = Run(_machine(), names, rounds, seconds, samples, memory)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(result.to_json())
    show(tables(result))
    click.echo(f"Every sample: {output}")
    click.echo(msgspec.json.encode(result.headline()).decode())


def _machine() -> dict[str, str]:
    return {
        "kernel": platform.release(),
        "processor": _processor(Path("/proc/cpuinfo").read_text()),
        "cores": str(len(cores.mine())),
    }


def _processor(cpuinfo: str) -> str:
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.machine()


if __name__ == "__main__":
    main()
