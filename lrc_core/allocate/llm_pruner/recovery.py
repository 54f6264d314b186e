"""LoRA training of a pruned model, its checkpoints, and merging."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lrc_core.allocate.llm_pruner.settings import LlmPrunerLoraSettings
from lrc_core.allocate.masks.driver import Training
from lrc_core.allocate.masks.training import batch_of, require_finite, rise_and_fall
from lrc_core.allocate.protocol import Context
from lrc_core.errors import ResourceError
from lrc_core.lowrank.structure import restructured
from lrc_core.models.blocks.linears import get_module, replace_module, weight_of
from lrc_core.models.device import devices_of
from lrc_core.types import Structure


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
    devices = [device for device in devices_of(context.model) if device.type == "cuda"]
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
        raise ResourceError("LoRA recovery needs the library peft.", "Install it: `pip install peft`.") from error

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


class _Training(Training):
    """Steps of AdamW on the next-token loss.

    Args:
        context: model with its adapters, text, callbacks.
        adapters: what is trained.
    """

    phase = "training LoRA"

    def __init__(self, context: Context, settings: LlmPrunerLoraSettings, adapters: list[nn.Parameter]) -> None:
        super().__init__(context.checkpoint / "lora.pt", context.on_progress, context.should_stop)
        self._context, self._settings, self._adapters = context, settings, adapters
        self._device = next(context.model.parameters()).device
        self._windows = context.windows(settings.documents, settings.training_window, context.seed)
        self._batch = min(settings.batch, len(self._windows))
        self._optimizer = torch.optim.AdamW(adapters, lr=settings.learning_rate, weight_decay=0.0)
        self._losses: list[float] = []

    def run(self) -> list[float]:
        """Train to the end; returns the loss of every step."""
        self._resume()
        self._train(self._step, self._batch * self._windows.shape[1])
        return self._losses

    def _total(self) -> int:
        return self._settings.epochs * (len(self._windows) // self._batch)

    def _step(self) -> dict[str, float]:
        """One optimizer step; the batch goes through the model a few windows at a time."""
        for group in self._optimizer.param_groups:
            pace = rise_and_fall(self.step, self._total(), self._settings.warmup)
            group["lr"] = self._settings.learning_rate * pace
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        _, tokens = batch_of(self._windows, self._batch, self.step, self._context.seed)
        for part in tokens.split(self._settings.at_once):
            with torch.enable_grad():
                loss = next_token_loss(self._context.model, part.to(self._device)) * (len(part) / self._batch)
                loss.backward()
            total += float(loss.detach())
        require_finite(torch.tensor(total), self.step)
        self._optimizer.step()
        self._losses.append(total)
        return {"loss": round(total, 6)}

    def _state(self) -> dict[str, Any]:
        return {
            "losses": self._losses,
            "adapters": [parameter.detach().cpu() for parameter in self._adapters],
            "optimizer": self._optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        for parameter, saved in zip(self._adapters, state["adapters"], strict=True):
            parameter.data.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._losses = list(state["losses"])
        self.step = len(self._losses)
        torch.set_rng_state(state["random"])


def next_token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean next-token cross-entropy in nats, with gradients; tokens [batch, window]."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].flatten(0, 1)
    return nn.functional.cross_entropy(logits.float(), tokens[:, 1:].flatten())
