"""A network from any traceable JAX function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from erftheory.importers.building.assemble import Assembler
from erftheory.importers.building.draft import HOLD
from erftheory.importers.building.image import Axes, image_axes, whole_image
from erftheory.importers.building.rules import check_rules
from erftheory.importers.jax.jaxpr import JaxReader
from erftheory.importers.values.constants import given
from erftheory.importers.values.pixels import Value
from erftheory.network.arguments import one_of
from erftheory.network.imported import ImportedNetwork


def from_jax(
    function: Callable[..., Any],
    *examples: Any,
    spatial_axes: Axes = None,
    image: int | None = None,
    hold: str = "statistics",
    rules: Mapping[str, Any] | None = None,
    intermediates: bool = False,
) -> ImportedNetwork:
    """The network that a JAX function computes, read from its jaxpr; nothing is executed.

    Any library works whose models trace: plain JAX, Equinox, Flax, Haiku, Keras 3 on JAX.

    Args:
      function: called on `examples`, must be traceable by `jax.make_jaxpr`.
      examples: arrays or `jax.ShapeDtypeStruct`; pytrees (parameters) are welcome.
      spatial_axes: dimensions of the image that are pixels, in order (height before width), or a
        dictionary of names to them ({"height": 1, "width": 2}), which readings then show; None
        takes them from the dimension numbers of the first convolution or pooling.
      image: which of the examples is the image; None is the first, or behind parameters (a pytree)
        the only one that is a single array of at least two dimensions.
      hold: which reductions over the image are constants: "statistics" (means and variances that
        a normalisation divides by, as in inference), "global" (squeeze-and-excitation and
        pooling branches too), or "none". What is not held makes the receptive field unbounded;
        `.notes` of the result says what was decided.
      rules: what operations that the reader does not know do, by primitive or by the name of a
        jitted function: "identity" (acts on each pixel alone) or a `Network`, such as `Conv(3)`.
        `.notes` names those that no operation asked for.
      intermediates: the function returns (output, named intermediates); these become endpoints.

    Returns:
      a network whose endpoints (`until`) are the model's named scopes and its outputs.

    Raises:
      ValueError: an operation that has no reading; the message names it, its shapes, the line of
        the model, and how to give a rule. Also: no spatial axes found, or no path from the image.
    """
    import jax

    one_of("hold", hold, HOLD)
    if not callable(function):
        raise ValueError(f"function: got {function!r}; takes a function that JAX can trace")
    check_rules(rules)
    if not examples:
        raise ValueError("examples: got none; takes the function's arguments, the image first")
    image = _image(image, examples)
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
    leaves = [jax.tree.leaves(e) for e in examples]
    place = sum(map(len, leaves[:image]))
    flat = [given(leaf) for part in leaves for leaf in part]
    consts = [given(c) for c in closed.consts]
    names = _names(shapes, intermediates)
    shape = tuple(closed.jaxpr.invars[place].aval.shape)
    def read(axes: Sequence[int], search: bool = False) -> JaxReader:
        values: list[Value] = list(flat)
        values[place] = whole_image(shape, axes)
        reader = JaxReader(Assembler(len(axes), hold), rules or {}, search)
        reader.results = reader.run(closed.jaxpr, consts, values)
        return reader

    axes, named = image_axes(spatial_axes, read, shape, last=True)
    reader = read(axes)
    outputs, extra = {}, {}
    for (name, output), value in zip(names, reader.results):
        (outputs if output else extra)[name] = value
    return reader.network(outputs, named, "function", extra)


def _image(asked: int | None, examples: tuple[Any, ...]) -> int:
    """Position of the image among the examples, which may be pytrees."""
    import jax

    arrays = []
    for i, example in enumerate(examples):
        leaves = jax.tree.leaves(example)
        wrong = [x for x in leaves if not hasattr(x, "shape") and not isinstance(x, float | int)]
        if wrong:
            raise ValueError(
                f"examples: got {wrong[0]!r} in example {i}; takes arrays, "
                "jax.ShapeDtypeStruct, or pytrees of them"
            )
        if len(leaves) == 1 and hasattr(leaves[0], "shape"):
            arrays.append(i)
    if asked is None:
        found = [i for i in arrays if len(jax.tree.leaves(examples[i])[0].shape) > 1]
        if 0 in arrays or len(found) == 1:
            return 0 if 0 in arrays else found[0]
    if asked not in arrays:
        raise ValueError(
            f"image: got {asked}; takes the position of an example that is one array, here one of "
            f"{arrays}"
        )
    assert asked is not None
    return asked


def _names(shapes: Any, intermediates: bool) -> list[tuple[str, bool]]:
    """Name of each leaf of the result, and whether it is an output."""
    import jax

    if intermediates and not (isinstance(shapes, (tuple, list)) and len(shapes) == 2):
        raise ValueError(
            "intermediates: got True for a function of one result; takes a function that returns "
            "(output, intermediates)"
        )
    rows = []
    for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]:
        keys = [str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path]
        output = not intermediates or keys[0] == "0"
        name = "/".join(keys[1:] if intermediates else keys) or "output"
        rows.append((name, output))
    return rows
