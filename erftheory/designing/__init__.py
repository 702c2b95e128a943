"""From what is wanted to the networks that have it: design, as theory run backwards.

The variance of a chain adds over its layers. A layer of k uniform taps, d pixels apart, behind a
total stride j has j²·d²·(k² − 1)/12 pixels² an axis and makes the receptive field j·d·(k − 1)
pixels longer; a skip of power ratio g around it keeps the input with probability 1/(1 + g), which
is a layer with one more tap. So a chain of layers is a path whose lengths are whole numbers, and
the cheapest network for every variance and field is a cheapest path: found exactly, not by
sampling.

- An *allowed* space (spaces.py): layers that a network may be made of, and how many in a row.
- A *query* (queries.py): what is wanted of the ERF, and bounds for field, look-back, latency,
  stride, holes and cost (costs.py).
- A *front* (front.py): the networks of which none is both cheaper and closer to what was asked.
  chains.py finds it where variances say how close a network is, shapes.py where whole maps do.
- If nothing fits, relaxing.py says which bound to relax and by how much.

Beside it stand derivatives: `sensitivity` says what the ERF's deviation owes to every tap and every
skip of one network (sensitivities.py; passes.py has the walk it reads), and any other measure of
the map (spectra.py). `tune` descends along them to a wanted ERF (wishes.py, tuning.py). `cures`
tries single changes of layers on what `advise` finds (cures.py; changing.py exchanges layers).
command.py is `erftheory design`. Begin with `design` in design.py.
"""
