"""Words of the command line. Importing this loads neither torch nor a model library, so that ``--help`` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

from lrc_core import __version__
from lrc_core.cli.bench_words import bench_words
from lrc_core.runs.spec import LESSON_PARTS, LessonSpec, SamplingSpec
from lrc_core.settings import fields_of
from lrc_core.tune.kinds import KINDS, NO_UPDATE

Handler = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message} (see `{self.prog} --help`)\n")
        raise SystemExit(2)


def _lazily(module: str, function: str) -> Handler:
    """A handler whose module is imported when it is called."""

    def handle(arguments: argparse.Namespace) -> int:
        return int(getattr(import_module(f"lrc_core.cli.{module}"), function)(arguments))

    return handle


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; each sets ``handler``."""
    parser = _Parser(prog="lrc", description="Low-rank compression of causal language models: see, learn, compare.")
    parser.add_argument("--version", action="version", version=f"lrc {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _doctor,
        _starter,
        _fetch,
        _spectra,
        _allocate,
        _plan,
        _update,
        _evaluate,
        _compare,
        _generate,
        _report,
        _lesson,
        _runs,
    ):
        add(commands)
    bench_words(commands, _command, _lazily)
    return parser


def _command(commands: Any, name: str, handler: Handler, words: str, **kwargs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words, **kwargs)
    parser.set_defaults(handler=handler)
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else on stdout")
    return parser


def _doctor(commands: Any) -> None:
    parser = _command(
        commands,
        "doctor",
        _lazily("doctor", "doctor"),
        "Show what this machine offers, what a model needs, the caches.",
    )
    _model(parser)
    parser.add_argument("--clean", action="store_true", help="remove what can be computed again (not the starter pack)")


def _starter(commands: Any) -> None:
    _command(commands, "starter", _lazily("doctor", "starter"), "Fetch the starter pack: a model, texts and tasks.")


def _fetch(commands: Any) -> None:
    parser = _command(commands, "fetch", _lazily("jobs", "fetch"), "Download a model and check that it fits.")
    _model(parser)
    _job(parser)


def _spectra(commands: Any) -> None:
    parser = _command(commands, "spectra", _lazily("jobs", "spectra"), "Singular spectra of every block linear.")
    _model(parser)
    parser.add_argument("--decompositions", nargs="+", metavar="D", help="default: svd asvd whitened")
    parser.add_argument(
        "--stream", action="store_true", help="matrix by matrix from the files, for a model too large to load; svd only"
    )
    parser.add_argument("--subspaces", action="store_true", help="also store overlaps between neighbouring blocks")
    parser.add_argument("--text", action="append", metavar="TEXT", help="calibration text (repeatable): built-in, file")
    _calibration(parser)
    _job(parser)


def _allocate(commands: Any) -> None:
    parser = _command(commands, "allocate", _lazily("jobs", "allocate"), "Choose the rank of every layer.")
    _model(parser)
    parser.add_argument("--method", default="llrc", help="a method by name (default: llrc)")
    parser.add_argument("--keep", type=float, default=0.8, help="share of the block linears to keep (default: 0.8)")
    parser.add_argument("--decomposition", default="whitened", help="svd, asvd, whitened (default: whitened)")
    parser.add_argument("--preset", help="named settings of the method (default: its first, quick)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting (repeatable)")
    parser.add_argument("--text", action="append", metavar="TEXT", help="calibration text (repeatable): built-in, file")
    _calibration(parser)
    parser.add_argument("--calibration-seed", type=int, metavar="N", help="default: the seed")
    parser.add_argument("--save", metavar="FILE", help="also write the plan to this file")
    _job(parser)


def _plan(commands: Any) -> None:
    parser = _command(commands, "plan", _lazily("plans", "plan"), "Make a plan by hand; the allocator spends the rest.")
    _model(parser)
    parser.add_argument(
        "--from", dest="begin", default="uniform", metavar="FILE|RUN", help="plan to begin with (default: uniform)"
    )
    parser.add_argument("--keep", type=float, default=0.8, help="share of the block linears to keep (default: 0.8)")
    parser.add_argument(
        "--rank", action="append", default=[], metavar="LAYER=K", help="set and lock a rank, or dense (repeatable)"
    )
    parser.add_argument("--lock", action="append", default=[], metavar="WORD", help="lock layers by name (repeatable)")
    parser.add_argument("--name", default="My plan", help="in the score list")
    parser.add_argument("--decomposition", default="whitened", help="of a plan that begins as uniform")
    parser.add_argument("--save", required=True, metavar="FILE", help="where the plan goes")


def _update(commands: Any) -> None:
    parser = _command(commands, "update", _lazily("jobs", "update"), "Fit or tune a plan's factors.")
    _model(parser)
    parser.add_argument("--plan", metavar="FILE|RUN", required=True, help="plan file, run id, or RUN@20")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help=f"which factors (default: {KINDS[0]})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting (repeatable)")
    _calibration_of_plan(parser)
    _job(parser)


def _evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", _lazily("jobs", "evaluate"), "Measure a plan, or the dense model.")
    _model(parser)
    parser.add_argument(
        "--plan", metavar="FILE|RUN", help="plan file, run id, or RUN@20 for the plan recorded at 20 %% compression"
    )
    _evaluation(parser)
    _job(parser)


