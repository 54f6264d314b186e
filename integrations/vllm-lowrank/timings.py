"""Tokens a second of folders in vLLM, in turns of one run: ``python timings.py DENSE FOLDER ...``.

The first folder is what the others are compared with. All of them stay loaded, so that what else the machine does
meets all alike; each turn writes one sequence behind a prompt of 128 tokens.
"""

from __future__ import annotations

import os
import sys
import time
from statistics import quantiles

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from vllm import LLM, SamplingParams

TURNS, PROMPT, WRITTEN = 8, 128, 32
SHARE = 0.1  # of the memory, for each folder's cache


def seconds(engine: LLM, tokens: int) -> float:
    """What reading the prompt and writing so many tokens takes, whatever ends a text."""
    asked = SamplingParams(temperature=0, ignore_eos=True, max_tokens=tokens, detokenize=False)
    started = time.perf_counter()
    engine.generate({"prompt_token_ids": [*range(3, 3 + PROMPT)]}, asked, use_tqdm=False)
    return time.perf_counter() - started


def main(folders: list[str]) -> None:
    """Load all folders, take turns, print a line for each."""
    words = {"max_model_len": 2 * PROMPT, "gpu_memory_utilization": SHARE, "skip_tokenizer_init": True}
    engines = {folder: LLM(folder, dtype="bfloat16", **words) for folder in folders}
    rates: dict[str, list[float]] = {folder: [] for folder in folders}
    for turn in range(TURNS + 1):
        for folder, engine in engines.items():
            rate = WRITTEN / (seconds(engine, WRITTEN + 1) - seconds(engine, 1))
            if turn:  # the first one warms up
                rates[folder].append(rate)
    for folder, found in rates.items():
        low, middle, high = quantiles([mine / first for mine, first in zip(found, rates[folders[0]], strict=True)])
        rate = quantiles(found)[1]
        ratio = f"{middle:.2f} times the first (quartiles {low:.2f} to {high:.2f})"
        sys.stdout.write(f"{folder}: {rate:.1f} tokens/s, {ratio}\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
