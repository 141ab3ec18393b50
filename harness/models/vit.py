"""A small vision transformer, written plainly.

Dosovitskiy et al. (2021), "An image is worth 16x16 words". Tokens are mean-pooled instead of read
from a class token, which does as well (Beyer et al., 2022, "Better plain ViT baselines for
ImageNet-1k"). Query, key and value are layers of their own, and heads are split with an open
width: so the width of the heads, of the MLPs and of the tokens can each be pruned.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from harness.models.building import check_sample

WIDTH, DEPTH, HEADS, MLP_WIDTH = 128, 6, 4, 512
_GRID, _LARGEST_PATCH = 8, 16
"""Patches are about an eighth of the shorter side, and at most 16 pixels."""


def patch_side(height: int, width: int) -> int:
    """Return the side of a patch in pixels; one that divides both sides where there is any."""
    least = min(max(min(height, width) // _GRID, 1), _LARGEST_PATCH)
    sides = range(least, least * 3 // 2 + 1)
    return next((side for side in sides if height % side == 0 == width % side), least)


class Attention(nn.Module):
    """Self-attention of several heads; Vaswani et al. (2017), "Attention is all you need".

    Args:
        width: Of a token; a multiple of `heads`.
        heads: How many.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # Fixed: a head whose dead channels are pruned must compute what it computed before.
        self.scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens `[B, N, width]` to `[B, N, width]`."""
        batch, count = x.shape[:2]
        query = self.query(x).view(batch, count, self.heads, -1).transpose(1, 2)
        key = self.key(x).view(batch, count, self.heads, -1).transpose(1, 2)
        value = self.value(x).view(batch, count, self.heads, -1).transpose(1, 2)
        weights = F.softmax(query @ key.transpose(2, 3) * self.scale, dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, count, -1)
        found: torch.Tensor = self.out(mixed)
        return found


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and beside a shortcut.

    Args:
        width: Of a token.
        heads: Of the attention.
        mlp_width: Of the MLP's hidden layer.
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, mlp_width)
        self.out = nn.Linear(mlp_width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens `[B, N, width]` to `[B, N, width]`."""
        x = x + self.attention(self.norm1(x))
        y: torch.Tensor = self.out(F.gelu(self.hidden(self.norm2(x))))
        return x + y


class Vit(nn.Module):
    """Patches, learned positions, blocks of attention, mean pooling and a linear layer.

    Args:
        inputs: Shape of an image `(C, H, W)`; pixels beyond the last whole patch are not seen.
        outputs: Classes, or values to predict.
    """

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, height, width = inputs
        patch = patch_side(height, width)
        self.patches = nn.Conv2d(channels, WIDTH, patch, patch)
        count = (height // patch) * (width // patch)
        self.positions = nn.Parameter(torch.empty(1, count, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS, MLP_WIDTH) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, outputs)
        self._init()

    def _init(self) -> None:
        """Initialise as the paper's own code does: narrow normal weights, no biases."""
        nn.init.trunc_normal_(self.positions, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float images `[B, C, H, W]` to `[B, outputs]`."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        found: torch.Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return found


def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Return the network for images of shape `inputs`, untrained."""
    check_sample("vit", inputs, "CHW", 8)
    return Vit(inputs, outputs)
