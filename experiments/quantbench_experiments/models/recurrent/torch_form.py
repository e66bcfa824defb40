"""Torch form of the recurrent models."""

from __future__ import annotations

from torch import Tensor, nn

from quantbench_experiments.models.recurrent import WIDTH

BANDS, CLASSES = 40, 10


class Recurrent(nn.Module):
    """A recurrent layer, the mean of its outputs over time, a linear layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        layer = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.recurrent = layer(BANDS, WIDTH, batch_first=True)
        self.linear = nn.Linear(WIDTH, CLASSES)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits float [n, 10] of frames float [n, 64, 40]."""
        logits: Tensor = self.linear(self.recurrent(frames)[0].mean(1))
        return logits


def build(kind: str) -> Recurrent:
    """The architecture of one kind with fresh weights, in evaluation mode."""
    model = Recurrent(kind)
    model.eval()
    return model
