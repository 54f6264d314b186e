"""One block of a model in memory at a time: the one that runs, or whose modules are asked for.

Between two blocks a model looks as any other, with embeddings, norms and head where they belong, and blocks whose
weights are empty (on the meta device). When a block runs, or :func:`~lrc_core.models.blocks.linears.get_module` is
asked for a part of it, its weights are read from the files, and those of the block before are let go. Whatever walks
from block to block therefore needs to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import RLock
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from lrc_core.errors import ResourceError
from lrc_core.models.blocks.linears import decoder_blocks, on_request
from lrc_core.models.onload.choice import LAYER_LOCAL
from lrc_core.models.onload.tensor_places import Place

Dress = Callable[[int], AbstractContextManager[object]]
"""Of a block's number: what is on the block while it is in memory, such as low-rank layers."""


class Residence:
    """Which block of a model is in memory.

    Args:
        model: with empty blocks.
        places: of all its tensors, by full name.
        through: type in which tensors are held before they are converted: that of most of the files.
        device: where blocks go.
        dtype: in which they run.
    """

    def __init__(
        self,
        model: nn.Module,
        places: Mapping[str, Place],
        through: torch.dtype,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        blocks = decoder_blocks(model)
        self.prefix = next(name for name, module in model.named_modules() if module is blocks)
        self.device, self.dtype = device, dtype
        self._model, self._places, self._through = ref(model), places, through
        self._count = len(blocks)
        self._empty: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._current = -1
        self._worn = ExitStack()
        self._lock = RLock()  # a dress asks for the modules of its block
        self._dress: Dress | None = None
        for index, block in enumerate(blocks):
            block.register_forward_pre_hook(self._entering(index))
        on_request(model, self._requested)

    @property
    def count(self) -> int:
        """Number of blocks."""
        return self._count

    def read(self, name: str) -> Tensor:
        """A tensor as the model holds it before it is converted, on the CPU."""
        return self._places[name].read().to(self._through)

    def bring(self, index: int) -> nn.Module:
        """The block with its weights, dressed; the one that was there before is empty again."""
        block = self._blocks()[index]
        with self._lock:  # layers of a block are decomposed by several threads
            self._change(index, block)
        return block

    def _change(self, index: int, block: nn.Module) -> None:
        if index != self._current:
            self.clear()
            self._current = index
            try:
                self._furnish(index, block)
            except BaseException:
                self.clear()
                raise

    def _furnish(self, index: int, block: nn.Module) -> None:
        for name, module in list(block.named_modules()):
            self._fill(f"{self.prefix}.{index}.{name}".rstrip("."), module)
        if self._dress is not None:
            self._worn.enter_context(self._dress(index))

    def clear(self) -> None:
        """Let go of the block that is in memory."""
        self._worn.close()  # first: it asks for the modules that it dressed
        self._current = -1
        for module, leaf, empty in self._empty:
            module._parameters[leaf] = empty
        self._empty.clear()

    @contextmanager
    def dressed(self, dress: Dress) -> Iterator[None]:
        """Every block wears something while it is in memory, until the context ends."""
        self.clear()
        self._dress = dress
        try:
            yield
        finally:
            self.clear()
            self._dress = None

    def recast(self, dtype: torch.dtype) -> None:
        """Hold everything in another precision from now on; buffers keep theirs."""
        self.clear()
        self.dtype = dtype
        for parameter in self._whole().parameters():
            parameter.data = parameter.data.to(dtype)

    def _whole(self) -> nn.Module:
        model = self._model()
        assert model is not None
        return model

    def _blocks(self) -> nn.ModuleList:
        found = self._whole().get_submodule(self.prefix)
        assert isinstance(found, nn.ModuleList)
        return found

    def _fill(self, path: str, module: nn.Module) -> None:
        for leaf, parameter in module._parameters.items():
            if parameter is None:
                continue
            name = f"{path}.{leaf}"
            self._empty.append((module, leaf, parameter))
            module._parameters[leaf] = nn.Parameter(
                self.read(name).to(device=self.device, dtype=self.dtype), requires_grad=False
            )

    def _entering(self, index: int) -> Callable[..., None]:
        me = ref(self)

        def enter(block: nn.Module, *_: object) -> None:
            here = me()
            if here is not None and "forward" not in vars(block):  # else the block is passed through
                here.bring(index)

        return enter

    def _requested(self, name: str) -> None:
        """A module is asked for by its full name."""
        number = name.removeprefix(f"{self.prefix}.").partition(".")[0]
        if name.startswith(f"{self.prefix}.") and number.isdecimal():
            self.bring(int(number))


_KNOWN: WeakKeyDictionary[nn.Module, Residence] = WeakKeyDictionary()


def settle(model: nn.Module, residence: Residence) -> None:
    """Remember a model's residence."""
    _KNOWN[model] = residence


def residence_of(model: nn.Module) -> Residence | None:
    """The residence of a model whose blocks are brought in one after the other; None of one that is whole."""
    return _KNOWN.get(model)


def require_whole(model: nn.Module, what: str) -> None:
    """Refuse what cannot be done block by block on a model whose blocks come and go.

    Args:
        what: needs the whole model, as the subject of a sentence.

    Raises:
        ResourceError: says what, and what would do.
    """
    if residence_of(model) is not None:
        raise ResourceError(
            f"{what} needs the whole model in memory, which is too small for it (or --onload blocks was asked for).",
            LAYER_LOCAL,
        )
