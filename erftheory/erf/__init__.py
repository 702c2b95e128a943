"""The result: a record of one effective receptive field, and what one may ask of it.

`record.ERF` holds a normalised map over input pixels, its offset, signal and
`bound.ErrorBound`; `measures` are the functions behind its questions (std, size, radius, fits,
distances), `jackknife` the standard errors of any of them, `difference` two records side by
side, `file` what is saved. Pictures are attached from outside: nothing here draws. Begin with
record.py.
"""

from erftheory.erf.bound import ErrorBound
from erftheory.erf.record import ERF

__all__ = ["ERF", "ErrorBound"]
