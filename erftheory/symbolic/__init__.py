"""SymPy derivations of the theory, step by step, every step with a check that is really run."""

from erftheory.symbolic.convolution import n_fold_convolution
from erftheory.symbolic.derivation import Derivation, Report, Step
from erftheory.symbolic.dilation import dilation
from erftheory.symbolic.dropout import dropout
from erftheory.symbolic.edgeworth import edgeworth
from erftheory.symbolic.evidence import CheckResult, ExactPoints, Induction, SymbolicIdentity
from erftheory.symbolic.gaussian import gaussian_limit
from erftheory.symbolic.growth import growth
from erftheory.symbolic.initialisation import initialisation
from erftheory.symbolic.kernels import large_kernel, separable
from erftheory.symbolic.moments import moments
from erftheory.symbolic.nonlinearity import nonlinearity
from erftheory.symbolic.pooling import pooling
from erftheory.symbolic.random_weights import random_weights
from erftheory.symbolic.saddlepoint import saddlepoint
from erftheory.symbolic.skip import skip
from erftheory.symbolic.subsampling import subsampling
from erftheory.symbolic.values import (
    coefficient,
    coefficients,
    excess_kurtosis,
    fourth_cumulant,
    gaussian_size,
    mean,
    receptive_field,
    residual_doubling,
    residual_variance,
    rf_ratio_limit,
    variance,
)

__all__ = [
    "CheckResult",
    "Derivation",
    "ExactPoints",
    "Induction",
    "Report",
    "Step",
    "SymbolicIdentity",
    "coefficient",
    "coefficients",
    "dilation",
    "dropout",
    "edgeworth",
    "excess_kurtosis",
    "fourth_cumulant",
    "gaussian_limit",
    "gaussian_size",
    "growth",
    "initialisation",
    "large_kernel",
    "mean",
    "moments",
    "n_fold_convolution",
    "nonlinearity",
    "pooling",
    "random_weights",
    "receptive_field",
    "residual_doubling",
    "residual_variance",
    "rf_ratio_limit",
    "saddlepoint",
    "separable",
    "skip",
    "subsampling",
    "variance",
]
