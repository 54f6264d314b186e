"""Words of ``lrc bench``: this program's speed, and the bench of quality."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from lrc_core.tune.kinds import KINDS, NO_UPDATE

SPEEDS = {
    "spectra": "Speed of singular values against torch.linalg.svd, as a ratio.",
    "probe": "Speed of STRS probes against running the whole model, as a ratio.",
    "mask-step": "Cost of a mask training step against a dense one, as a ratio.",
}


def bench_words(commands: Any, command: Callable[..., argparse.ArgumentParser], lazily: Callable[..., Any]) -> None:
    """Add ``lrc bench`` to the commands.

    Args:
        commands: where.
        command: makes the parser of one command.
        lazily: makes a handler whose module is imported when it is called.
    """
    group = commands.add_parser("bench", help="Every method on one bench (quality, ablation); this program's speed.")
    actions = group.add_subparsers(metavar="NAME", required=True)
    for name, words in SPEEDS.items():
        parser = command(actions, name, lazily("doctor", "bench"), words)
        parser.set_defaults(name=name)
        _model(parser)
    demo = command(actions, "demo", lazily("demo", "demo"), "The demo: seconds until it is ready and seen, its memory.")
    demo.add_argument("--rounds", type=int, default=3, metavar="N", help="fresh servers and browsers (default: 3)")
    demo.add_argument("--chromium", metavar="FILE", help="the browser (default: the one on the path)")
    _quality(command(actions, "quality", lazily("bench", "quality"), "Every method at every target, with tests."))
    _ablation(command(actions, "ablation", lazily("bench", "ablation"), "Loss terms and calibration texts of methods."))


def _quality(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.9, 0.8, 0.7, 0.6], help="default: 0.9 0.8 0.7 0.6")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="default: every one")
    parser.add_argument("--decomposition", nargs="+", default=["whitened"], metavar="D", help="default: whitened")
    parser.add_argument(
        "--references", nargs="+", default=[], metavar="MODEL", help="other models measured on the same texts and tasks"
    )
    parser.add_argument(
        "--against", nargs="+", default=["uniform", "strs"], metavar="METHOD", help="baselines: default uniform strs"
    )
    parser.add_argument(
        "--update",
        nargs="+",
        choices=(NO_UPDATE, *KINDS),
        default=[NO_UPDATE],
        help="what is done to the factors of every plan, each in rows of its own (default: none)",
    )
    _both(parser)


def _ablation(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.8], help="default: 0.8")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="default: every one whose loss terms are known")
    parser.add_argument("--decomposition", default="whitened", metavar="D", help="default: whitened")
    parser.add_argument("--parts", nargs="+", default=["losses", "texts"], help="losses, texts (default: both)")
    parser.add_argument(
        "--ablation-texts",
        nargs="+",
        default=["wiki", "c4", "code", "generated"],
        metavar="TEXT",
        help="calibration texts, each alone; generated: written by the model (default: wiki c4 code generated)",
    )
    _both(parser)


def _both(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="bench|gpu|METHOD=NAME",
        help="size of the bench (default: bench, for two cores), or preset of a method",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="one matrix each (default: 0)")
    parser.add_argument("--texts", dest="text", nargs="+", action="extend", metavar="TEXT", help="texts to report on")
    parser.add_argument("--text", nargs="+", action="extend", metavar="TEXT", help=argparse.SUPPRESS)
    parser.add_argument("--window", type=int, metavar="N", help="tokens in a window (default: 512)")
    parser.add_argument("--max-windows", type=int, metavar="N", help="windows a text, 0 for all (default: 40)")
    parser.add_argument("--stride", type=int, metavar="N", help="tokens between window starts, 0: the window")
    parser.add_argument("--bos", choices=("auto", "yes", "no"), help="start windows with BOS (default: auto)")
    parser.add_argument("--tasks", nargs="*", metavar="TASK", help="zero-shot tasks: any that lm-eval knows")
    parser.add_argument(
        "--task-keeps", type=float, nargs="*", default=[0.8], metavar="KEEP", help="targets with tasks (default: 0.8)"
    )
    parser.add_argument("--items", type=int, metavar="N", help="items a task, 0 for all (default: 100)")
    parser.add_argument("--include-path", metavar="DIR", help="folder of your own lm-eval task files")
    parser.add_argument("--evaluation-seed", type=int, metavar="N", help="chooses items (default: 0)")
    parser.add_argument("--calibration-text", action="append", metavar="TEXT", help="repeatable; default: wiki, c4")
    parser.add_argument("--windows", type=int, metavar="N", help="calibration windows (default: 128)")
    parser.add_argument("--calibration-window", type=int, metavar="N", help="tokens in them (default: 512)")
    parser.add_argument(
        "--no-share-path",
        dest="share_path",
        action="store_false",
        help="train a learning method anew for every target instead of using the plans recorded on the way",
    )
    parser.add_argument("--csv", metavar="FILE", help="also write every figure to this file")
    parser.add_argument("--markdown", metavar="FILE", help="also write the tables to this file")
    parser.add_argument("--detach", action="store_true", help="print the run's id at once and let it work")
    parser.add_argument("--resume", action="store_true", help="accepted; a bench always goes on where it stopped")
    parser.set_defaults(calibration_seed=None)


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="starter", metavar="MODEL", help="starter, hub id, folder or GGUF")
    parser.add_argument("--model", dest="named_model", metavar="MODEL", help="the same, after options")
    parser.add_argument("--revision", default="", help="hub revision")
    parser.add_argument("--trust-remote-code", action="store_true", help="consent to run the model's own code")
    parser.add_argument("--allow-pickle", action="store_true", help="consent to weights that are not safetensors")
