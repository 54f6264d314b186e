"""Words of the command line. Importing this loads neither torch nor a model library, so that ``--help`` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from lrc_core import __version__
from lrc_core.cli.bench.speed import add_speed_flags
from lrc_core.cli.calibrate import add_calibrate_flags
from lrc_core.kinds import KINDS, Kind
from lrc_core.kinds.words.flags import ENGINES, STARTER, add_engine, add_model, flag
from lrc_core.kinds.words.lists import add_list
from lrc_core.plan import DEFAULT_STORAGE
from lrc_core.registry import load
from lrc_core.runs.spec import STORAGE_HELP, STORAGES, AllocateSpec
from lrc_core.serving import add_flags

Handler = Callable[[argparse.Namespace], int | None]
"""A command: its exit code where that is not 0."""
SPEEDS = {
    "spectra": "Speed of singular values against torch.linalg.svd, as a ratio.",
    "probe": "Speed of STRS probes against running the whole model, as a ratio.",
    "mask-step": "Cost of a mask training step against a dense one, as a ratio.",
    "layer": "A large layer stored by pivots against a pair of factors, to run and to make, as ratios.",
}


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message} (see `{self.prog} --help`)\n")
        raise SystemExit(2)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is unknown here: the parser above would name its own help, which does not have this command."""
        found, others = super().parse_known_args(args, namespace)
        if others:
            self.error(f"unrecognized arguments: {' '.join(others)}")
        return found, others


def _lazily(module: str, function: str) -> Handler:
    """A handler whose module is imported when it is called."""
    return _handler(f"lrc_core.cli.{module}:{function}")


