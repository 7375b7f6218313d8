"""The networks themselves. Shapes: n rows, k outputs, c channels, h x w pixels."""

from collections.abc import Sequence

from torch import Tensor, nn

from basekamp.models.layers import Linear, SeededDropout

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
    """`first`, then n_layers hidden layers in all, then a linear layer to k outputs; n_layers 0 is linear.

    Its layers take stacked numbers as they are: many of it train at once without any transformation.
    """

    takes_stacked = True

    def __init__(
        self, first: nn.Module, n_outputs: int, *, n_layers: int, width: int, act: str, dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [first]
        for depth in range(n_layers):
            layers += [ACTIVATIONS[act](), SeededDropout(dropout)]
            layers.append(Linear(width, width if depth < n_layers - 1 else n_outputs))
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
            nn.Flatten(), SeededDropout(dropout), nn.Linear(width * min(height, 4) * min(columns, 4), n_outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Answer [n, k]."""
        out: Tensor = self.head(self.pool(self.features(x)))
        return out


class ResNet(nn.Module):
    """A residual network of 9 or 18 layers for small images: 3 x 3 at first, and no pooling before the first stage.

    The first stage has `width` channels, each further one twice as many; dropout before the linear head.

    Sources: He et al., Deep Residual Learning for Image Recognition, 2015, section 4.2 (the stem) and 18 layers of
    table 1; David Page, How to Train Your ResNet, 2018 (9 layers).
    """

    def __init__(self, channels: int, n_outputs: int, *, n_layers: int, width: int, act: str, dropout: float) -> None:
        super().__init__()
        stages = _stages_of_9(width, act) if n_layers == 9 else _stages_of_18(width, act)
        self.features = nn.Sequential(_convolution(channels, width, act), *stages, nn.AdaptiveAvgPool2d(1))
        self.head = nn.Sequential(nn.Flatten(), SeededDropout(dropout), nn.Linear(8 * width, n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Answer [n, k]."""
        out: Tensor = self.head(self.features(x))
        return out


class _Residual(nn.Module):
    """x plus what two convolutions make of it; where its shape changes, x goes through a 1 x 1 convolution."""

    def __init__(self, channels: int, out_channels: int, act: str, *, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(channels, out_channels, act, stride=stride),
            _convolution(out_channels, out_channels, act, is_linear=True),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != out_channels:
            self.shortcut = _convolution(channels, out_channels, act, stride=stride, size=1, is_linear=True)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        """Give [n, out_channels, h / stride, w / stride]."""
        out: Tensor = self.act(self.shortcut(x) + self.body(x))
        return out


def _convolution(
    channels: int, out_channels: int, act: str, *, stride: int = 1, size: int = 3, is_linear: bool = False
) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out_channels, size, stride=stride, padding=size // 2, bias=False)
    end = [] if is_linear else [ACTIVATIONS[act]()]
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), *end)


def _stages_of_9(width: int, act: str) -> list[nn.Module]:
    def halved(channels: int) -> list[nn.Module]:
        return [_convolution(channels, 2 * channels, act), nn.MaxPool2d(2, ceil_mode=True)]

    first = [*halved(width), _Residual(2 * width, 2 * width, act)]
    return [*first, *halved(2 * width), *halved(4 * width), _Residual(8 * width, 8 * width, act)]


def _stages_of_18(width: int, act: str) -> list[nn.Module]:
    stages: list[nn.Module] = [_Residual(width, width, act), _Residual(width, width, act)]
    for channels in (width, 2 * width, 4 * width):
        stages += [_Residual(channels, 2 * channels, act, stride=2), _Residual(2 * channels, 2 * channels, act)]
    return stages
