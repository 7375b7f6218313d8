"""AdamW for a stack: one fused update for all networks, each with its own learning rate and weight decay.

Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2017, algorithm 2.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basekamp.hyperparameters import Hyperparameters
from basekamp.training.stack import Stack


class StackedAdamW:
    """Steps the trained part of a stack's storage by its gradients.

    Networks of one lr and weight decay are one tensor to torch's fused AdamW. Where they differ, AdamW steps a tensor
    of zeros with a learning rate of 1, and each network gets its own multiple of that.
    """

    def __init__(self, stack: Stack, settings: Sequence[Hyperparameters], state: dict[str, Any] | None = None) -> None:
        self.stack, self.settings = stack, list(settings)
        self._prepare(state or {})

    def step(self, rate: float | Tensor) -> None:
        """Take one step with `rate` times the learning rates; on CUDA `rate` is a tensor without dimensions."""
        if self.is_uniform:
            self._set_lr(rate * self.settings[0].lr)
            self.optimizer.step()
            return
        self.optimizer.step()
        trained = self.stack.trained
        trained.addcmul_(trained, self._decays * -rate)
        trained.addcmul_(self._parameter.data, self._rates * rate)
        self._parameter.data.zero_()

    def state(self) -> dict[str, Any]:
        """The moments, laid out as the trained part is, and the number of steps; empty before the first."""
        return dict(self.optimizer.state[self._parameter])

    def keep(self, kept: Sequence[int], select: Callable[[Tensor], Tensor]) -> None:
        """Go on with some of the networks, once the stack has them alone."""
        self.settings = [self.settings[place] for place in kept]
        self._prepare({name: select(value) if value.dim() else value for name, value in self.state().items()})

    @property
    def is_uniform(self) -> bool:
        """Whether one learning rate and weight decay serve all."""
        return len({(each.lr, each.weight_decay) for each in self.settings}) == 1

    def _prepare(self, state: dict[str, Any]) -> None:
        trained, first = self.stack.trained, self.settings[0]
        on_cuda = trained.is_cuda
        self._parameter = nn.Parameter(trained if self.is_uniform else torch.zeros_like(trained))
        self._parameter.grad = self.stack.gradients
        self.optimizer = torch.optim.AdamW(
            [self._parameter],
            lr=torch.ones((), device=trained.device) if on_cuda else 1.0,
            weight_decay=first.weight_decay if self.is_uniform else 0.0,
            fused=True,
            capturable=on_cuda,
        )
        if state:
            device = trained.device
            moved = {name: value.to(device) if value.dim() or on_cuda else value for name, value in state.items()}
            self.optimizer.state[self._parameter] = moved
        if not self.is_uniform:
            rates = torch.tensor([each.lr for each in self.settings], device=trained.device)
            decays = rates * torch.tensor([each.weight_decay for each in self.settings], device=trained.device)
            self._rates, self._decays = self._spread(rates), self._spread(decays)

    def _spread(self, values: Tensor) -> Tensor:
        """One number [K] for each network, laid out as the trained part is."""
        spread = torch.empty_like(self.stack.trained)
        for part in self.stack.per_network(spread):
            part.copy_(values.view(-1, *[1] * (part.dim() - 1)).expand_as(part))
        return spread

    def _set_lr(self, lr: float | Tensor) -> None:
        group = self.optimizer.param_groups[0]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def clip_gradients(stack: Stack, longest: float) -> None:
    """Shorten each network's gradient to the length `longest` where it is longer, in place.

    Source: Pascanu et al., On the difficulty of training recurrent neural networks, 2013, algorithm 1.
    """
    parts = stack.per_network(stack.gradients)
    squares = torch.stack([part.flatten(1).square().sum(dim=1) for part in parts]).sum(dim=0)
    factors = (longest / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for part in parts:
        part.mul_(factors.view(-1, *[1] * (part.dim() - 1)))
