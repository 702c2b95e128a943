"""SymPy derivations of the theory, step by step, every step with a check that is really run.

proof/ says what a proof is, helpers/ has what several topics stand on, topics/ one module a
derivation; each room reads only those before it. `values` takes exact numbers from the formulas.
"""

from erftheory.symbolic.proof.derivation import Derivation, ProofStep, Report
from erftheory.symbolic.proof.evidence import CheckResult, ExactPoints, Induction, SymbolicIdentity
from erftheory.symbolic.topics.convolution import n_fold_convolution
from erftheory.symbolic.topics.dilation import dilation
from erftheory.symbolic.topics.dropout import dropout
from erftheory.symbolic.topics.edgeworth import edgeworth
from erftheory.symbolic.topics.gaussian import gaussian_limit
from erftheory.symbolic.topics.growth import growth
from erftheory.symbolic.topics.initialisation import initialisation
from erftheory.symbolic.topics.kernels import large_kernel, separable
from erftheory.symbolic.topics.moments import moments
from erftheory.symbolic.topics.nonlinearity import nonlinearity
from erftheory.symbolic.topics.pooling import pooling
from erftheory.symbolic.topics.random_weights import random_weights
from erftheory.symbolic.topics.saddlepoint import saddlepoint
from erftheory.symbolic.topics.skip import skip
from erftheory.symbolic.topics.subsampling import subsampling
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

Step = ProofStep  # as it was called; a step of a walk or of a network is another thing

__all__ = [
    "CheckResult",
    "Derivation",
    "ExactPoints",
    "Induction",
    "ProofStep",
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
