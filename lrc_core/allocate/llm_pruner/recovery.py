"""LoRA training of a pruned model, its checkpoints, and merging."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lrc_core.allocate.llm_pruner.settings import LlmPrunerLoraSettings
from lrc_core.allocate.protocol import Context
from lrc_core.errors import CancelledError, NumericalError, ResourceError
from lrc_core.lowrank.structure import restructured
from lrc_core.models.linears import get_module, replace_module, weight_of
from lrc_core.types import Progress, Structure

_CHECKPOINT_SECONDS = 30.0


def recover(
    context: Context, settings: LlmPrunerLoraSettings, structure: Structure
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train adapters on the pruned model and merge them.

    Returns:
        The tuned weight of every block linear, [rows, columns] as the structure leaves them, in the model's dtype on
        the CPU; and figures of the training for the record.

    Raises:
        CancelledError: the user asked to stop; a checkpoint is left.
        NumericalError: the loss is not finite.
        ResourceError: the library peft is missing.
    """
    device = next(context.model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    names = [layer.name for layer in context.layers]
    with (
        torch.random.fork_rng(devices=devices),  # adapters and dropout are drawn from the global generators
        restructured(context.model, structure),
    ):
        torch.manual_seed(context.seed)
        with adapted(context.model, names, settings) as adapters:
            losses = _Training(context, settings, adapters).run()
            return {name: merged_weight(get_module(context.model, name)).cpu() for name in names}, {
                "lora_steps": len(losses),
                "loss_first": round(losses[0], 6),
                "loss_last": round(sum(losses[-10:]) / len(losses[-10:]), 6),
            }


@contextmanager
def adapted(model: nn.Module, names: Sequence[str], settings: LlmPrunerLoraSettings) -> Iterator[list[nn.Parameter]]:
    """The model with LoRA adapters on the named linears; the linears themselves are put back at the end.

    Yields:
        The adapters' parameters, in float32.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise ResourceError("LoRA recovery needs the library peft.", "Run `make app`, which installs it.") from error

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(names),
        fan_in_fan_out=isinstance(get_module(model, names[0]), Conv1D),
    )
    originals = {name: get_module(model, name) for name in names}
    had_config = hasattr(model, "peft_config")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tied embeddings, which are not adapted
            inject_adapter_in_model(config, model)
        trained: list[nn.Parameter] = []
        for name in names:
            module = get_module(model, name)
            assert isinstance(module, LoraLayer), f"peft left {name} as it was"
            module.train()  # for the dropout of the adapter; everything else stays in evaluation mode
            for parameter in (module.lora_A["default"].weight, module.lora_B["default"].weight):
                parameter.data = parameter.data.float()
                trained.append(parameter)
        yield trained
    finally:
        for name, module in originals.items():
            replace_module(model, name, module)
        if not had_config and hasattr(model, "peft_config"):
            del model.peft_config


def merged_weight(module: Any) -> Tensor:
    """W + (alpha / rank) B A of a linear with an adapter, [out, in]: added in float32 and rounded once."""
    weight = weight_of(module.get_base_layer()).detach()
    down, up = (part["default"].weight.detach().float() for part in (module.lora_A, module.lora_B))
    merged = weight.float() + float(module.scaling["default"]) * (up @ down)
    return merged.to(weight.dtype)


class _Training:
    """Steps of AdamW on the next-token loss.

    Args:
        context: model with its adapters, text, callbacks.
        settings: see :class:`~lrc_core.allocate.llm_pruner.settings.LlmPrunerLoraSettings`.
        adapters: what is trained.
    """

    def __init__(self, context: Context, settings: LlmPrunerLoraSettings, adapters: list[nn.Parameter]) -> None:
        self._context, self._settings, self._adapters = context, settings, adapters
        self._device = next(context.model.parameters()).device
        self._windows = context.windows(settings.documents, settings.training_window, context.seed)
        self._batch = min(settings.batch, len(self._windows))
        self._per_epoch = len(self._windows) // self._batch
        self._steps = self._per_epoch * settings.epochs
        self._optimizer = torch.optim.AdamW(adapters, lr=settings.learning_rate, weight_decay=0.0)
        self._losses: list[float] = []
        self._path = context.checkpoint / "lora.pt"

    def run(self) -> list[float]:
        """Train to the end; returns the loss of every step."""
        self._restore()
        saved = started = time.monotonic()
        first = len(self._losses)
        while (step := len(self._losses)) < self._steps:
            if self._context.should_stop():
                self._save()
                raise CancelledError("LoRA training was cancelled.", "Resume the run: it goes on from this step.")
            self._losses.append(self._step(step))
            tokens = (step + 1 - first) * self._batch * self._windows.shape[1]
            figures = {
                "loss": round(self._losses[-1], 6),
                "tokens_per_s": round(tokens / (time.monotonic() - started), 1),
            }
            self._context.on_progress(Progress("training LoRA", step + 1, self._steps, figures))
            if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                self._save()
                saved = time.monotonic()
        self._save()
        return self._losses

    def _step(self, step: int) -> float:
        """One optimizer step; the batch goes through the model a few windows at a time."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * self._schedule(step)
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in self._tokens(step).split(self._settings.at_once):
            with torch.enable_grad():
                loss = next_token_loss(self._context.model, part.to(self._device)) * (len(part) / self._batch)
                loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise NumericalError(
                f"The LoRA loss of step {step} is not finite.", "Lower the learning rate, or compute in float32."
            )
        self._optimizer.step()
        return total

    def _tokens(self, step: int) -> Tensor:
        """Windows of a step: a new seeded order in every epoch."""
        epoch, position = divmod(step, self._per_epoch)
        generator = torch.Generator().manual_seed(self._context.seed * 7919 + epoch)
        order = torch.randperm(len(self._windows), generator=generator)
        return self._windows[order[position * self._batch : (position + 1) * self._batch]]

    def _schedule(self, step: int) -> float:
        """Factor of the learning rate: up in a line, then down in a line."""
        rising = max(1, round(self._settings.warmup * self._steps))
        if step < rising:
            return (step + 1) / rising
        return (self._steps - step) / max(1, self._steps - rising)

    def _save(self) -> None:
        self._context.checkpoint.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        state = {
            "losses": self._losses,
            "adapters": [parameter.detach().cpu() for parameter in self._adapters],
            "optimizer": self._optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        torch.save(state, temporary)
        temporary.replace(self._path)

    def _restore(self) -> None:
        if not self._path.exists():
            return
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        for parameter, saved in zip(self._adapters, state["adapters"], strict=True):
            parameter.data.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._losses = list(state["losses"])
        torch.set_rng_state(state["random"])


def next_token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean next-token cross-entropy in nats, with gradients; tokens [batch, window]."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].flatten(0, 1)
    return nn.functional.cross_entropy(logits.float(), tokens[:, 1:].flatten())
