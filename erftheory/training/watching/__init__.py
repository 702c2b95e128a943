"""The ERF during a training, whoever's loop it is.

`ErfTracker` reads one unit's gradient on the same images every so many steps and keeps numbers with
their standard errors, and the maps. `parameters` is the compiled gradient that takes the weights as
an argument, so that a reading after the first compiles nothing; `readings` the table and its file;
`pictures` curves and maps. Begin with `tracker.ErfTracker`.
"""

from erftheory.training.needs import check

check("xarray", "pandas")
