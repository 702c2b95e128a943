"""Which pixels a unit of an executed model depends on, by its gradient; beside the prediction."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import nn

from erftheory import receptive_field

INF = math.inf


def agrees(network, reached: np.ndarray, unit: tuple[int, ...]) -> None:
    """`reached`: booleans over the image, the pixels that the model's unit depends on."""
    field = receptive_field(network)
    for axis, (back, ahead) in enumerate(zip(field.lookback, field.lookahead)):
        others = tuple(a for a in range(reached.ndim) if a != axis)
        rows = np.flatnonzero(reached.any(others))
        place = field.stride[axis] * unit[axis]
        first = 0 if back == INF else place - back
        last = reached.shape[axis] - 1 if ahead == INF else place + ahead
        assert 0 <= first and last < reached.shape[axis], "the unit is too near the rim"
        assert (rows[0], rows[-1]) == (first, last), f"axis {axis} of {field}"
        assert (field.size[axis] == INF) == (INF in (back, ahead))
        assert math.isnan(field.center[axis]) == (field.size[axis] == INF)


class Net(nn.Module):
    """What a function makes of the layers that it is given."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def torch_reached(model: nn.Module, shape, unit, places) -> np.ndarray:
    torch.manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    model = copy.deepcopy(model).double().eval()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = model(x)
    index = [slice(None)] * y.ndim
    for place, u in zip(places, unit):
        index[place] = u
    (g,) = torch.autograd.grad(y[tuple(index)].square().sum(), x)
    return (g[0].abs().amax(0) > 0).numpy()
