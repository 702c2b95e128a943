"""Executed nets: random weights, autodiff, and the referees that judge the theory by them."""

from erftheory.empirical.execute import apply, gradient_of_ones
from erftheory.empirical.gradients import gradient_erf
from erftheory.empirical.probe import probe_receptive_field
from erftheory.empirical.referees import enumerated
from erftheory.empirical.sampling import batches, sample
from erftheory.empirical.weights import initialise, ones_params

__all__ = [
    "apply",
    "batches",
    "enumerated",
    "gradient_erf",
    "gradient_of_ones",
    "initialise",
    "ones_params",
    "probe_receptive_field",
    "sample",
]
