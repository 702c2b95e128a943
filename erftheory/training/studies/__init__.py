"""Does training enlarge the ERF? Many seeds of one network on one task, before and after.

A `Pair` is a network with a task; `study` trains it from several seeds and measures, on the same
held-out images, the ERF of the centre unit of the last map before, while and after. `trials` is the
exact test: under "training changes nothing" each seed's growth is as likely as its opposite, so of
the 2^n sign patterns few make a sum as large as the one found. `pairs` has those of TRN-1,
`controls` what a referee would ask for. Begin with `study.study`.
"""

from erftheory.training.needs import check

check("flax", "optax", "xarray", "pandas")
