"""The networks of `gpu_steps` in PyTorch, and their steps. They are written out, so that PyTorch alone need be installed."""

import itertools
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.lib.gpu_steps import DECAY, MOMENTUM, RATE, Size, Workload


class Block(nn.Module):
    """A residual block of convolutions ``(channels, side, stride)``, each with a BatchNorm. The ReLU after the sum is the caller's."""

    def __init__(self, before: int, layers: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.layers, channels, stride = nn.ModuleList(), before, 1
        for after, side, by in layers:
            self.layers.append(_normed(channels, after, side, by))
            channels, stride = after, stride * by
        same = before == channels and stride == 1
        self.shortcut = nn.Identity() if same else _normed(before, channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, c, h, w]`` to the sum of the shortcut and the last layer."""
        y = x
        for i, layer in enumerate(self.layers):
            y = layer(functional.relu(y) if i else y)
        return self.shortcut(x) + y


class Residual(nn.Module):
    """A stem and residual blocks, with a ReLU before each block, the mean over pixels and a classifier without a bias."""

    def __init__(self, stem: nn.Module, blocks: list[Block], channels: int, classes: int) -> None:
        super().__init__()
        self.stem, self.blocks = stem, nn.ModuleList(blocks)
        self.classifier = nn.Linear(channels, classes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[n, classes]``."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(functional.relu(x))
        return self.classifier(functional.relu(x).mean((2, 3)))


class Attention(nn.Module):
    """A block of the GPT: causal attention and a network for every token, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attention, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds to the tokens ``[n, t, width]``."""
        n, t, width = x.shape
        by_head = self.attention(self.norms[0](x)).view(n, t, self.heads, -1).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(*by_head.chunk(3, dim=-1), is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(n, t, width))
        return x + self.narrow(functional.gelu(self.widen(self.norms[1](x)), approximate="tanh"))


class GPT(nn.Module):
    """The GPT of `jsubspace.examples.gpt`, with one table that embeds tokens and gives the logits."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(shape.vocabulary, shape.width) / shape.width**0.5)
        self.positions = nn.Parameter(0.02 * torch.randn(shape.length, shape.width))
        self.blocks = nn.ModuleList(Attention(shape.width, shape.heads) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The logits ``[n, t, vocabulary]`` of the token after each token."""
        x = self.embedding[tokens] + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.embedding)


def network(name: str, size: Size) -> nn.Module:
    """A network of `gpu_steps.FULL`."""
    if name == "gpt":
        return GPT(size.shape)
    if name == "dense":
        widths = (int(np.prod(size.shape)), 256, 256)
        hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, size.classes, bias=False))
    blocks, before = [], 16 if name == "cresnet20" else 64
    stages = [(16, 3), (32, 3), (64, 3)] if name == "cresnet20" else [(64, 3), (128, 4), (256, 6), (512, 3)]
    stem: nn.Module = _normed(3, before, 3, 1)
    if name == "resnet50":
        stem = nn.Sequential(_normed(3, before, 7, 2), nn.MaxPool2d(3, 2, 1))
    for stage, (width, count) in enumerate(stages):
        for i in range(count):
            stride = 2 if stage and not i else 1
            if name == "cresnet20":
                layers = [(width, 3, stride), (width, 3, 1)]
            else:
                layers = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
            blocks.append(Block(before, layers))
            before = layers[-1][0]
    return Residual(stem, blocks, before, size.classes)


class TorchTimed:
    """A step of PyTorch in eager mode, ready to be timed, with the attributes of `gpu_steps.Timed`."""

    def __init__(self, name: str, size: Size, of: Workload, dtype: str) -> None:
        self._on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as jax
        torch.backends.cudnn.benchmark = True
        self._network, self._dtype = network(name, size).to(self._on), dtype
        first, *rest = (torch.from_numpy(array).to(self._on) for array in of.batch)
        if name in ("cresnet20", "resnet50"):
            self._network = self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            first = first.permute(0, 3, 1, 2)  # The memory already has the channels last.
        if name == "gpt":
            first, rest = first[:, :-1].long(), [first[:, 1:]]
        self._inputs, self._labels = first, rest[0].long().reshape(-1)
        kinds: dict[str, Any] = {"lr": RATE, "weight_decay": DECAY}
        parameters = self._network.parameters()
        self._optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(parameters, betas=(MOMENTUM, 0.999), **kinds)
            if name == "gpt"
            else torch.optim.SGD(parameters, momentum=MOMENTUM, **kinds)
        )
        if self._on.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.seconds(2)
        self.memory = torch.cuda.max_memory_allocated() if self._on.type == "cuda" else None

    @property
    def num_parameters(self) -> int:
        """The number of parameters, to compare with the network in jax."""
        return sum(parameter.numel() for parameter in self._network.parameters())

    def seconds(self, steps: int) -> float:
        """The seconds per step of so many steps, with a wait at the end."""
        start = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(self._on.type, torch.bfloat16, enabled=self._dtype == "bfloat16"):
                logits = self._network(self._inputs)
            loss = functional.cross_entropy(logits.float().reshape(len(self._labels), -1), self._labels)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
        if self._on.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps


def _normed(before: int, after: int, side: int, stride: int) -> nn.Sequential:
    """A convolution without a bias, and its BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride, side // 2, bias=False), nn.BatchNorm2d(after, momentum=0.1)
    )
