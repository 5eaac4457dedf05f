"""`python -m bench`: the pair benchmark. The last line on stdout is one JSON object with the four headline ratios."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

import click
import msgspec
from rich.console import Console
from rich.table import Table

from bench import breakdown, cores, run
from bench.load import Cell
from bench.pairs import Pair
from bench.pairs.envoy import EnvoyPair
from bench.pairs.mesh import MeshPair
from bench.pairs.plain import PlainPair
from bench.report import Run, tables
from bench.stats import CELLS, HEADLINE, UNLOADED
from nginx_mesh.sidecar.image import ImageError, ensure_image

_TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "taskset": "util-linux", "unshare": "util-linux", "wrk": "wrk"}
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
    _require()
    signal.signal(signal.SIGTERM, _interrupt)
    cells, rounds, seconds = _QUICK if quick else _FULL
    where = cores.shared(cores.mine()) if shared else cores.split(cores.mine())
    try:
        root = ensure_image(_say)
    except ImageError as error:
        raise click.ClickException(str(error)) from error
    with run.workspace() as directory:
        if breakdown_:
            _print(breakdown.run(root, directory, where, _say))
            return
        chosen = [_PAIRS[name] for name in names]
        with run.all_up(root, directory, [pair(root, directory) for pair in chosen], where) as beds:
            samples = run.measure(beds, cells, rounds, seconds, _say)
        memory = run.weigh(root, directory, chosen, where, seconds, _say)
    result = Run(_machine(), names, rounds, seconds, samples, memory)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(result.to_json())
    _print(tables(result))
    click.echo(f"Every sample: {output}")
    click.echo(msgspec.json.encode(result.headline()).decode())


def _print(what: list[Table]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in what:
        console.print(table)


def _require() -> None:
    if os.geteuid() != 0:
        raise click.ClickException("network namespaces need root: run it with sudo")
    missing = {package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    if missing:
        raise click.ClickException(f"missing tools; install them with: apt-get install {' '.join(sorted(missing))}")


def _machine() -> dict[str, str]:
    return {
        "kernel": platform.release(),
        "processor": _processor(Path("/proc/cpuinfo").read_text()),
        "cores": str(len(cores.mine())),
    }


def _processor(cpuinfo: str) -> str:
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _say(line: str) -> None:
    click.echo(line, err=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
