"""``python -m tests.campaign [--seed N] [--size small|full] [PART ...]``: prints counts; exit code 1 for any fault."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.campaign.tally import Tally


def main() -> int:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=("small", "full"), default="small")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    for name, value in {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}.items():
        os.environ.setdefault(name, value)  # before anything imports torch, and for workers
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("campaign").setLevel(logging.INFO)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where a shell ignores it, children would as well
    return int(sum(_faults(name, asked.seed, asked.size == "full") for name in asked.parts or PARTS) > 0)


def _faults(name: str, seed: int, full: bool) -> int:
    with tempfile.TemporaryDirectory(prefix=f"lrc-campaign-{name}-") as folder:
        os.environ["LRC_RUNS"], os.environ["LRC_CACHE"] = f"{folder}/runs", f"{folder}/cache"
        began = time.monotonic()
        tally = PARTS[name](Path(folder), seed, full)
    sys.stdout.write(f"{tally}\n  in {time.monotonic() - began:,.0f} s, seed {seed}, {'full' if full else 'small'}\n")
    sys.stdout.flush()
    return len(tally.faults)


def _kills(folder: Path, seed: int, full: bool) -> Tally:
    from tests.campaign import kills

    methods = tuple(entry.name for entry in kills.ALLOCATORS) if full else kills.SLICE
    ground = kills.Ground.made(folder)
    return kills.kill_workers_of(ground, methods, seed=seed, kills=4, rounds=4 if full else 1, others=True)


def _makers(folder: Path, seed: int, full: bool) -> Tally:
    from tests.campaign import kills

    return kills.kill_makers(folder, seed=seed, kills=100 if full else 10)


def _servers(folder: Path, seed: int, full: bool) -> Tally:
    from tests.campaign import servers

    return servers.kill_servers(folder, seed=seed, rounds=6 if full else 1)


def _sessions(folder: Path, seed: int, full: bool) -> Tally:
    from tests.campaign import sessions

    return sessions.visit_demo(folder, seed=seed, sessions=50 if full else 10, seconds=600 if full else 60)


def _corruptions(folder: Path, seed: int, full: bool) -> Tally:
    from tests.campaign import corruptions

    return corruptions.damage_records(folder, seed=seed, times=1000 if full else 100)


def _resumes(folder: Path, seed: int, full: bool) -> Tally:
    from tests.campaign import kills, resumes

    methods = tuple(entry.name for entry in kills.ALLOCATORS) if full else ("llrc",)
    times = 20 if full else 3
    return resumes.damage_what_is_resumed(folder, seed=seed, times=times, methods=methods, others=full)


def _fuzz(folder: Path, seed: int, full: bool) -> Tally:
    from tests.campaign import fuzz

    return fuzz.feed_readers(folder, seed=seed, times=500 if full else 50)


PARTS: dict[str, Callable[[Path, int, bool], Tally]] = {
    "kills": _kills,
    "makers": _makers,
    "servers": _servers,
    "corruptions": _corruptions,
    "resumes": _resumes,
    "fuzz": _fuzz,
    "sessions": _sessions,
}


if __name__ == "__main__":
    sys.exit(main())
