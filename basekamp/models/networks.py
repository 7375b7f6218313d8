"""The networks themselves. Shapes: n rows, k outputs, c channels, h x w pixels."""

from collections.abc import Sequence

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Constant(nn.Module):
    """The same answer [k] for every row: class log-frequencies, or the mean. No parameter to train."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer: Tensor
        self.register_buffer("answer", answer.float())

    def forward(self, x: Tensor) -> Tensor:
        """Answer [n, k] without looking at x."""
        return self.answer.expand(len(x), -1)


class Perceptron(nn.Module):
    """`first`, then n_layers hidden layers in all, then a linear layer to k outputs; n_layers 0 is linear."""

    def __init__(
        self, first: nn.Module, n_outputs: int, *, n_layers: int, width: int, act: str, dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [first]
        for depth in range(n_layers):
            layers += [ACTIVATIONS[act](), nn.Dropout(dropout)]
            layers.append(nn.Linear(width, width if depth < n_layers - 1 else n_outputs))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Answer [n, k]."""
        out: Tensor = self.layers(x)
        return out


class ConvNet(nn.Module):
    """n_layers 3 x 3 convolutions of `width` channels, halved after every second one, and a linear head."""

    def __init__(
        self, input_shape: Sequence[int], n_outputs: int, *, n_layers: int, width: int, act: str, dropout: float
    ) -> None:
        super().__init__()
        channels, height, columns = input_shape
        blocks: list[nn.Module] = []
        for depth in range(n_layers):
            blocks += [nn.Conv2d(channels if depth == 0 else width, width, 3, padding=1), ACTIVATIONS[act]()]
            if depth % 2 == 1 and min(height, columns) >= 4:
                blocks.append(nn.MaxPool2d(2))
                height, columns = height // 2, columns // 2
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d((min(height, 4), min(columns, 4)))
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(width * min(height, 4) * min(columns, 4), n_outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Answer [n, k]."""
        out: Tensor = self.head(self.pool(self.features(x)))
        return out
