"""A folder loaded and run in a process of its own: ``python reload.py`` with a question as JSON on standard input.

It imports torch and transformers and nothing of this program, and loads whatever the folder says with the code that
the folder carries along: what a stranger would do. The question names the ``folder``, a file of ``reference`` tensors
(``windows`` [n, w] token ids and ``logits`` [n, w, vocab]), the ``device`` (``several`` for all that there are) and the
number of ``threads``. The answer on standard output has the largest difference of the logits, the loss of every window
here and there, and the keys that did not fit.
"""

import json
import sys
import time
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM


def losses(logits: Tensor, windows: Tensor) -> list[float]:
    """Summed loss in nats of every window, from logits [n, w, vocab]."""
    found = []
    for row, tokens in zip(logits, windows, strict=True):
        chances = torch.log_softmax(row[:-1].float(), -1).gather(1, tokens[1:, None].to(row.device))
        found.append(float(-chances.double().sum()))
    return found


def main(question: dict[str, Any]) -> dict[str, Any]:
    """Load, run, compare."""
    torch.set_num_threads(question["threads"])
    begun = time.monotonic()
    several = question["device"] == "several"
    model, info = AutoModelForCausalLM.from_pretrained(
        question["folder"],
        trust_remote_code=True,
        local_files_only=True,
        output_loading_info=True,
        dtype="auto",
        device_map="auto" if several else None,
    )
    model = (model if several else model.to(question["device"])).eval()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()  # out of the mapped file, whose addresses may cost the last bit
    loaded_s = time.monotonic() - begun
    reference = load_file(question["reference"])
    difference, largest, equal, here = 0.0, 0.0, True, []
    with torch.no_grad():
        for tokens, wanted in zip(reference["windows"], reference["logits"], strict=True):
            logits = model(input_ids=tokens[None].to(model.device), use_cache=False).logits.cpu()
            equal = equal and logits.dtype == wanted.dtype and torch.equal(logits[0], wanted)
            difference = max(difference, float((logits[0].float() - wanted.float()).abs().max()))
            largest = max(largest, float(wanted.float().abs().max()))
            here += losses(logits, tokens[None])
    keys = {name: sorted(map(str, info[name])) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    return {
        "equal": equal,
        "difference": difference,
        "largest": largest,
        "losses": here,
        "tokens": int(reference["windows"][:, 1:].numel()),
        "wanted_losses": losses(reference["logits"], reference["windows"]),
        "keys": {name: found for name, found in keys.items() if found},
        "loaded_s": round(loaded_s, 2),
        "alone": not any(name.split(".")[0] == "lrc_core" for name in sys.modules),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))  # noqa: T201 - the answer
