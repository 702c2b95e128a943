"""How much of the time goes into compiling: programs that XLA made in this process."""

from __future__ import annotations

from functools import lru_cache

_EVENT = "/jax/core/compile/backend_compile_duration"


class _Count:
    programs = 0
    seconds = 0.0


@lru_cache(maxsize=1)
def _counted() -> _Count:
    """Counts from the first call on."""
    import jax

    count = _Count()

    def heard(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _EVENT:
            count.programs += 1
            count.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(heard)
    return count


def compiled() -> tuple[int, float]:
    """Programs made so far, those taken from a cache too, and the seconds that it took."""
    count = _counted()
    return count.programs, count.seconds