def _compare(commands: Any) -> None:
    parser = _command(commands, "compare", _lazily("jobs", "compare"), "Compare methods at the same budgets.")
    _model(parser)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.9, 0.8], help="shares to keep (default: 0.9 0.8)")
    parser.add_argument("--methods", nargs="+", default=["uniform", "strs", "llrc"], help="default: uniform strs llrc")
    parser.add_argument("--decomposition", default="whitened", help="svd, asvd, whitened (default: whitened)")
    parser.add_argument(
        "--preset", action="append", default=[], metavar="NAME|METHOD=NAME", help="preset of all methods, or of one"
    )
    parser.add_argument(
        "--update",
        choices=(NO_UPDATE, *KINDS),
        default=NO_UPDATE,
        help=f"factors of every plan to update before it is measured (default: {NO_UPDATE})",
    )
    _evaluation(parser)
    parser.add_argument("--evaluation-seed", type=int, metavar="N", help="default: the seed")
    _job(parser)


def _lesson(commands: Any) -> None:
    parser = _command(
        commands, "lesson", _lazily("jobs", "lesson"), "Pictures and texts of a model for the Learn page."
    )
    _model(parser)
    parser.add_argument("--layers", nargs="+", metavar="NAME", help="layers by full name (default: chosen by spectra)")
    default = LessonSpec()
    parser.add_argument(
        "--keep", type=float, default=default.keep, help=f"share left of a squeezed layer (default: {default.keep})"
    )
    parser.add_argument("--parts", nargs="+", choices=LESSON_PARTS, default=list(LESSON_PARTS), help="default: all")
    parser.add_argument("--prompt", default="", help="what the model goes on with (default: that of text samples)")
    parser.add_argument("--text", action="append", metavar="TEXT", help="calibration text (repeatable): built-in, file")
    _calibration(parser)
    _job(parser)


def _generate(commands: Any) -> None:
    parser = _command(
        commands,
        "generate",
        _lazily("generate", "generate"),
        "One prompt, answered by the dense model and by plans, side by side.",
    )
    _model(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="the question; - reads standard input")
    parser.add_argument(
        "--plan", nargs="+", default=[], metavar="FILE|RUN", help="plan file, run id, RUN@20, or dense; three at most"
    )
    parser.add_argument("--no-dense", action="store_true", help="the plans alone")
    for info in fields_of(SamplingSpec):
        flag = f"--{info.name.replace('_', '-')}"
        words = f"{info.help.replace('%', '%%')} (default: {info.default})"
        parser.add_argument(flag, type=info.type, choices=info.choices or None, help=words)
    parser.add_argument("--release", action="store_true", help="let the generation worker give its model back")
    _job(parser)


def _report(commands: Any) -> None:
    parser = _command(
        commands,
        "report",
        _lazily("report", "report"),
        "A finished comparison as one HTML file that needs no network, and as a PDF.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="whose newest comparison (default: of any model)")
    parser.add_argument(
        "--compare", default="", metavar="RUN", help="comparison or bench, by id or folder (default: the newest)"
    )
    parser.add_argument(
        "--plans", nargs="+", default=[], metavar="FILE|RUN", help="plans to draw (default: those that were compared)"
    )
    parser.add_argument(
        "--answers",
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs of lrc generate to show (default: the newest three)",
    )
    parser.add_argument("--title", default="", metavar="TEXT", help="of the report")
    parser.add_argument("--keep", type=float, metavar="SHARE", help="size that leads, in share kept (default: 0.8)")
    parser.add_argument(
        "--context", type=int, default=0, metavar="N", help="tokens the card counts with (default: 2048)"
    )
    parser.add_argument(
        "--requests", type=int, default=1, metavar="N", help="answered at once, for the card (default: 1)"
    )
    parser.add_argument("--price", type=float, default=3.0, metavar="X", help="of a GB and month (default: 3)")
    parser.add_argument("--currency", default="€", metavar="SIGN", help="of the price (default: €)")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained HTML file")
    parser.add_argument("--pdf", metavar="FILE", help="write a PDF (neither named: both, as report-RUN)")


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="starter", metavar="MODEL", help="starter, hub id, folder or GGUF")
    parser.add_argument("--revision", default="", help="hub revision")
    parser.add_argument("--trust-remote-code", action="store_true", help="consent to run the model's own code")
    parser.add_argument("--allow-pickle", action="store_true", help="consent to weights that are not safetensors")


def _calibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", "--max-windows", type=int, metavar="N", help="calibration windows (default: 128)")
    parser.add_argument("--window", type=int, metavar="N", help="tokens in a window (default: 512)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")


def _evaluation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--text", action="append", metavar="TEXT", help="text to report on (repeatable): built-in, file"
    )
    parser.add_argument("--window", type=int, metavar="N", help="tokens in a window (default: 512)")
    parser.add_argument("--max-windows", type=int, metavar="N", help="windows a text, 0 for all (default: 40)")
    parser.add_argument("--stride", type=int, metavar="N", help="tokens between window starts, 0: the window")
    parser.add_argument("--bos", choices=("auto", "yes", "no"), help="start windows with BOS (default: auto)")
    parser.add_argument("--tasks", nargs="*", metavar="TASK", help="zero-shot tasks: any that lm-eval knows")
    parser.add_argument("--items", type=int, metavar="N", help="items a task, 0 for all (default: 100)")
    parser.add_argument("--include-path", metavar="DIR", help="folder of your own lm-eval task files")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    _calibration_of_plan(parser)


def _calibration_of_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calibration-text", action="append", metavar="TEXT", help="repeatable; default: wiki, c4")
    parser.add_argument("--windows", type=int, metavar="N", help="calibration windows (default: 128)")
    parser.add_argument("--calibration-window", type=int, metavar="N", help="tokens in them (default: 512)")
    parser.add_argument("--calibration-seed", type=int, metavar="N")


def _job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detach", action="store_true", help="print the run's id at once and let it work")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped or failed")


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
