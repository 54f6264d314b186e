"""Experts of a mixture as linears of their own, and folders that hold them so: ``"quant_method": "lowrank_experts"``.

transformers keeps the experts of a block stacked, as parameters [experts, out, in] or [experts, in, out] that a kernel
reads whole. Here every expert gets its linears (``experts.3.gate_proj``, ``.up_proj``, ``.down_proj``) whose weights
are views of the stack, and the module calls them with the tokens that are routed to it. So whatever works on linears
works on experts. Gate and up are matrices of their own also where they are stored as one.

Like ``lowrank.py`` beside it, this file is a part of the program that wrote the folder and goes along with it; it needs
torch and transformers only. ``experts`` of config.json names the modules whose experts are linears; names of tensors
are those of the model in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.quantizers import register_quantization_config, register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from lrc_core.hf.lowrank import LowRankAutoConfig, LowRankConfig, LowRankQuantizer, own_name

EXPERTS_METHOD = "lowrank_experts"


class MixtureConfig(LowRankConfig):
    """The block ``quantization_config`` of a mixture; ``experts`` are names of modules."""

    def __init__(self, quant_method: str = EXPERTS_METHOD, **block: Any) -> None:
        self.experts: list[str] = []
        super().__init__(quant_method, **block)


class MixtureQuantizer(LowRankQuantizer):
    """Takes the experts out of their stacks before the layers are put into the empty model."""

    def _process_model_before_weight_loading(self, model: Any, **words: Any) -> Any:
        for name in self.quantization_config.experts:
            unstack(model.get_submodule(own_name(model, name)))
        return super()._process_model_before_weight_loading(model, **words)

    def update_weight_conversions(self, weight_conversions: Any, model: Any) -> Any:
        """None: the files have the model's own names, and nothing is to be stacked."""
        return []


class MixtureAutoConfig(LowRankAutoConfig):
    """What ``auto_map`` of a mixture's folder names."""


def unstack(module: nn.Module) -> None:
    """Give the experts of a module linears of their own, in place.

    Raises:
        ValueError: they are not stacked in a way that is known.
    """
    if (make := way_to_unstack(module)) is None:
        raise ValueError(
            f"The experts of a {type(module).__name__} are not stacked as they were when this was written."
        )
    make(module)


def way_to_unstack(module: nn.Module) -> Callable[[Any], None] | None:
    """What unstacks a module; None of one that holds no experts, or holds them in a way that is not known."""
    return next((make for matches, make in _FORMS if matches(module)), None)


def stacks_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that hold a matrix for every expert."""
    return {name: tensor for name, tensor in module.named_parameters(recurse=False) if tensor.ndim == 3}


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear on a view of stacked weights [out, in]; no memory of its own."""
    with torch.device("meta"):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made


class Expert(nn.Module):
    """The linears of one expert; the module that holds it says how they are joined."""

    def __init__(self, linears: dict[str, nn.Linear]) -> None:
        super().__init__()
        for name, linear in linears.items():
            self.add_module(name, linear)


# -- routed: [tokens, hidden], the experts of each token, their weights --------------------------------------------


def is_routed(module: nn.Module) -> bool:
    """Tokens come with the numbers of their experts and weights."""
    stacks = stacks_of(module)
    return "down_proj" in stacks and ("gate_up_proj" in stacks or "up_proj" in stacks) and not is_sorted(module)


def _unstack_routed(module: Any) -> None:
    turned = bool(getattr(module, "is_transposed", False))
    apart = not getattr(module, "is_concatenated", True)
    gated = "gate_up_proj" in module._parameters
    count = len(module.down_proj)
    for number in range(count):
        weights = {name: stack[number].T if turned else stack[number] for name, stack in stacks_of(module).items()}
        biases = {name: getattr(module, f"{name}_bias", None) for name in weights}
        chosen = {name: None if bias is None else bias[number] for name, bias in biases.items()}
        made = {"down_proj": _linear(weights["down_proj"].detach(), _detached(chosen["down_proj"]))}
        if gated:
            both, bias = weights["gate_up_proj"].detach(), _detached(chosen["gate_up_proj"])
            names = ("gate_proj", "up_proj")
            made = {
                **{
                    name: _linear(_half(both, side, apart), _half(bias, side, apart)) for side, name in enumerate(names)
                },
                **made,
            }
        else:
            made = {"up_proj": _linear(weights["up_proj"].detach(), _detached(chosen["up_proj"])), **made}
        module.add_module(str(number), Expert(made))
    _drop(module, [name for name in module._parameters if name.removesuffix("_bias") in stacks_of(module)])
    module.num_experts = count

    def output(self: Any, number: int, inputs: Tensor) -> Tensor:
        expert = self.get_submodule(str(number))
        if gated:
            gate, up = expert.gate_proj(inputs), expert.up_proj(inputs)
            joined = torch.stack([gate, up], -1).flatten(-2) if apart else torch.cat([gate, up], -1)
            hidden = self._apply_gate(joined)
        else:
            hidden = self.act_fn(expert.up_proj(inputs))
        found = expert.down_proj(hidden)
        return self.post_expert_norm(found) if getattr(self, "has_post_expert_norm", False) else found

    module.expert_output = MethodType(output, module)
    module.forward = MethodType(_routed, module)


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


def _half(both: Any, side: int, apart: bool) -> Any:
    """Gate (0) or up (1) of a matrix or bias that holds both, one behind the other or row by row in turn."""
    if both is None:
        return None
    half = len(both) // 2
    return both[side::2] if apart else both[side * half : (side + 1) * half]