def _handler(path: str) -> Handler:
    def handle(arguments: argparse.Namespace) -> int | None:
        code: int | None = load(path)(arguments)
        return code

    return handle


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; each sets ``handler``."""
    parser = _Parser(prog="lrc", description="Low-rank compression of causal language models: see, learn, compare.")
    parser.add_argument("--version", action="version", version=f"lrc {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_app, _doctor, _starter, _methods):
        add(commands)
    groups = {"bench": _bench(commands)}
    for kind in KINDS.values():
        _kind(groups[kind.command[0]] if len(kind.command) > 1 else commands, kind)
    for add in (_calibrate, _sweep, _plan, _report, _runs):
        add(commands)
    return parser


def _command(commands: Any, name: str, handler: Handler, words: str, **kwargs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words, **kwargs)
    parser.set_defaults(handler=handler)
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else on stdout")
    return parser


def _app(commands: Any) -> None:
    """The servers, which print no result."""
    for name, handler, words in (
        ("app", "app", "Start the app, and open a browser."),
        ("demo", "demo", "The app read-only on the shipped runs: no model, in seconds."),
        ("class", "classroom", "The lesson for a room: on the local network, read-only; prints a QR code."),
    ):
        parser = commands.add_parser(name, help=words, description=words)
        parser.set_defaults(handler=_lazily("server", handler))
        add_flags(parser)
        if name == "app":
            starter = "do not fetch the starter pack (about 210 MB) first"
            parser.add_argument("--no-starter", dest="starter", action="store_false", help=starter)


def _doctor(commands: Any) -> None:
    parser = _command(
        commands,
        "doctor",
        _lazily("doctor", "doctor"),
        "Show what this machine offers, what a model needs, the caches.",
    )
    add_model(parser)
    words = "say what is understood of a text (repeatable): file (FILE#field=NAME) or built-in"
    add_list(parser, ("--text",), "text", words, metavar="TEXT", extend=True)
    cards = "also say what everything takes with this card (repeatable): l4, rtx4090, a100, h100"
    add_list(parser, ("--gpu",), "gpu", cards, metavar="CARD", extend=True)
    parser.add_argument("--clean", action="store_true", help="remove what can be computed again (not the starter pack)")


def _starter(commands: Any) -> None:
    _command(commands, "starter", _lazily("doctor", "starter"), "Fetch the starter pack: a model, texts and tasks.")
    words = "Write the starter pack's zero-shot items as task files for lm-eval's own command line."
    parser = _command(commands, "tasks", _lazily("doctor", "task_files"), words)
    parser.add_argument("folder", metavar="FOLDER", help="where the files go, for --include_path")
    add_list(parser, ("--tasks",), "tasks", "some of its seven (default: all)", metavar="TASK")
    parser.add_argument("--items", type=int, default=0, metavar="N", help="items of each task (default: 0, all)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="chooses the items, as of `lrc evaluate`")


def _methods(commands: Any) -> None:
    parser = _command(
        commands,
        "methods",
        _lazily("methods", "methods"),
        "Methods, decompositions and updates: what they do, their settings, their papers.",
    )
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="one of them, with its settings")


def _kind(commands: Any, kind: Kind) -> None:
    """The command of a kind of run."""
    kind.add_arguments(_command(commands, (kind.command or (kind.name,))[-1], _handler(kind.handler), kind.help))


def _bench(commands: Any) -> Any:
    group = commands.add_parser("bench", help="Every method on one bench (quality, ablation); this program's speed.")
    actions = group.add_subparsers(metavar="NAME", required=True)
    for name, words in SPEEDS.items():
        parser = _command(actions, name, _lazily("doctor", "bench"), words)
        parser.set_defaults(name=name)
        add_model(parser)
    words = "Tokens a second, dense against pairs, pivots and plans: reading and writing, as ratios of one run."
    add_speed_flags(_command(actions, "speed", _lazily("bench.speed", "speed"), words))
    words = "The demo: seconds until it is ready and seen, its memory."
    demo = _command(actions, "demo", _lazily("demo", "demo"), words)
    demo.add_argument("--rounds", type=int, default=3, metavar="N", help="fresh servers and browsers (default: 3)")
    demo.add_argument("--chromium", metavar="FILE", help="the browser (default: the one on the path)")
    words = "What an engine costs per job, and how long many trivial ones take: here, on Slurm, on Ray."
    engines = _command(actions, "engines", _lazily("clusters.engines", "engines"), words)
    engines.add_argument("--jobs", type=int, default=200, metavar="N", help="jobs through each (default: 200)")
    engines.add_argument("--only", choices=ENGINES, help="one engine (default: every one that answers)")
    engines.add_argument("--profile", default="", metavar="FILE", help="TOML: what a job asks of the cluster")
    jobs = _command(
        actions, "jobs", _lazily("bench.many_jobs", "jobs"), "What many waiting jobs and many finished runs cost."
    )
    jobs.add_argument("--waiting", type=int, default=200, metavar="N", help="jobs in the queue (default: 200)")
    jobs.add_argument("--folders", type=int, default=5000, metavar="N", help="finished runs (default: 5000)")
    jobs.add_argument("--seconds", type=float, default=20.0, metavar="S", help="how long to watch (default: 20)")
    _memory(actions)
    return actions


def _memory(actions: Any) -> None:
    words = "Models of 1.1 and 70 billion parameters' shapes under a limit of memory: peak and time of every phase."
    parser = _command(actions, "memory", _lazily("bench.scale", "memory"), words)
    parser.add_argument("--size", choices=("full", "small"), default="full", help="1.1 B parameters, or a few seconds")
    parser.add_argument("--part", action="append", choices=("blocks", "stream"), help="one of the two (default: both)")
    parser.add_argument("--limit", type=float, default=3.0, metavar="GIB", help="memory of the worker (default: 3)")
    parser.add_argument("--blocks", type=int, default=0, metavar="N", help="of the models (default: all)")
    parser.add_argument("--folder", default="", metavar="DIR", help="where models and caches are kept during the run")


def _calibrate(commands: Any) -> None:
    words = "Collect a text's statistics for later jobs, with torchrun on several GPUs at once."
    add_calibrate_flags(_command(commands, "calibrate", _lazily("calibrate", "calibrate"), words))


def _sweep(commands: Any) -> None:
    words = "Methods x rates x seeds x models from one TOML file, as many runs: here, on Slurm or on Ray."
    parser = _command(commands, "sweep", _lazily("clusters.sweeps", "sweep_command"), words)
    parser.add_argument("file", metavar="FILE", help="TOML: models, and the flags of `lrc bench quality`")
    add_engine(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the graph of runs and start nothing")
    parser.add_argument("--detach", action="store_true", help="submit everything and return")
    parser.add_argument("--cancel", action="store_true", help="take back what waits and stop what runs")
    parser.add_argument("--csv", metavar="FILE", help="also write every row to this file")


def _names_layers(word: str) -> bool:
    return word != STARTER and not Path(word).exists() and "/" not in word


def _plan(commands: Any) -> None:
    parser = _command(commands, "plan", _lazily("plans", "plan"), "Make a plan by hand; the allocator spends the rest.")
    add_model(parser)
    parser.add_argument(
        "--from", dest="begin", default="uniform", metavar="FILE|RUN", help="plan to begin with (default: uniform)"
    )
    parser.add_argument("--keep", type=float, default=0.8, help="share of the block linears to keep (default: 0.8)")
    ranks, locks = "set and lock a rank, or dense (repeatable)", "lock layers by name (repeatable)"
    add_list(parser, ("--rank",), "rank", ranks, metavar="LAYER=K", extend=True, fits=lambda word: "=" in word)
    add_list(parser, ("--lock",), "lock", locks, metavar="WORD", extend=True, fits=_names_layers)
    parser.add_argument("--name", default="My plan", help="in the score list")
    words = f"of a plan that begins as uniform: {flag(AllocateSpec, 'decomposition').help} (default: whitened)"
    parser.add_argument("--decomposition", default=AllocateSpec().decomposition, metavar="D", help=words)
    parser.add_argument(
        "--storage", choices=STORAGES, help=f"{STORAGE_HELP} (default: {DEFAULT_STORAGE}, or as the plan begun with)"
    )
    parser.add_argument("--save", required=True, metavar="FILE", help="where the plan goes")


def _report(commands: Any) -> None:
    parser = _command(
        commands,
        "report",
        _lazily("report", "report"),
        "Finished comparisons as one HTML file that needs no network, and as a PDF.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="whose newest comparison (default: of any model)")
    measured = "comparisons, benches and single measurements of the same texts, windows and tasks, by id or folder"
    add_list(
        parser,
        ("--compare",),
        "compare",
        f"{measured} (default: the newest comparison and those like it)",
        metavar="RUN",
    )
    plans, answers = "plans to draw (default: those that were compared)", "runs of lrc generate to show"
    add_list(parser, ("--plans",), "plans", plans, metavar="FILE|RUN")
    add_list(parser, ("--answers",), "answers", f"{answers} (default: the newest three)", metavar="RUN")
    parser.add_argument("--title", default="", metavar="TEXT", help="title of the report")
    parser.add_argument("--keep", type=float, metavar="SHARE", help="size that leads, in share kept (default: 0.8)")
    parser.add_argument(
        "--context", type=int, default=0, metavar="N", help="tokens the card counts with (default: 2048)"
    )
    parser.add_argument(
        "--requests", type=int, default=1, metavar="N", help="answered at once, for the card (default: 1)"
    )
    parser.add_argument("--price", type=float, default=3.0, metavar="X", help="price per GB and month (default: 3)")
    parser.add_argument("--currency", default="€", metavar="SIGN", help="sign of the currency (default: €)")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained HTML file")
    parser.add_argument("--pdf", metavar="FILE", help="write a PDF (neither named: both, as report-RUN here)")


def _runs(commands: Any) -> None:
    group = commands.add_parser("runs", help="Runs: list, show, film, cancel, resume, delete.")
    actions = group.add_subparsers(metavar="ACTION", required=True)
    _command(actions, "list", _lazily("runs", "list_runs"), "All runs, newest first.")
    show = _command(actions, "show", _lazily("runs", "show"), "One run: state, command, result, log.")
    show.add_argument("run", metavar="RUN")
    show.add_argument("--log", type=int, default=20, metavar="LINES", help="lines of its log (default: 20)")
    film = _command(
        actions, "film", _lazily("films", "film"), "A training run as a film: HTML that plays offline, GIF."
    )
    film.add_argument("run", metavar="RUN", help="run id, or a run folder such as one of assets/samples")
    film.add_argument("--html", metavar="FILE", help="write one self-contained HTML file")
    film.add_argument("--gif", metavar="FILE", help="write an animated GIF")
    cancel = _command(actions, "cancel", _lazily("runs", "cancel"), "Stop a run; it can be resumed.")
    cancel.add_argument("run", metavar="RUN")
    resume = _command(actions, "resume", _lazily("runs", "resume"), "Go on with a run that was stopped or failed.")
    resume.add_argument("run", metavar="RUN")
    resume.add_argument("--detach", action="store_true", help="return at once and let it work")
    delete = _command(actions, "delete", _lazily("runs", "delete"), "Remove runs and their files.")
    delete.add_argument("run", metavar="RUN", nargs="+")
