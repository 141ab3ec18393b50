"""Small networks of many kinds, to be pruned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

IMAGE, SEQUENCE, ROW = (1, 3, 8, 8), (1, 4, 16), (1, 10)


def conv(i: int, o: int, k: int = 3, **options: int) -> nn.Sequential:
    padding = k // 2
    return nn.Sequential(
        nn.Conv2d(i, o, k, padding=padding, bias=False, **options), nn.BatchNorm2d(o), nn.ReLU()
    )


class Pooled(nn.Module):
    """A body, average pooling and a linear head."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(channels, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).flatten(2).mean(2))


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.inner(x))


def residual() -> nn.Module:
    inner = nn.Sequential(conv(16, 12), nn.Conv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16))
    return Pooled(nn.Sequential(conv(3, 16), Residual(inner), conv(16, 8)), 8)


def depthwise() -> nn.Module:
    body = [conv(3, 16), conv(16, 16, groups=16), conv(16, 24, 1), conv(24, 48, groups=24)]
    return Pooled(nn.Sequential(*body, conv(48, 8, 1)), 8)


def grouped() -> nn.Module:
    return Pooled(nn.Sequential(conv(3, 16), conv(16, 24, groups=4), conv(24, 8)), 8)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, 4, 1)
        self.up = nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))
        return x * torch.sigmoid(gate)


def gated() -> nn.Module:
    return Pooled(nn.Sequential(conv(3, 16), Gate(16), conv(16, 8)), 8)


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = conv(3, 8), conv(8, 6), conv(14, 10)
        self.norm = nn.BatchNorm2d(24)
        self.last = nn.Conv2d(24, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.one(x)], 1)
        x = torch.cat([x, self.two(x)], 1)
        return self.last(F.relu(self.norm(x)))


def dense() -> nn.Module:
    return Pooled(Dense(), 8)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = conv(3, 8), conv(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = conv(16, 8)
        self.mask = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        y = self.up(self.deep(F.max_pool2d(x, 2)))
        return self.mask(self.last(torch.cat([x, y], 1)))


def flattened() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), nn.MaxPool2d(2), conv(8, 6), nn.Flatten(), nn.Linear(96, 20), nn.ReLU(),
        nn.Dropout(), nn.Linear(20, 5),
    )  # fmt: skip


def sequence() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 12, 3, padding=1), nn.BatchNorm1d(12), nn.PReLU(12), nn.MaxPool1d(2),
        nn.Conv1d(12, 8, 3, padding=1), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip


def volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.ConvTranspose3d(8, 6, 2),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(10, 32), nn.BatchNorm1d(32), nn.GELU(), nn.Linear(32, 16), nn.LayerNorm(16),
        nn.Linear(16, 2),
    )  # fmt: skip


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (
            f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(b, n, -1))


class FusedAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, -1))


class AttentionOfTheInputsWidth(FusedAttention):
    """Heads are split by the width of the input, as many write it: all widths hang together."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        heads = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(b, n, c))


class SharedKeys(Attention):
    """Queries of four heads share the keys and values of two (grouped-query attention)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.k, self.v = nn.Linear(width, width // 2), nn.Linear(width, width // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = (f(x).view(b, n, self.heads // 2, -1).transpose(1, 2) for f in (self.k, self.v))
        k, v = (y.repeat_interleave(2, 1) for y in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(b, n, -1))


class ScaledByWidth(Attention):
    """The usual scale of attention, written out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (
            f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=q.size(-1) ** -0.5)
        return self.out(mixed.transpose(1, 2).reshape(b, n, -1))


class Transformer(nn.Module):
    """A vision transformer: patches, class token, positions, pre-norm blocks."""

    def __init__(self, attention: type[nn.Module] = Attention) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 2, 2)
        self.cls = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 17, 16))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = attention(16, 4)
        self.mlp = nn.Sequential(nn.Linear(16, 40), nn.GELU(), nn.Linear(40, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.positions
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm3(x)[:, 0])


class Encoder(nn.Module):
    """torch's own encoder layer, whose attention can't change its width."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(16, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 24, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.lift(x)).mean(1))


def group_norms() -> nn.Module:
    return Pooled(
        nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 12, 3),
            nn.InstanceNorm2d(12), nn.Conv2d(12, 8, 1), nn.GroupNorm(1, 8),
        ),
        8,
    )  # fmt: skip


