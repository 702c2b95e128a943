"""Executed nets: what the theory is judged by. It shares the description and nothing else.

Rooms, from the ground up: `nets` (a description made executable), `sampled` (many random nets,
fast), `measured` (real models on real images), `referees` (slow and sure). Begin with
nets/execute.py.
"""

from erftheory.empirical.measured.gradients import gradient_erf
from erftheory.empirical.nets.draw import initialise, ones_params
from erftheory.empirical.nets.execute import apply, gradient_of_ones
from erftheory.empirical.referees.enumeration import enumerated
from erftheory.empirical.referees.probe import probe_receptive_field
from erftheory.empirical.sampled.sampling import batches, sample

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