def _drop(module: nn.Module, names: Sequence[str]) -> None:
    """Take stacks out of a module; what is left under their names holds nothing, and says so to whoever loads them."""
    for name in names:
        stack = module._parameters.pop(name)
        assert stack is not None
        module.register_buffer(name, stack.new_empty(0, *stack.shape[1:]))


def _routed(self: Any, hidden_states: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Every token through its experts, [tokens, hidden]; the sum of each token's outputs is the same in every run."""
    tokens, slots = index.shape
    flat = index.reshape(-1)
    places, outputs = [], []
    for number in flat.unique().tolist():
        if not 0 <= number < self.num_experts:
            continue  # no expert: how a token is masked
        mine = (flat == number).nonzero()[:, 0]
        places.append(mine)
        outputs.append(self.expert_output(number, hidden_states[mine // slots]))
    if not outputs:
        return torch.zeros_like(hidden_states)
    parts = torch.cat(outputs)
    parts = parts.new_zeros(tokens * slots, parts.shape[-1]).index_copy(0, torch.cat(places), parts)
    return (parts * weights.reshape(-1, 1)).view(tokens, slots, -1).sum(1).to(hidden_states.dtype)


# -- sorted: every expert gets its own [tokens, hidden], zeros for those that are not routed to it (Llama 4) --------


def is_sorted(module: nn.Module) -> bool:
    """Every expert gets all tokens, with zeros for those that are not its own."""
    return type(module).__name__ == "Llama4TextExperts" and "gate_up_proj" in module._parameters


def _unstack_sorted(module: Any) -> None:
    gate_up, down = module.gate_up_proj.detach(), module.down_proj.detach()
    half = gate_up.shape[2] // 2
    for number in range(len(down)):
        both = gate_up[number].T
        made = {
            "gate_proj": _linear(both[:half]),
            "up_proj": _linear(both[half:]),
            "down_proj": _linear(down[number].T),
        }
        module.add_module(str(number), Expert(made))
    _drop(module, ["gate_up_proj", "down_proj"])
    module.num_experts = len(down)
    module.forward = MethodType(_sorted, module)


def _sorted(self: Any, hidden_states: Tensor) -> Tensor:
    outputs = []
    for number, inputs in enumerate(hidden_states.view(self.num_experts, -1, hidden_states.shape[-1])):
        expert = self.get_submodule(str(number))
        rows = inputs.detach().any(-1).nonzero()[:, 0]  # without a bias nothing comes of zeros
        output = torch.zeros_like(inputs)
        if len(rows):
            mine = inputs[rows]
            found = expert.down_proj(expert.up_proj(mine) * self.act_fn(expert.gate_proj(mine)))
            output = output.index_copy(0, rows, found)
        outputs.append(output)
    return torch.cat(outputs)


# -- parallel: inputs sorted by expert, and how many there are of each (JetMoE) ------------------------------------


def is_parallel(module: nn.Module) -> bool:
    """Tokens come sorted by expert."""
    return list(stacks_of(module)) == ["weight"] and hasattr(module, "input_size") and hasattr(module, "num_experts")


def _unstack_parallel(module: Any) -> None:
    for number, weight in enumerate(module.weight.detach()):
        module.add_module(str(number), _linear(weight))
    _drop(module, ["weight"])
    module.forward = MethodType(_parallel, module)


def _parallel(self: Any, inputs: Tensor, expert_size: Sequence[int]) -> Tensor:
    parts = inputs.split(list(expert_size), dim=0)
    found = [self.get_submodule(str(number))(part) for number, part in enumerate(parts) if len(part)]
    return torch.cat(found) if found else inputs.new_zeros(0, self.output_size)


# -- DBRX: the experts of a block one below the other in three matrices --------------------------------------------


def is_dbrx(module: Any) -> bool:
    """The experts stand one below the other in three matrices."""
    return type(module).__name__ == "DbrxExperts" and "w1" in dict(module.mlp.named_parameters())


def _unstack_dbrx(module: Any) -> None:
    shape = (module.num_experts, module.ffn_hidden_size, module.hidden_size)
    gate, up, down = (getattr(module.mlp, name).detach().view(shape) for name in ("w1", "v1", "w2"))
    for number in range(module.num_experts):
        made = {
            "gate_proj": _linear(gate[number]), "up_proj": _linear(up[number]), "down_proj": _linear(down[number].T),
        }  # fmt: skip
        module.add_module(str(number), Expert(made))
    _drop(module.mlp, ["w1", "v1", "w2"])

    def output(self: Any, number: int, inputs: Tensor) -> Tensor:
        expert = self.get_submodule(str(number))
        return expert.down_proj(self.mlp.activation_fn(expert.gate_proj(inputs)) * expert.up_proj(inputs))

    def forward(self: Any, hidden_states: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        rows = hidden_states.reshape(-1, self.hidden_size)
        found = _routed(self, rows, index, weights)
        return found.view(hidden_states.shape[0], -1, self.hidden_size)

    module.expert_output = MethodType(output, module)
    module.forward = MethodType(forward, module)


_FORMS: tuple[tuple[Callable[[nn.Module], bool], Callable[[Any], None]], ...] = (
    (is_sorted, _unstack_sorted),
    (is_routed, _unstack_routed),
    (is_parallel, _unstack_parallel),
    (is_dbrx, _unstack_dbrx),
)


if EXPERTS_METHOD not in AUTO_QUANTIZER_MAPPING:
    register_quantization_config(EXPERTS_METHOD)(MixtureConfig)
    register_quantizer(EXPERTS_METHOD)(MixtureQuantizer)
