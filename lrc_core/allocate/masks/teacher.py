"""The dense model's answers that mask training is held to, remembered window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lrc_core.models.blocks.hooks import hooked
from lrc_core.models.blocks.linears import decoder_blocks
from lrc_core.models.blocks.partial import hidden_of
from lrc_core.models.head import output_head
from lrc_core.models.token_loss import rows_at_once

TeacherStates: TypeAlias = dict[int, tuple[Tensor, ...]]
"""The dense model's states by the number of the window."""
_TOKENS_PER_CHUNK = 512  # the head is run on this many tokens at a time


class _HeadReached(Exception):  # noqa: N818 - control flow, not an error
    """Leaves the model's forward before the head is computed."""


class _HeadDivergence(torch.autograd.Function):
    """Sum over tokens of KL(teacher || student) behind the same head, and of a share of -log student(label).

    The gradient with respect to the student's logits is softmax(student) - softmax(teacher), and with a weight w on
    the text (1 + w) softmax(student) - softmax(teacher) - w onehot(label). So it is made in the forward pass, taken
    through the head at once, and no logits are kept for the backward pass. A label below 0 is none.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, head: Callable[[Tensor], Tensor], labels: Tensor, text_weight: float
    ) -> Tensor:
        with torch.enable_grad():
            inputs = student.detach().requires_grad_()
            logits = head(inputs)
        slope = torch.empty_like(logits, requires_grad=False)
        loss = torch.zeros((), device=logits.device)
        rows = rows_at_once(logits)
        parts = (tensor.split(rows) for tensor in (logits.detach(), head(teacher), slope, labels))
        for own, wanted, difference, named in zip(*parts, strict=True):
            mine, theirs = torch.log_softmax(own.float(), dim=-1), torch.log_softmax(wanted.float(), dim=-1)
            target = theirs.exp()
            loss += (target * theirs.sub_(mine)).sum()
            if text_weight:
                chosen, share = named.clamp(min=0)[:, None], text_weight * (named >= 0).float()[:, None]
                loss -= (share * mine.gather(1, chosen)).sum()
                target.scatter_add_(1, chosen, share)
                difference.copy_(mine.exp_().mul_(1 + share).sub_(target))
            else:
                difference.copy_(mine.exp_().sub_(target))
        (gradient,) = torch.autograd.grad(logits, inputs, slope)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None, None, None


def hidden_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared error at each chosen depth over the teacher's mean square, averaged over depths."""
    parts = []
    for mine, theirs in zip(student, teacher, strict=True):
        wanted = theirs.to(mine.device).float()  # depths may lie on different devices
        parts.append(((mine.float() - wanted).square().mean() / wanted.square().mean()).to(student[0].device))
    return torch.stack(parts).mean()


class Distiller:
    """Distillation losses of a model whose masks change against the same model without masks.

    The dense model's states are computed when a window is first seen and then remembered ([window, hidden] each on
    the CPU), so that later passes over the text cost no second forward pass.

    Args:
        model: a causal language model whose linears may be masked.
        kind: ``hidden``, ``logits``, ``text`` or ``none``.
        memory: states of an earlier one of the same model, kind and windows, to go on with.
    """

    def __init__(self, model: nn.Module, kind: str, memory: TeacherStates | None = None) -> None:
        self._model, self._kind = model, kind
        self._head = output_head(model)
        self._middle = decoder_blocks(model)[len(decoder_blocks(model)) // 2 - 1]
        self._memory: TeacherStates = {} if memory is None else memory

    @property
    def needs_teacher(self) -> bool:
        """Whether the dense model is asked at all."""
        return self._kind in ("hidden", "logits")

    @torch.no_grad()
    def teacher(self, chosen: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """States of the dense model; call it while the model IS dense.

        Args:
            chosen: [batch] indices of the windows, what the memory goes by.
            tokens: [batch, window].

        Returns:
            For ``hidden`` the middle and the last state, for ``logits`` the last one: [batch, window, hidden] each.
        """
        if not self.needs_teacher:
            return ()
        missing = [row for row, index in enumerate(chosen.tolist()) if index not in self._memory]
        if missing:
            # Always the whole batch: the last bits of a product depend on its size, and a resumed run, which remembers
            # less, must go on bit for bit.
            states = self._states(tokens)
            for row in missing:
                self._memory[int(chosen[row])] = tuple(state[row].to("cpu", copy=True) for state in states)
        remembered = [self._memory[index] for index in chosen.tolist()]
        return tuple(torch.stack(parts).to(tokens.device) for parts in zip(*remembered, strict=True))

    def loss(self, tokens: Tensor, teacher: tuple[Tensor, ...], text_weight: float = 0.0) -> Tensor:
        """Scalar loss of the model as it is now.

        Args:
            tokens: [batch, window].
            teacher: what :meth:`teacher` gave for them.
            text_weight: of the next-token loss beside that of ``logits``, computed in the same pass.
        """
        if self._kind == "hidden":
            return hidden_distance(self._states(tokens), teacher)
        if self._kind == "logits":
            (last,) = self._states(tokens)
            labels = torch.nn.functional.pad(tokens[:, 1:], (0, 1), value=-1).flatten()
            return self._divergence(last.flatten(0, 1), teacher[0].flatten(0, 1), labels, text_weight)
        logits = self._model(input_ids=tokens, use_cache=False).logits[:, :-1]
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    def _divergence(self, student: Tensor, teacher: Tensor, labels: Tensor, text_weight: float) -> Tensor:
        """KL over tokens [tokens, hidden] each, and the weighted loss of their labels [tokens], chunk by chunk."""
        total = torch.zeros((), device=student.device)
        parts = (tensor.to(student.device).split(_TOKENS_PER_CHUNK) for tensor in (student, teacher, labels))
        for mine, theirs, named in zip(*parts, strict=True):
            total = total + _HeadDivergence.apply(mine, theirs, self._head, named, text_weight)
        return total / len(student)

    def _states(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """The wanted hidden states; the head is not computed."""
        caught: list[Tensor] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            caught.append(hidden_of(output))

        def stop(_: nn.Module, args: tuple[Any, ...]) -> None:
            caught.append(args[0])
            raise _HeadReached

        handles = [self._model.get_output_embeddings().register_forward_pre_hook(stop)]  # type: ignore[operator]
        if self._kind == "hidden":
            handles.append(self._middle.register_forward_hook(keep))
        with hooked(handles), suppress(_HeadReached):
            self._model(input_ids=tokens, use_cache=False)
        return tuple(caught)
