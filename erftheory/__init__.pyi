"""The public names, each once: `__init__` reads this file and imports what is asked for."""

from . import derive as derive
from . import init as init
from . import zoo as zoo
from .comparison import compare as compare
from .empirical.measured.gradients import gradient_erf as gradient_erf
from .empirical.measured.replknet import area_ratios as area_ratios
from .empirical.measured.replknet import contribution_scores as contribution_scores
from .empirical.referees.enumeration import enumerated as enumerated
from .empirical.referees.probe import probe_receptive_field as probe_receptive_field
from .empirical.sampled.sampling import sample as sample
from .erf.record import ERF as ERF
from .importers.jax.from_jax import from_jax as from_jax
from .importers.onnx.from_onnx import from_onnx as from_onnx
from .importers.torch.from_torch import from_torch as from_torch
from .init import init_rim_ as init_rim_
from .network.base import Chain as Chain
from .network.base import Named as Named
from .network.base import Network as Network
from .network.base import Repeat as Repeat
from .network.combine import Branches as Branches
from .network.combine import Residual as Residual
from .network.endless import GlobalAvgPool as GlobalAvgPool
from .network.endless import Recurrent as Recurrent
from .network.layers import Activation as Activation
from .network.layers import AvgPool as AvgPool
from .network.layers import BatchNorm as BatchNorm
from .network.layers import Conv as Conv
from .network.layers import ConvTranspose as ConvTranspose
from .network.layers import Dropout as Dropout
from .network.layers import GroupNorm as GroupNorm
from .network.layers import InstanceNorm as InstanceNorm
from .network.layers import LayerNorm as LayerNorm
from .network.layers import MaxPool as MaxPool
from .network.layers import RMSNorm as RMSNorm
from .network.layers import Upsample as Upsample
from .theory.advice.advise import advise as advise
from .theory.advice.tiling import tiling as tiling
from .theory.fluctuations.power import power_fluctuation as power_fluctuation
from .theory.fluctuations.power import shape_fluctuation as shape_fluctuation
from .theory.gains.between import between as between
from .theory.image.units import exact_units as exact_units
from .theory.limits.approximations import approximate as approximate
from .theory.limits.conditions import conditions as conditions
from .theory.limits.normality import berry_esseen as berry_esseen
from .theory.limits.normality import local_limit_bound as local_limit_bound
from .theory.plane.exact import exact as exact
from .theory.readings.counting import counting as counting
from .theory.readings.cumulants import cumulants as cumulants
from .theory.readings.moments import moments as moments
from .theory.readings.receptive_field import receptive_field as receptive_field
from .training.fitting.fit import fit as fit
from .training.modules.module import trainable as trainable
from .training.watching.tracker import ErfTracker as ErfTracker

__version__: str
__all__: list[str]
