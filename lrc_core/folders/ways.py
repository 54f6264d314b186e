"""How an exported folder is loaded: the lines that its card, the app and the command line show. No torch."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadingWay:
    """One way to load a folder.

    Attributes:
        title: for whom it is.
        language: of the code, for its colours.
        code: ready to copy.
    """

    title: str
    language: str
    code: str


def ways_to_load(folder: str, form: str) -> tuple[LoadingWay, ...]:
    """Four ways, for whoever has this program, for whoever has not, for a benchmark, and for a server.

    Args:
        folder: path or hub id.
        form: ``lowrank`` or ``dense``.
    """
    literal, word = json.dumps(folder, ensure_ascii=False), shlex.quote(folder)
    load, tokenizer = "AutoModelForCausalLM.from_pretrained", "tokenizer = AutoTokenizer.from_pretrained"
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    stock = LoadingWay("With transformers", "python", f"{imports}\nmodel = {load}({literal})\n{tokenizer}({literal})")
    # lm-eval would take the softmax in the precision of the weights, `lrc evaluate` takes it in float32.
    pretrained = shlex.quote(f"pretrained={folder},softmax_dtype=float32")
    bench = f"lm_eval --model hf --model_args {pretrained} --tasks arc_easy --batch_size 8"
    ask, start = "With lm-eval, from its own command line", 'pip install "transformers[serving]"\ntransformers serve'
    if form == "dense":
        text = f'from transformers import pipeline\n\nwrite = pipeline("text-generation", {literal})'
        serve = LoadingWay("As a server", "bash", f"{start} {word}")
        return stock, LoadingWay("As a pipeline", "python", text), LoadingWay(ask, "bash", bench), serve
    own = LoadingWay(
        "With this program installed: no code of the folder runs", "python", f"import lrc_core.hf\n{stock.code}"
    )
    trust = ", trust_remote_code=True)"
    shim = LoadingWay(
        "With transformers alone: runs the loader in the folder, which you can read",
        "python",
        f"{imports}\nmodel = {load}({literal}{trust}\n{tokenizer}({literal})",
    )
    serve = LoadingWay("As a server", "bash", f"{start} {word} --trust-remote-code")
    return own, shim, LoadingWay(ask, "bash", f"python -m lrc_core.hf {bench}"), serve
