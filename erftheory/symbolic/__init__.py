"""SymPy derivations of the theory, step by step, every step with a check that is really run."""

from erftheory.symbolic.convolution import n_fold_convolution
from erftheory.symbolic.derivation import Derivation, Report, Step
from erftheory.symbolic.evidence import CheckResult, ExactPoints, SymbolicIdentity
from erftheory.symbolic.gaussian import gaussian_limit
from erftheory.symbolic.growth import growth
from erftheory.symbolic.moments import moments
from erftheory.symbolic.nonlinearity import nonlinearity
from erftheory.symbolic.skip import skip
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
    "Report",
    "Step",
    "SymbolicIdentity",
    "coefficient",
    "coefficients",
    "excess_kurtosis",
    "fourth_cumulant",
    "gaussian_limit",
    "gaussian_size",
    "growth",
    "mean",
    "moments",
    "n_fold_convolution",
    "nonlinearity",
    "receptive_field",
    "residual_doubling",
    "residual_variance",
    "rf_ratio_limit",
    "skip",
    "variance",
]
