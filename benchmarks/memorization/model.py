"""A small text-to-image model: a UNet trained by flow matching, conditioned on the words of a caption.

Flow matching as in Lipman et al. (arXiv 2210.02747) with straight paths: the model learns the velocity from noise to
image. Everything random is drawn from the seed and the number of the step, so arms of one seed see the same noise.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from memorization.settings import Training

__all__ = ["Trainer", "UNet", "Words", "generate", "held_out_loss", "words"]

BUCKETS = 4096
MOST_WORDS = 32
_FREQUENCIES = 32


def words(captions: Sequence[str]) -> Tensor:
    """(n, MOST_WORDS) Hash of each word, padded with BUCKETS.

    Example:
        >>> words(["A dog"])[0, :3].tolist()[2] == BUCKETS
        True
    """
    result = torch.full((len(captions), MOST_WORDS), BUCKETS)
    for row, caption in enumerate(captions):
        found = re.findall(r"\w+", caption.lower())[:MOST_WORDS]
        for place, word in enumerate(found):
            result[row, place] = zlib.crc32(word.encode()) % BUCKETS
    return result


class Words(nn.Module):
    """The sum of the words' vectors over the root of their number."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(BUCKETS + 1, size, padding_idx=BUCKETS)

    def forward(self, codes: Tensor) -> Tensor:
        """(n, size) from (n, MOST_WORDS) codes."""
        count = (codes != BUCKETS).sum(1, keepdim=True).clamp(min=1)
        return self.table(codes).sum(1) / count.sqrt()


class _Block(nn.Module):
    def __init__(self, before: int, after: int, size: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, before)
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.condition = nn.Linear(size, 2 * after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        scale, shift = self.condition(given)[:, :, None, None].chunk(2, 1)
        h = self.first(functional.silu(_normed(self.norm, x)))
        return self.skip(x) + self.second(functional.silu(h * (1 + scale) + shift))


class UNet(nn.Module):
    """Three levels of resolution; about 1.2 million parameters at width 32, and the table of words."""

    def __init__(self, width: int = 32, size: int = 128) -> None:
        super().__init__()
        w = width
        self.words = Words(size)
        self.time = nn.Sequential(nn.Linear(2 * _FREQUENCIES, size), nn.SiLU(), nn.Linear(size, size))
        self.enter = nn.Conv2d(3, w, 3, padding=1)
        self.down1, self.half1 = _Block(w, w, size), nn.Conv2d(w, w, 3, 2, 1)
        self.down2, self.half2 = _Block(w, 2 * w, size), nn.Conv2d(2 * w, 2 * w, 3, 2, 1)
        self.down3, self.middle, self.up3 = (_Block(i * w, 4 * w, size) for i in (2, 4, 4))
        self.up2, self.up1 = _Block(6 * w, 2 * w, size), _Block(3 * w, w, size)
        self.norm, self.leave = nn.GroupNorm(8, w), nn.Conv2d(w, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, codes: Tensor) -> Tensor:
        """Velocity (n, 3, h, w) at noisy images, times in [0, 1] and word codes."""
        angle = t[:, None] * torch.exp(torch.linspace(0, 6, _FREQUENCIES))
        given = functional.silu(self.time(torch.cat([angle.sin(), angle.cos()], 1)) + self.words(codes))
        a = self.down1(self.enter(x), given)
        b = self.down2(self.half1(a), given)
        h = self.up3(self.middle(self.down3(self.half2(b), given), given), given)
        h = self.up2(torch.cat([functional.interpolate(h, scale_factor=2.0), b], 1), given)
        h = self.up1(torch.cat([functional.interpolate(h, scale_factor=2.0), a], 1), given)
        return self.leave(functional.silu(_normed(self.norm, h)))


def _normed(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Normalised in float32: exact, as on a GPU, and faster than PyTorch's kernel for bfloat16."""
    return norm(x.float()).to(x.dtype)


class Trainer:
    """Trains one model and keeps the running mean of its weights.

    Args:
        images: (n, 3, h, w) Images in [-1, 1].
        captions: Their captions.
        settings: Settings of training.
        seed: Seed for weights, order and noise.
    """

    def __init__(self, images: Tensor, captions: Sequence[str], settings: Training, seed: int) -> None:
        torch.manual_seed(seed)
        self.settings, self.seed = settings, seed
        self.images, self.codes = images, words(captions)
        self.model = UNet(settings.width).to(memory_format=torch.channels_last)
        self.mean = UNet(settings.width).to(memory_format=torch.channels_last)
        self.mean.load_state_dict(self.model.state_dict())
        self.optimiser = torch.optim.Adam(self.model.parameters(), settings.rate)
        self.order: list[int] = []
        self.shuffles = torch.Generator().manual_seed(seed)
        self.step = 0

    def train(self, until: int) -> None:
        """Go on to a step."""
        while self.step < until:
            self._step()

    def _step(self) -> None:
        batch = self.settings.batch
        while len(self.order) < batch:
            self.order += torch.randperm(len(self.images), generator=self.shuffles).tolist()
        chosen, self.order = self.order[:batch], self.order[batch:]
        x = self.images[chosen]
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        loss = _loss(self.model, x, self.codes[chosen], draw).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1
        keep = min(self.settings.ema, self.step / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.model.parameters()), 1 - keep)


def _loss(model: nn.Module, x: Tensor, codes: Tensor, draw: torch.Generator) -> Tensor:
    noise, t = torch.randn(x.shape, generator=draw), torch.rand(len(x), generator=draw)
    mixed = torch.lerp(noise, x, t[:, None, None, None]).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model(mixed, t, codes)
    return (velocity.float() - (x - noise)).square().mean((1, 2, 3))


@torch.no_grad()
def held_out_loss(model: nn.Module, images: Tensor, captions: Sequence[str], repeats: int = 16) -> float:
    """Mean loss on images that were not trained on, over noise that is the same for all models."""
    draw = torch.Generator().manual_seed(12345)
    codes = words(captions)
    return float(torch.stack([_loss(model, images, codes, draw).mean() for _ in range(repeats)]).mean())


@torch.no_grad()
def generate(model: nn.Module, captions: Sequence[str], side: int, euler: int, seed: int, batch: int = 256) -> Tensor:
    """One image (n, 3, side, side) in [-1, 1] for each caption; the same noise for the same place and seed."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn((len(captions), 3, side, side), generator=draw)
    codes = words(captions)
    parts = []
    for first in range(0, len(captions), batch):
        x = noise[first : first + batch].contiguous(memory_format=torch.channels_last)
        for number in range(euler):
            t = torch.full((len(x),), number / euler)
            with torch.autocast("cpu", torch.bfloat16):
                velocity = model(x, t, codes[first : first + batch])
            x = x + velocity.float() / euler
        parts.append(x.clamp(-1, 1))
    return torch.cat(parts)
