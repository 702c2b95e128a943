"""ATen operations that normalise."""

from __future__ import annotations

from collections.abc import Callable

from erftheory.importers.building.norms import evaluated, over_last
from erftheory.importers.values.pixels import Pixels, Value
from erftheory.network.layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm


def _batch_norm(make, out, x, weight, bias, mean, variance, training, momentum, eps, *more):
    found: Value
    factors = () if weight is None else (weight,)
    if mean is None or training:
        found = make.held_norm(x, BatchNorm(), factors)
    else:
        found = evaluated(make, x, weight, variance, eps)
    return [found] * len(out) if isinstance(out, list) else found


def _without_training(make, out, x, weight, bias, mean, variance, momentum, eps):
    return [evaluated(make, x, weight, variance, eps)] * len(out)


def _instance_norm(make, out, x, weight, bias, mean, variance, by_input, momentum, eps, *more):
    if not by_input:
        return evaluated(make, x, weight, variance, eps)
    return make.held_norm(x, InstanceNorm(), () if weight is None else (weight,))


def _group_norm(make, out, x, groups, weight=None, bias=None, *more):
    return make.held_norm(x, GroupNorm(groups), () if weight is None else (weight,))


def _native_group_norm(make, out, x, weight, bias, n, c, pixels, groups, eps):
    return [_group_norm(make, out, x, groups, weight)] * len(out)


def _over_last(layer: type[LayerNorm | RMSNorm]) -> Callable:
    def rule(make, out, x, shape, weight=None, *more):
        make.normal = True
        if not isinstance(x, Pixels):
            return x
        factors = [] if weight is None else [weight]
        found = over_last(make, x, len(x.dims) - len(shape), layer(), factors)
        return [found] * len(out) if isinstance(out, list) else found

    return rule


NORMS: dict[str, Callable] = {
    "batch_norm": _batch_norm, "native_batch_norm": _batch_norm, "instance_norm": _instance_norm,
    "_native_batch_norm_legit_no_training": _without_training,
    "group_norm": _group_norm, "native_group_norm": _native_group_norm,
    "layer_norm": _over_last(LayerNorm), "native_layer_norm": _over_last(LayerNorm),
    "rms_norm": _over_last(RMSNorm), "_fused_rms_norm": _over_last(RMSNorm),
}  # fmt: skip
