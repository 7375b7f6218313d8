"""K networks of one build that train at once: their numbers lie side by side in one storage.

Shapes: K networks, n rows, k outputs. The storage is one float tensor that holds tensor after tensor of the network,
each as [K, …]: first the parameters that are trained, then other numbers that training changes (BatchNorm's averages).
So an optimizer step, an average of weights and a snapshot are one operation, however many tensors a network has.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from basekamp.errors import InputError
from basekamp.models.build import one_line
from basekamp.models.inputs import MixedColumns, NormalizedImage
from basekamp.models.layers import SeededDropout, dropouts, first_key, key_after
from basekamp.models.tabular import NumberEmbedding

CLOSE = 1e-4
"""How far a stacked network's outputs may be from those of the network alone."""

_LOOKED_AFTER = (NormalizedImage, MixedColumns, NumberEmbedding, SeededDropout)
"""Modules whose buffers training does not change, but for the keys of dropout, which `Stack.keys` holds."""

# Gradients are added in place to views of one tensor, whatever their layout.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")


@dataclass(frozen=True)
class _Slot:
    """One tensor of the network: which module has it, and where it begins in the storage of one network."""

    owner: nn.Module
    attribute: str
    shape: torch.Size
    begin: int
    is_trained: bool


class Stack:
    """K networks as one; K = 1 is the plain network with its numbers in the storage.

    `network` is the first of those given and belongs to the stack from then on. `keys` int32 and `drop_rates` [K,
    dropout layers] are those of the next step. Raises InputError for parameters of several types.
    """

    def __init__(self, networks: Sequence[nn.Module], *, channels_last: bool = False) -> None:
        self.network, self.size = networks[0], len(networks)
        self._permutes = channels_last and self.size == 1
        self._is_native = bool(getattr(self.network, "takes_stacked", False))
        self._slots = _slots(self.network)
        self.n_trained = sum(slot.shape.numel() for slot in self._slots.values() if slot.is_trained)
        own = [dict(_changing(network)) for network in networks]
        blocks = [torch.stack([tensors[name].detach() for tensors in own]) for name in self._slots]
        self.storage = torch.cat([self._flat(block) for block in blocks] or [torch.empty(0)])
        self.drop_rates = torch.stack([_drop_rates(network) for network in networks])
        self.keys = torch.zeros_like(self.drop_rates, dtype=torch.int32)
        self._own: Tensor | None = None
        self._bind()

    @property
    def trained(self) -> Tensor:
        """The part of the storage that gradients change, [K * parameters of one network]."""
        return self.storage[: self.size * self.n_trained]

    def __call__(self, x: Tensor, *, own_rows: bool = False) -> Tensor:
        """Outputs [n, k] of a single network, else [K, n, k].

        x [n, …] is shared by all networks, or with `own_rows` each one's own, [K, n, …].
        """
        if self.size == 1 or self._is_native:
            outputs: Tensor = self.network(x)
            return outputs
        stacked: Tensor = vmap(self._call, in_dims=(0, 0 if own_rows else None))(self._leaves, x)
        return stacked

    def set_keys(self, seeds: Sequence[int], *, steps: int) -> None:
        """Make the masks those that the networks of these seeds have after that many steps."""
        layers = range(self.keys.shape[1])
        rows = [[key_after(first_key(seed, layer), steps) for layer in layers] for seed in seeds]
        self.keys.copy_(torch.tensor(rows, dtype=torch.int32).view(self.keys.shape))

    def per_network(self, flat: Tensor) -> list[Tensor]:
        """Views [K, …] of a tensor that is laid out as the storage or its trained part is."""
        slots = [slot for slot in self._slots.values() if slot.begin * self.size < len(flat)]
        return [self._view(flat, slot) for slot in slots]

    def selection(self, kept: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """A function that leaves only the networks `kept` in a tensor that is laid out as the storage is now."""
        size, numbers = self.size, [slot.shape.numel() for slot in self._slots.values()]
        rows = torch.tensor(kept, device=self.storage.device)

        def select(flat: Tensor) -> Tensor:
            sizes = [size * number for number in numbers]
            while sum(sizes) > len(flat):
                sizes.pop()
            return torch.cat([part.view(size, -1)[rows].flatten() for part in torch.split(flat, sizes)] or [flat])

        return select

    def keep(self, kept: Sequence[int]) -> None:
        """Go on with some of the networks alone, given by their places."""
        self.storage = self.selection(kept)(self.storage)
        self.keys, self.drop_rates, self.size = self.keys[kept], self.drop_rates[kept], len(kept)
        self._bind()

    def state_dict(self, place: int) -> dict[str, Tensor]:
        """A copy of one network's state dict, laid out as a network of its own has it."""
        told = self.network.state_dict()
        slots = {name: self._slots[first] for name, first in _first_names(self.network).items() if first in self._slots}
        own = {name: self._view(self.storage, slots[name])[place] if name in slots else told[name] for name in told}
        return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in own.items()}

    def shared(self) -> dict[str, Tensor]:
        """The buffers that are no part of the storage and that training may change, such as counts of batches."""
        return {
            f"{path}.{name}".lstrip("."): buffer
            for path, module in self.network.named_modules()
            for name, buffer in module.named_buffers(recurse=False)
            if not isinstance(module, _LOOKED_AFTER) and f"{path}.{name}".lstrip(".") not in self._slots
        }

    def train(self) -> None:
        """Go to training mode."""
        self.network.train()

    def eval(self) -> None:
        """Go to evaluation mode."""
        self.network.eval()

    @contextmanager
    def holding(self, storage: Tensor) -> Iterator[None]:
        """Let the networks have other numbers for a while."""
        self._own = self.storage.clone()
        self.storage.copy_(storage)
        try:
            yield
        finally:
            self.storage.copy_(self._own)
            self._own = None

    def snapshot(self) -> Tensor:
        """A copy of the networks' own numbers, also while they hold others."""
        return (self.storage if self._own is None else self._own).clone()

    def _call(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self.network, tensors, (x,))
        return outputs

    def _bind(self) -> None:
        """Make the networks' tensors, and their gradients, views of the storage."""
        self.gradients = torch.zeros_like(self.trained)
        self._leaves: dict[str, Tensor] = {}
        is_plain = self.size == 1 or self._is_native
        for name, slot in self._slots.items():
            value = self._view(self.storage, slot)
            gradient = self._view(self.gradients, slot) if slot.is_trained else None
            if not is_plain:
                self._leaves[name] = value.detach().requires_grad_(slot.is_trained)
                self._leaves[name].grad = gradient
                continue
            value, gradient = self._alone(value), None if gradient is None else self._alone(gradient)
            tensor = getattr(slot.owner, slot.attribute)
            if isinstance(tensor, nn.Parameter):
                tensor.grad, tensor.data = None, value
                tensor.grad = gradient
            else:
                setattr(slot.owner, slot.attribute, value)
        self._bind_dropouts(is_plain)

    def _bind_dropouts(self, is_plain: bool) -> None:
        paths = [path for path, module in self.network.named_modules() if isinstance(module, SeededDropout)]
        for place, (path, layer) in enumerate(zip(paths, dropouts(self.network), strict=True)):
            rates, keys = self.drop_rates[:, place], self.keys[:, place]
            layer.is_active = bool((rates > 0).any())
            if is_plain:
                layer.p, layer.key = self._alone(rates), self._alone(keys)
            else:
                self._leaves |= {f"{path}.p".lstrip("."): rates, f"{path}.key".lstrip("."): keys}

    def _alone(self, tensor: Tensor) -> Tensor:
        return tensor[0] if self.size == 1 else tensor

    def _flat(self, block: Tensor) -> Tensor:
        """A tensor [K, …] as the storage holds it: the weights of convolutions channels last, if asked for."""
        if self._permutes and block.dim() == 5:
            block = block.permute(0, 1, 3, 4, 2)
        return block.flatten()

    def _view(self, flat: Tensor, slot: _Slot) -> Tensor:
        numbers = slot.shape.numel()
        part = flat[self.size * slot.begin : self.size * (slot.begin + numbers)]
        if self._permutes and len(slot.shape) == 4:
            out, channels, height, width = slot.shape
            return part.view(1, out, height, width, channels).permute(0, 1, 4, 2, 3)
        return part.view(self.size, *slot.shape)