class Shared(nn.Module):
    """One convolution that is applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.last = conv(3, 16), conv(16, 16), conv(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.again(self.again(self.stem(x))))


def shared() -> nn.Module:
    return Pooled(Shared(), 8)


class Detector(nn.Module):
    """Classes and boxes at two scales, flattened and concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = conv(3, 16), conv(16, 24)
        self.classes = nn.ModuleList([nn.Conv2d(16, 6, 1), nn.Conv2d(24, 6, 1)])
        self.boxes = nn.ModuleList([nn.Conv2d(16, 8, 1), nn.Conv2d(24, 8, 1)])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        scales = [x, self.deep(F.max_pool2d(x, 2))]
        classes = [f(y).flatten(2) for f, y in zip(self.classes, scales, strict=True)]
        boxes = [f(y).flatten(2) for f, y in zip(self.boxes, scales, strict=True)]
        return torch.cat(classes, 2).softmax(1), torch.cat(boxes, 2).transpose(1, 2) * 4.0


class SumOfBranches(nn.Module):
    """Its output is a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.one, self.two = nn.Conv2d(16, 4, 1), nn.Sequential(conv(16, 8), nn.Conv2d(8, 4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.one(x) + self.two(x)


def frozen() -> nn.Module:
    return residual().requires_grad_(False)


class Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def shuffled() -> nn.Module:
    body = nn.Sequential(conv(3, 16), Shuffle(2), conv(16, 12), conv(12, 8))
    return Pooled(body, 8)


class Halves(nn.Module):
    """Half of the channels pass by the convolution, as in ShuffleNet V2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = conv(width // 2, width // 2)
        self.shuffle = Shuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = x.chunk(2, 1)
        return self.shuffle(torch.cat([one, self.inner(two)], 1))


def halves() -> nn.Module:
    return Pooled(nn.Sequential(conv(3, 16), Halves(16), conv(16, 8)), 8)


class Sliced(nn.Module):
    """Parts of the channels by slices: one goes through a convolution, the rest passes by.

    Args:
        width: Channels.
        parts: The first of how many equal parts is convolved.
    """

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.inner = conv(width // parts, width // parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x.size(1) // self.parts
        return torch.cat([self.inner(x[:, :first]), x[:, first:]], 1)


def sliced(parts: int) -> nn.Module:
    return Pooled(nn.Sequential(conv(3, 16), Sliced(16, parts), conv(16, 8)), 8)


class HalfScaled(nn.Module):
    """The first half of the channels counts twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, : x.shape[1] // 2].mul_(2)
        return y


def half_scaled() -> nn.Module:
    return Pooled(nn.Sequential(conv(3, 16), HalfScaled(), conv(16, 12), conv(12, 8)), 8)


class SlicedBeside(nn.Module):
    """A slice takes as much of two joined branches as the first one has."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 24, 1)
        self.inner, self.last = conv(8, 8), conv(32, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.one(x)
        y = torch.cat([first, self.two(x)], 1).relu()
        count = first.shape[1]
        return self.last(torch.cat([self.inner(y[:, :count]), y[:, count:]], 1))


def sliced_beside() -> nn.Module:
    return Pooled(SlicedBeside(), 6)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.GRU) -> None:
        super().__init__()
        self.lift = nn.Conv1d(4, 12, 3, padding=1)
        self.rnn = kind(12, 8, batch_first=True)
        self.hidden, self.head = nn.Linear(8, 20), nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(F.relu(self.lift(x)).transpose(1, 2))
        return self.head(F.relu(self.hidden(y[:, -1])))


class Mixer(nn.Module):
    """Linear layers over tokens and over channels, in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 2, 2)
        self.norm = nn.LayerNorm(12)
        self.tokens = nn.Sequential(nn.Linear(16, 20), nn.GELU(), nn.Linear(20, 16))
        self.features = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.features(x)).mean(1))


def larger() -> nn.Module:
    """Super-resolution by pixel shuffle."""
    return nn.Sequential(conv(3, 16), nn.Conv2d(16, 32, 3, padding=1), nn.PixelShuffle(2),
                         nn.Conv2d(8, 3, 3, padding=1))  # fmt: skip


class Gated(nn.Module):
    """Gated linear units, and a buffer of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(16, 12)
        self.register_buffer("positions", torch.randn(4, 12))
        self.wide, self.narrow = nn.Linear(12, 40), nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(F.glu(self.wide(self.lift(x) + self.positions), -1)).mean(1)


class Fourier(nn.Module):
    """An operation between two convolutions that nobody can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(3, 16), conv(16, 12), conv(12, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.three(self.two(torch.fft.fft(self.one(x), dim=1).real))


def fourier() -> nn.Module:
    return Pooled(Fourier(), 8)


class Literal(nn.Module):
    """A reshape whose sizes are written out."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv(3, 16), conv(16, 12), nn.Linear(12 * 64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(self.one(x)).reshape(-1, 12 * 64))


class Bare(nn.Module):
    """Parameters that are multiplied with, without a layer around them."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.head = nn.Linear(10, 10), nn.Linear(12, 3)
        self.down = nn.Parameter(torch.randn(10, 16) / 3)
        self.up = nn.Parameter(torch.randn(16, 12) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(F.relu(F.relu(self.lift(x)) @ self.down) @ self.up))


class LambdaLayer(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.lambd = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lambd(x)


def halved(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """Return every second pixel, with channels of zeros: the shortcut without weights."""
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, after), "constant", 0)


class PaddedBlock(nn.Module):
    """A residual block whose shortcut pads, as a module or in the forward.

    Args:
        ins, outs: Channels; where they differ, the resolution is halved.
        inline: Whether the padding is written in the forward.
    """

    def __init__(self, ins: int, outs: int, inline: bool) -> None:
        super().__init__()
        self.stride, self.inline, self.outs = 1 if ins == outs else 2, inline, outs
        self.conv1 = nn.Conv2d(ins, outs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outs)
        self.conv2 = nn.Conv2d(outs, outs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outs)
        self.shortcut = nn.Sequential()
        if self.stride == 2 and not inline:
            self.shortcut = LambdaLayer(lambda x: halved(x, outs // 4, outs // 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.inline and self.stride == 2:
            rest = self.outs - x.shape[1]
            y = y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, rest // 2, rest - rest // 2))
        else:
            y += self.shortcut(x)
        return F.relu(y)


class PaddedResNet(nn.Module):
    """The ResNet of He et al. (2016) for small images, with shortcuts of zeros.

    Args:
        inline: Whether blocks pad in their forwards, else in a `LambdaLayer`.
        blocks: Per stage; 3 for ResNet-20.
        widths: Channels of each stage.
    """

    def __init__(
        self, inline: bool, blocks: int = 1, widths: tuple[int, ...] = (8, 16, 32)
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        ins, stages = widths[0], []
        for width in widths:
            first, ins = PaddedBlock(ins, width, inline), width
            rest = (PaddedBlock(width, width, inline) for _ in range(blocks - 1))
            stages.append(nn.Sequential(first, *rest))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(ins, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, x.size(3))
        return self.linear(x.view(x.size(0), -1))


NETWORKS = {
    "residual": (residual, IMAGE), "depthwise": (depthwise, IMAGE), "grouped": (grouped, IMAGE),
    "gated": (gated, IMAGE), "dense": (dense, IMAGE), "unet": (UNet, IMAGE),
    "flattened": (flattened, IMAGE), "sequence": (sequence, SEQUENCE),
    "volume": (volume, (1, 1, 4, 4, 4)), "perceptron": (perceptron, ROW),
    "transformer": (Transformer, IMAGE),
    "fused": (lambda: Transformer(FusedAttention), IMAGE), "encoder": (Encoder, SEQUENCE),
    "group_norms": (group_norms, IMAGE), "shared": (shared, IMAGE),
    "detector": (Detector, IMAGE), "sum": (SumOfBranches, IMAGE), "frozen": (frozen, IMAGE),
    "shuffled": (shuffled, IMAGE), "halves": (halves, IMAGE), "gru": (Recurrent, SEQUENCE),
    "lstm": (lambda: Recurrent(nn.LSTM), SEQUENCE), "mixer": (Mixer, IMAGE),
    "larger": (larger, IMAGE), "glu": (Gated, SEQUENCE), "fourier": (fourier, IMAGE),
    "literal": (Literal, IMAGE),
    "fixed_heads": (lambda: Transformer(AttentionOfTheInputsWidth), IMAGE),
    "shared_keys": (lambda: Transformer(SharedKeys), IMAGE),
    "sliced": (lambda: sliced(2), IMAGE), "quarter": (lambda: sliced(4), IMAGE),
    "scaled_by_width": (lambda: Transformer(ScaledByWidth), IMAGE),
    "sliced_beside": (sliced_beside, IMAGE), "half_scaled": (half_scaled, IMAGE),
    "bare": (Bare, ROW),
}  # fmt: skip
"""How each is made, and the shape of one sample."""


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a network, always the same, and one sample."""
    make, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval(), torch.randn(shape)
