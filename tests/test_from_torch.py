"""What only PyTorch's modules show: layouts, statistics, class tokens, failures."""

import logging.handlers
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_from_onnx import SHAPE, Made
from torch import nn

from erftheory import exact, from_torch, moments, receptive_field, tiling

LAYOUTS = {
    "N H W C": ((1, 32, 32, 3), lambda m, x: m(x.permute(0, 3, 1, 2)), nn.Conv2d(3, 8, 5), (5, 5)),
    "N T C": ((1, 40, 4), lambda m, x: m(x.transpose(1, 2)), nn.Conv1d(4, 8, 7), (7,)),
    "N T C H W": ((1, 8, 3, 16, 16), lambda m, x: m(x.transpose(1, 2)), nn.Conv3d(3, 8, (3, 5, 7)),
                  (3, 5, 7)),
    "N H W": ((1, 32, 32), lambda m, x: m(x[:, None]), nn.Conv2d(1, 8, (3, 5)), (3, 5)),
    "N T": ((1, 200), lambda m, x: m(x[:, None]), nn.Conv1d(1, 2, 5), (5,)),
    "N T C, channels first": ((1, 40, 4), lambda m, x: m[1](m[0](x).transpose(1, 2)),
                              nn.ModuleList([nn.Linear(4, 8), nn.Conv1d(8, 8, 7)]), (7,)),
    "pooled": ((1, 32, 32, 3), lambda m, x: m(x.permute(0, 3, 1, 2)), nn.MaxPool2d(3), (3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_first_window_says_which_dimensions_are_pixels(layout):
    shape, function, module, size = LAYOUTS[layout]
    network = from_torch(Made(lambda m, x: function(m[0], x), module), torch.zeros(shape))
    assert receptive_field(network).size == size
    assert all("norms that were folded" in note for note in network.notes)


def test_statistics_that_meet_and_class_tokens_see_the_whole_image():
    def grn(m, x):  # global response normalisation of ConvNeXt-V2
        y = m[0](x)
        size = y.square().mean((2, 3), keepdim=True).sqrt()
        return y * (size / (size.mean(1, keepdim=True) + 1e-6)) + y

    conv = nn.Conv2d(3, 4, 3, padding=1)
    two_steps = lambda m, x: m[0](x) * m[0](x).mean(-1).mean(-1)[:, :, None, None]  # noqa: E731
    for function in (grn, two_steps, lambda m, x: m[0](x) * (m[0](x).mean((2, 3), keepdim=True)
                                                  + m[0](x).amax((2, 3), keepdim=True))):
        made = Made(function, conv)
        assert receptive_field(from_torch(made, torch.zeros(SHAPE))).size == (math.inf,) * 2
        held = from_torch(made, torch.zeros(SHAPE), hold="global")
        assert receptive_field(held).size == (3, 3)

    strip = Made(lambda m, x: m[0](x).mean(-1, keepdim=True).sigmoid() * m[0](x), conv)
    assert receptive_field(from_torch(strip, torch.zeros(SHAPE))).size == (3, math.inf)

    own = nn.Sequential(conv, nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU())
    found = from_torch(own, torch.zeros(SHAPE))
    assert receptive_field(found).size == (3, 3) and "held constant" in found.notes[0]

    def tokens(m, x):
        patches = m[0](x).flatten(2).transpose(1, 2)
        return m[1](torch.cat([torch.zeros(1, 1, 8), patches], 1))

    made = Made(tokens, nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8))
    network = from_torch(made, torch.zeros(SHAPE))
    assert receptive_field(network).size == (math.inf,) * 2 and "class token" in network.notes[0]


def test_pyramid_pools_are_enlarged_by_the_rule_of_a_larger_map():
    """PSPNet's bins: 2 x 2 means, enlarged linearly; on a map of 4 x as many bins, executed."""
    def psp(m, x):
        y = F.avg_pool2d(m[0](x), 8)
        return F.interpolate(y, scale_factor=8, mode="bilinear")

    made, wide = Made(psp, nn.Conv2d(3, 4, 3, padding=1)), (1, 3, 64, 64)
    network = from_torch(made, torch.zeros(1, 3, 16, 16))
    assert receptive_field(network) == receptive_field(from_torch(made, torch.zeros(wide)))
    x = torch.zeros(wide, requires_grad=True)
    made(x)[0, :, 32, 32].sum().backward()
    rows = np.flatnonzero(x.grad[0].abs().sum((0, 2)).numpy())
    assert receptive_field(network).size[0] == rows[-1] - rows[0] + 1


def test_corners_aligned_in_any_output_leave_no_tiles():
    def two(m, x):
        return F.interpolate(m[0](x), scale_factor=2, mode="bilinear", align_corners=True), m[0](x)

    network = from_torch(Made(two, nn.Conv2d(3, 4, 3, padding=1)), torch.zeros(SHAPE))
    with pytest.raises(ValueError, match="network: got interpolation with aligned corners"):
        tiling(network, 16)


@pytest.mark.parametrize("inside, outside", [(18, 27), (30, 20), (16, 40), (40, 15), (24, 8)])
def test_corners_aligned_by_broken_factors_read_no_pixel_outside_the_field(inside, outside):
    """Places o (n − 1) / (m − 1) drift along the map: the field holds them all, and one more."""
    module = nn.Upsample((outside, outside), mode="bilinear", align_corners=True)
    network = from_torch(module, torch.zeros(1, 1, inside, inside))
    fields = receptive_field(network).phases
    count, spare = math.isqrt(len(fields)), []
    for o in range(outside):
        place = o * (inside - 1) / (outside - 1)
        low, high = math.floor(place + 1e-9), math.ceil(place - 1e-9)
        field = fields[o % count]  # of the second axis
        first = o // count * count * inside // outside - field.padding[1]
        last = first + field.size[1] - 1
        assert first <= low and high <= last
        spare.append(field.size[1] - (high - low + 1))
    assert min(spare) <= 1


def test_an_unfold_and_a_product_are_a_convolution():
    conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)

    def product(m, x):
        return (m[0].weight.view(4, -1) @ F.unfold(x, 3, padding=1, stride=2)).view(1, 4, 10, 8)

    shape = torch.zeros(1, 2, 20, 16)
    one, other = from_torch(Made(product, conv), shape), from_torch(conv, shape)
    assert receptive_field(one) == receptive_field(other) and moments(one) == moments(other)
    maps = [exact(net, image=(20, 16), unit=(0, 3)).map for net in (one, other)]
    assert maps[0] == pytest.approx(maps[1])


def test_a_module_that_fails_says_so_in_one_line_and_nothing_else():
    handler = logging.handlers.BufferingHandler(10**6)
    handler.setLevel(logging.WARNING)
    known = list(logging.root.manager.loggerDict)  # some pass nothing on to their parents
    loggers = [logging.getLogger(n) for n in known if n.startswith("torch")]

    class Wrong(torch.nn.Module):
        def forward(self, x):
            return x @ torch.ones(5, 5)

    for logger in loggers:
        logger.addHandler(handler)
    try:
        with pytest.raises(ValueError, match="module: got one that PyTorch cannot export: ") as err:
            from_torch(Wrong(), torch.zeros(1, 3, 8, 8))
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert "\n" not in str(err.value) and not handler.buffer
