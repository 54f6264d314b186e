"""``python -m lrc_core.hf lm_eval --model hf ...``: another program, with low-rank folders known to transformers."""

import runpy
import sys

import lrc_core.hf  # noqa: F401 - registers the format

if len(sys.argv) < 2:
    sys.exit("usage: python -m lrc_core.hf MODULE [ARGUMENTS ...]")
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
