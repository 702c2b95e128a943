"""From the arguments of a reading to the walk it reads."""

from __future__ import annotations

from erftheory.network.arguments import one_of
from erftheory.network.base import Network, check_network
from erftheory.network.graph import unrolled
from erftheory.network.imported import GraphNetwork
from erftheory.network.initialisation import Init, check_init
from erftheory.theory.gains.between import Between
from erftheory.theory.gains.forward import meanfield_gains
from erftheory.theory.lowering.branches import meets, repeats_fixed
from erftheory.theory.lowering.lowering import build
from erftheory.theory.walk.links import Gains
from erftheory.theory.walk.walk import SIGNALS, Walk


def prepare(network: Network, signal: str, init: Init | None) -> Walk:
    """The walk of `network` for a signal: the one door from a network to what readings fold.

    Where branches meet the gains come from the forward pass, of the whole network where `network`
    is a part of it (`Between`).
    """
    check_network("network", network)
    one_of("signal", signal, SIGNALS)
    check_init(init, counting=True)
    kind = "variance" if signal == "magnitude" else signal
    if kind == "variance" and repeats_fixed(network.graph):
        network = written_out(network)
    walk = build(network, kind, gains_of(network, kind, init) if meets(network.graph) else None)
    if not walk.lagged:
        return walk
    # lags pass activations, whose laws differ from one repetition to the next
    network = written_out(network)
    return build(network, kind, gains_of(network, kind, init))


def gains_of(network: Network, signal: str, init: Init | None) -> Gains | None:
    """Gains from the forward pass: of the whole network, where a part of it is read.

    None without an initialisation: every tap counts as given.
    """
    if init is None:
        return None
    if isinstance(network, Between):
        return network.gains(signal, init)
    return meanfield_gains(network.graph, signal, init)


def written_out(network: Network) -> Network:
    """The same network, or part of one, with every repetition as copies of its body."""
    return (
        network.unrolled()
        if isinstance(network, Between)
        else GraphNetwork(unrolled(network.graph))
    )
