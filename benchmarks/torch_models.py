"""Public PyTorch models with random weights: their makers, and E g² of one unit of each.

`MODELS` says of every model which package it is from, how it is made (no weights are loaded), on
what image it runs and at which module it is cut. Models whose package is missing are skipped.

Conventions, the same on both sides: every weight of a convolution or dense layer is normal of
variance 2/fan_in, biases are 0, norms scale by 1 and shift by 0, pixels are independent N(0, 1).
The fan-in of a transposed convolution is input channels times taps, as `init="he"` of the package
has it; `SPREAD` divides it by the product of its strides, which is what one output reads. Batch
norms take the statistics of one normal batch after each draw and are in evaluation mode; other
norms compute theirs from the image, and gradients pass through them unless they are `held`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

SPREAD = False
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = (*BATCH_NORMS, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
         nn.LayerNorm)  # fmt: skip


@dataclass(frozen=True)
class Public:
    """A model that others wrote.

    Attributes:
      package: the module that it comes from.
      family: what it is known as; several models may be of one family.
      make: takes that module and returns the model.
      shape: of its image, channels first.
      until: the module whose output is looked at; "" is the model's own.
      cause: what the reading idealises, in words, where prediction and measurement differ.
    """

    package: str
    family: str
    make: Callable[[Any], nn.Module]
    shape: tuple[int, ...]
    until: str = ""
    hold: str = "statistics"
    cause: str = ""

    @property
    def live(self) -> bool:
        """Whether gradients pass through statistics of the image."""
        return "statistics" in self.cause


def _tv(
    name: str, family: str, size: int, until: str, cause: str = "", hold: str = "statistics",
    **more: Any,
) -> Public:  # fmt: skip
    def make(models: Any) -> nn.Module:
        return getattr(models, name)(weights=None, **more)

    return Public("torchvision.models", family, make, (3, size, size), until, hold, cause)


def _timm(
    name: str, family: str, size: int, until: str, cause: str = "", hold: str = "statistics"
) -> Public:
    def make(timm: Any) -> nn.Module:
        return timm.create_model(name, pretrained=False)

    return Public("timm", family, make, (3, size, size), until, hold, cause)


def _monai(name: str, family: str, shape: tuple[int, ...], cause: str = "", **more: Any) -> Public:
    def make(nets: Any) -> nn.Module:
        return getattr(nets, name)(**more)

    return Public("monai.networks.nets", family, make, shape, "", "statistics", cause)


def _smp(name: str, family: str, size: int, cause: str = "", hold: str = "statistics") -> Public:
    def make(smp: Any) -> nn.Module:
        return getattr(smp, name)("resnet18", encoder_weights=None)

    package = "segmentation_models_pytorch"
    return Public(package, family, make, (3, size, size), "decoder", hold, cause)


class _Around(nn.Module):
    """A model of sequences whose input has other axes."""

    def __init__(self, inner: nn.Module, turned: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.inner, self.turned = inner, turned

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(self.turned(x))
        return y if y.ndim == 3 else y[:, None]


def _wav2vec(models: Any) -> nn.Module:
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder

    config = models.Wav2Vec2Config(conv_dim=(32,) * 7)
    return _Around(Wav2Vec2FeatureEncoder(config), lambda x: x[:, 0])


def _hifi_gan(models: Any) -> nn.Module:
    config = models.SpeechT5HifiGanConfig(
        model_in_dim=16, upsample_initial_channel=64, upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
    )  # fmt: skip
    return _Around(models.SpeechT5HifiGan(config), lambda x: x.transpose(1, 2))


def _dac(models: Any) -> nn.Module:
    config = models.DacConfig(
        encoder_hidden_size=16, downsampling_ratios=[2, 4, 4], hidden_size=64
    )
    return models.DacModel(config).encoder


class _WaveNet(nn.Module):
    """The WaveNet of VITS behind a convolution that widens."""

    def __init__(self, models: Any):
        from transformers.models.vits.modeling_vits import VitsWaveNet

        super().__init__()
        config = models.VitsConfig(hidden_size=32, wavenet_dilation_rate=2)
        self.pre = nn.Conv1d(1, 32, 1)
        self.net = VitsWaveNet(config, num_layers=5)
        for module in self.net.modules():
            if hasattr(module, "parametrizations"):
                nn.utils.parametrize.remove_parametrizations(module, "weight")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pre(x)
        return self.net(x, torch.ones_like(x[:, :1]))


def _unet(ndim: int, norm: str, units: int, more: str = "", **other: Any) -> Public:
    size = {1: (1, 256), 2: (1, 128, 128), 3: (1, 32, 32, 32)}[ndim]
    widths = {1: (16, 32, 64, 128), 2: (16, 32, 64, 128), 3: (8, 16, 32)}[ndim]
    return _monai(
        "UNet", "MONAI U-Net", size, more, spatial_dims=ndim, in_channels=1, out_channels=4,
        channels=widths, strides=(2,) * (len(widths) - 1), num_res_units=units, norm=norm, **other,
    )  # fmt: skip


def _dyn(norm: str) -> dict[str, Any]:
    return {
        "spatial_dims": 2, "in_channels": 1, "out_channels": 4, "kernel_size": (3, 3, 3),
        "strides": (1, 2, 2), "upsample_kernel_size": (2, 2), "filters": (16, 32, 64),
        "norm_name": norm,
    }  # fmt: skip


LIVE = "live statistics of norms: their gradient reaches the whole image"
ONE = "one input channel: a channel of the first layer reads 3 numbers"
GATES = "products of gates, read as sums"
IDENTITIES = "gates along identities behind activations are correlated"
SNAKE = "snake, a function without a gain, read as linear"
MODELS: dict[str, Public] = {
    "alexnet": _tv("alexnet", "AlexNet", 160, "features.11"),
    "vgg16": _tv("vgg16", "VGG", 96, "features.22"),
    "vgg16_bn": _tv("vgg16_bn", "VGG", 96, "features.32"),
    "resnet18": _tv("resnet18", "ResNet", 128, "layer3"),
    "resnet50": _tv("resnet50", "ResNet", 112, "layer2"),
    "resnext50": _tv("resnext50_32x4d", "ResNeXt", 112, "layer2"),
    "densenet121": _tv("densenet121", "DenseNet", 160, "features.denseblock2"),
    "mobilenet_v2": _tv("mobilenet_v2", "MobileNet", 128, "features.10"),
    "mnasnet1_0": _tv("mnasnet1_0", "MNASNet", 128, "layers.10"),
    "efficientnet_b0": _tv("efficientnet_b0", "EfficientNet", 96, "features.4", hold="global"),
    "convnext_tiny": _tv("convnext_tiny", "ConvNeXt", 128, "features.3", layer_scale=1.0),
    "inception_v3": _tv("inception_v3", "Inception", 139, "Mixed_5d", init_weights=False),
    "googlenet": _tv("googlenet", "GoogLeNet", 128, "inception4a", init_weights=False),
    "squeezenet1_1": _tv("squeezenet1_1", "SqueezeNet", 128, "features.9"),
    "shufflenet_v2": _tv("shufflenet_v2_x1_0", "ShuffleNet", 128, "stage3"),
    "regnet_x_400mf": _tv("regnet_x_400mf", "RegNet", 128, "trunk_output.block3"),
    "timm dla34": _timm("dla34", "DLA", 96, "level4"),
    "timm res2net50": _timm("res2net50_26w_4s", "Res2Net", 96, "layer2"),
    "timm cspdarknet53": _timm("cspdarknet53", "CSPNet", 96, "stages.2"),
    "timm repvgg_a0": _timm("repvgg_a0", "RepVGG", 96, "stages.2", IDENTITIES),
    "timm xception41": _timm("xception41", "Xception", 96, "blocks.3"),
    "timm resnet18d": _timm("resnet18d", "ResNet-D", 128, "layer3"),
    "timm convmixer": _timm("convmixer_768_32", "ConvMixer", 98, "blocks.5"),
    "timm mobilenetv3": _timm("mobilenetv3_large_100", "MobileNet", 96, "blocks.3", hold="global"),
    "timm ghostnet": _timm("ghostnet_100", "GhostNet", 96, "blocks.4", hold="global"),
    "timm selecsls42": _timm("selecsls42", "SelecSLS", 96, "features.3.conv6"),
    "timm dpn48b": _timm("dpn48b", "DPN", 96, "features.conv4_1.c1x1_a"),
    "timm ese_vovnet19b": _timm("ese_vovnet19b_dw", "VoVNet", 96, "stages.1", hold="global"),
    "monai UNet, batch, plain": _unet(2, "batch", 0),
    "monai UNet, batch, residual": _unet(2, "batch", 2),
    "monai UNet, instance, plain": _unet(2, "instance", 0, LIVE),
    "monai UNet, instance, residual": _unet(2, "instance", 2, LIVE),
    "monai UNet 3-D": _unet(3, "batch", 2),
    "monai UNet 1-D": _unet(1, "batch", 2, ONE),
    "monai BasicUNet": _monai("BasicUNet", "MONAI BasicUNet", (1, 96, 96), spatial_dims=2,
                              features=(16, 16, 32, 64, 64, 16), norm="batch"),
    "monai DynUNet": _monai("DynUNet", "MONAI DynUNet", (1, 64, 64), **_dyn("BATCH")),
    "monai SegResNet": _monai("SegResNet", "SegResNet", (1, 96, 96), spatial_dims=2,
                              init_filters=8, in_channels=1, out_channels=2, cause=LIVE),
    "monai SegResNet 3-D": _monai("SegResNet", "SegResNet", (1, 32, 32, 32), spatial_dims=3,
                                  init_filters=8, in_channels=1, out_channels=2,
                                  blocks_down=(1, 2, 2), blocks_up=(1, 1), cause=LIVE),
    "monai VNet": _monai("VNet", "V-Net", (1, 64, 64), spatial_dims=2),
    "smp Unet": _smp("Unet", "SMP U-Net", 96),
    "smp FPN": _smp("FPN", "SMP FPN", 96, cause=LIVE),
    "smp DeepLabV3+": _smp("DeepLabV3Plus", "DeepLab", 96, hold="global"),
    "Wav2Vec2 encoder": Public("transformers", "Wav2Vec2", _wav2vec, (1, 4000), cause=LIVE),
    "VITS WaveNet": Public("transformers", "WaveNet", _WaveNet, (1, 256), cause=GATES),
    "HiFi-GAN": Public("transformers", "HiFi-GAN", _hifi_gan, (16, 48)),
    "DAC encoder": Public("transformers", "DAC", _dac, (1, 2048),
                          cause=SNAKE),
}  # fmt: skip


def build(model: Public) -> nn.Module | None:
    """The model, or None if its package is not installed."""
    try:
        module = importlib.import_module(model.package)
    except ImportError:
        return None
    net = model.make(module).eval()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


# ---- measured ----------------------------------------------------------------------------------


def fan_in(layer: Any) -> float:
    """Input channels of a group times taps."""
    taps = math.prod(getattr(layer, "kernel_size", (1,)))
    if isinstance(layer, TRANSPOSED):
        spread = math.prod(layer.stride) if SPREAD else 1
        return layer.in_channels / layer.groups * taps / spread
    return layer.weight.shape[1] * taps


@torch.no_grad()
def draw(net: nn.Module) -> None:
    """New weights."""
    for module in net.modules():
        if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)):
            module.weight.normal_(0, math.sqrt(2 / fan_in(module)))
        elif isinstance(module, NORMS):
            if module.weight is not None:
                module.weight.fill_(1.0)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()


class _Reached(Exception):
    pass


def run(net: nn.Module, until: str, x: torch.Tensor) -> torch.Tensor:
    """The output of a module, and nothing behind it."""
    if not until:
        return _tensor(net(x))
    found: list[torch.Tensor] = []

    def stop(module: nn.Module, inputs: Any, output: Any) -> None:
        found.append(_tensor(output))
        raise _Reached

    handle = net.get_submodule(until).register_forward_hook(stop)
    try:
        net(x)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0]


def _tensor(value: Any) -> torch.Tensor:
    while not isinstance(value, torch.Tensor):
        value = value[-1] if isinstance(value, (tuple, list)) else next(iter(value.values()))
    return value


@torch.no_grad()
def calibrate(net: nn.Module, until: str, batch: torch.Tensor) -> None:
    """Batch norms with the statistics of a batch."""
    norms = [m for m in net.modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats]
    if not norms:
        return
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    run(net, until, batch)
    for norm in norms:
        norm.eval()


@contextmanager
def held() -> Iterator[None]:
    """Statistics of instance, group and layer norms as constants: no gradient passes through."""
    F = nn.functional
    old = F.instance_norm, F.group_norm, F.layer_norm

    def constant(x: torch.Tensor, dims: tuple[int, ...], eps: float) -> torch.Tensor:
        y = x.detach()
        mean = y.mean(dims, keepdim=True)
        return (x - mean) * torch.rsqrt(y.var(dims, unbiased=False, keepdim=True) + eps)

    def instance(x: Any, mean: Any = None, var: Any = None, weight: Any = None, bias: Any = None,
                 use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5) -> Any:
        return constant(x, tuple(range(2, x.ndim)), eps)

    def group(x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
        rows = x.reshape(len(x), groups, -1)
        return constant(rows, (2,), eps).reshape(x.shape)

    def layer(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
        return constant(x, tuple(range(x.ndim - len(shape), x.ndim)), eps)

    F.instance_norm, F.group_norm, F.layer_norm = instance, group, layer  # type: ignore
    try:
        yield
    finally:
        F.instance_norm, F.group_norm, F.layer_norm = old


def squares(
    net: nn.Module, model: Public, draws: int, seed: int, batch: int = 8, images: int = 4,
    drawn: Callable[[nn.Module], None] = draw,
) -> list[np.ndarray]:
    """g² of the central unit along each axis: (draws, pixels), a sum over images and channels."""
    torch.manual_seed(seed)
    axes = len(model.shape) - 1
    lines: list[list[np.ndarray]] = [[] for _ in range(axes)]
    for _ in range(draws):
        drawn(net)
        calibrate(net, model.until, torch.randn(batch, *model.shape))
        x = torch.randn(images, *model.shape, requires_grad=True)
        y = run(net, model.until, x)
        middle = y[(slice(None), slice(None), *(n // 2 for n in y.shape[2:]))]
        signs = torch.randint(0, 2, middle.shape) * 2.0 - 1
        (g,) = torch.autograd.grad((middle * signs).sum(), x)
        power = (g.double() ** 2).sum((0, 1))
        for a in range(axes):
            others = tuple(b for b in range(axes) if b != a)
            lines[a].append((power.sum(others) if others else power).numpy())
    return [np.array(rows) for rows in lines]