def why_not_stacked(networks: Sequence[nn.Module], x: Tensor) -> str:
    """Why these networks cannot be trained stacked, or "" when their outputs for the rows x are the same that way."""
    alone = [copy.deepcopy(network) for network in networks]
    try:
        stack = Stack([copy.deepcopy(network) for network in networks])
        for is_training in (True, False):
            stack.network.train(is_training)
            stacked = stack(x)
            for network, outputs in zip(alone, stacked, strict=True):
                if not torch.allclose(network.train(is_training)(x), outputs, rtol=CLOSE, atol=CLOSE):
                    return "its outputs differ when stacked"
    except Exception as error:
        return one_line(error)[:200]
    return ""


def _changing(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors that each network of a stack has of its own; those that are trained come first."""
    parameters = list(network.named_parameters())
    yield from (each for each in parameters if each[1].requires_grad)
    yield from (each for each in parameters if not each[1].requires_grad)
    for path, module in network.named_modules():
        if not isinstance(module, _LOOKED_AFTER):
            for name, buffer in module.named_buffers(path, recurse=False):
                if buffer.is_floating_point():
                    yield name, buffer


def _slots(network: nn.Module) -> dict[str, _Slot]:
    slots, begin, dtypes = {}, 0, set()
    for name, tensor in _changing(network):
        path, _, attribute = name.rpartition(".")
        slots[name] = _Slot(network.get_submodule(path), attribute, tensor.shape, begin, tensor.requires_grad)
        begin += tensor.numel()
        dtypes.add(str(tensor.dtype).removeprefix("torch."))
    if len(dtypes) > 1:
        raise InputError(f"the model holds numbers of several types ({', '.join(sorted(dtypes))}): let all be float32.")
    return slots


def _first_names(network: nn.Module) -> dict[str, str]:
    """From each name of a parameter or buffer to the first name of the same tensor, which tied ones have."""
    named = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def _drop_rates(network: nn.Module) -> Tensor:
    layers = dropouts(network)
    return torch.stack([layer.p for layer in layers]) if layers else torch.empty(0)
