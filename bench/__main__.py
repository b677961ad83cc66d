# SPDX-License-Identifier: Apache-2.0
"""The command line of `bin/bench`, which sets up the environments first."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from bench import report
from bench.family import FULL, QUICK
from bench.figures import FIGURES, Figure, Runs, figure_lines, table
from bench.measure import Failed, Run, runs_in
from bench.scenarios import SCENARIOS, Bench, Programs
from tests.real.engines import Docker, EngineFailed, Program, end_processes, missing, remove_tree

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

#: Where bin/bench has the original installed.
UPSTREAM = HERE.parent / ".venv" / "upstream"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and says what was found; 1 where a figure is short."""
    options = _parser().parse_args(arguments)
    figures = _chosen(options)
    try:
        runs = read(options.results) if options.results else _measure(options, _scenarios(options, figures))
    except (Failed, EngineFailed, AssertionError, OSError) as error:
        print(f"bin/bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"bin/bench: stopped; what was measured is in the newest file of {RESULTS}", file=sys.stderr)
        return 130
    if options.publish:
        report.publish(Runs(runs), RESULTS, HERE.parent / "docs")
    if options.figures is None:
        print(table(Runs(runs)), end="")
        return 0
    lines, well = figure_lines(figures, Runs(runs))
    print("\n".join(lines))
    return 0 if well else 1


def read(files: Sequence[Path]) -> list[Run]:
    """The runs in files of results; rounds of different files stay apart."""
    return [
        replace(run, round=run.round + 1000 * number)
        for number, file in enumerate(files)
        for run in runs_in(file.read_text())
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/bench",
        description="Measures arv-docker and the original arv-keepdocker against the same endpoints, in rotated order. "
        "Each run becomes a line of JSON in bench/results/, and a table is printed.",
        epilog="examples:\n  bin/bench --quick --figures\n  bin/bench --figures 3,11 --rounds 5\n"
        "  bin/bench --results bench/results/published.jsonl --figures",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a small family of images, and what makes sense on it")
    parser.add_argument(
        "--figures",
        nargs="?",
        const="",
        metavar="N,N",
        help="measure what these figures need (all unless given); print a line for each; exit code 1 if one is short",
    )
    parser.add_argument("--scenarios", metavar="NAME,NAME", help=f"measure these alone: {', '.join(SCENARIOS)}")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of each scenario (3)")
    parser.add_argument(
        "--work",
        type=Path,
        default=HERE.parent / ".bench",
        metavar="DIR",
        help="where engine, images and sites are, and stay; up to 30 GB (.bench in the checkout)",
    )
    parser.add_argument("--docker-host", metavar="URL", help="use this engine's images, and build there what it lacks")
    parser.add_argument(
        "--results", type=Path, nargs="+", metavar="FILE", help="measure nothing: tell of what these files hold"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="put the results into bench/results/published.jsonl and docs/performance.md",
    )
    return parser


def _chosen(options: argparse.Namespace) -> list[Figure]:
    usual = [figure for figure in FIGURES if figure.quick or not options.quick]
    if not options.figures:
        return usual
    try:
        wanted = [int(word) for word in options.figures.split(",")]
        return [{figure.number: figure for figure in FIGURES}[number] for number in wanted]
    except (ValueError, KeyError):
        _parser().error(f"--figures: numbers from 1 to {len(FIGURES)}, with commas between them")


def _scenarios(options: argparse.Namespace, figures: Sequence[Figure]) -> list[str]:
    if options.scenarios:
        wanted = options.scenarios.split(",")
        if unknown := set(wanted) - SCENARIOS.keys():
            _parser().error(f"--scenarios: there is no {', '.join(sorted(unknown))}")
    elif options.figures is None and not options.quick:
        wanted = list(SCENARIOS)
    else:
        wanted = [scenario for figure in figures for scenario in figure.scenarios]
    return [scenario for scenario in SCENARIOS if scenario in wanted]


def _measure(options: argparse.Namespace, scenarios: Sequence[str]) -> list[Run]:
    family = QUICK if options.quick else FULL
    programs = Programs(Path(sys.executable).parent, UPSTREAM / "bin")
    RESULTS.mkdir(exist_ok=True)
    results = RESULTS / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}.jsonl"
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", file=sys.stderr, flush=True)

    with _work(options.work) as work, _engine(options.docker_host, work) as docker:
        family.make(docker, work, say)
        bench = Bench(docker, family, programs, work=work, results=results, rounds=options.rounds, say=say)
        for scenario in scenarios:
            try:
                SCENARIOS[scenario](bench)
            except (Failed, AssertionError) as error:  # the others can be measured all the same
                say(f"{scenario} is not measured: {error}")
    results.touch()
    runs = runs_in(results.read_text())
    results.with_suffix(".md").write_text(table(Runs(runs)))
    say(f"results: {results}")
    return runs


@contextlib.contextmanager
def _work(folder: Path) -> Iterator[Path]:
    """The work folder, for this process alone. What a killed run left in it is ended and removed first."""
    folder = folder.absolute()
    if len(str(folder)) > 50:
        raise Failed(f"{folder} is too long for the sockets in it; give --work another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another bin/bench uses {folder}") from None
        end_processes(folder / "engines")
        remove_tree(folder / "engines" / "empty")
        shutil.rmtree(folder / "sites", ignore_errors=True)
        yield folder


@contextlib.contextmanager
def _engine(host: str | None, work: Path) -> Iterator[Program]:
    if host:
        yield Program("docker", variables={"DOCKER_HOST": host, "DOCKER_BUILDKIT": "0"})
        return
    if reason := missing("docker"):
        raise Failed(f"{reason}; give --docker-host to use an engine that runs elsewhere")
    (work / "engines").mkdir(exist_ok=True)
    docker = Docker(work / "engines" / "main")
    try:
        yield docker
    finally:
        docker.close()


if __name__ == "__main__":
    sys.exit(main())
