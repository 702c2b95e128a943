"""A long run of kills: runs of `fit` that SIGKILL ends at random moments, each to its end.

    cd tests && JAX_PLATFORMS=cpu python long_kills.py --kills 20 [--first SEED]

Every run is killed once or twice, at a moment drawn evenly from the whole time that a run takes;
then the same call goes on to the end. The last line of each must be, bit for bit, that of a run
nobody killed. Exit code 1 if one is not. Most of that time is loading and compiling: of 20 kills
in 12 runs all fell before the first checkpoint, and all 12 ends were identical. Kills behind a
checkpoint are those of tests/test_fit.py, two of them.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from test_fit import finished, start


def killed_at(folder: Path, seconds: float) -> str:
    """What a run said last before it was killed; "" if it had ended."""
    process = start(folder)
    time.sleep(seconds)
    process.kill()
    said = process.communicate()[0].split("\n")
    lines = [line for line in said if line]
    if lines and lines[-1].startswith("end"):
        return ""
    return lines[-1] if lines else "nothing yet"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    options = parser.parse_args()
    begun = time.perf_counter()
    want = finished("")[-1]
    length = time.perf_counter() - begun
    print(f"undisturbed: {want}, {length:.1f} s", flush=True)
    kills, wrong, seed = 0, 0, options.first
    while kills < options.kills:
        rng = np.random.default_rng(seed)
        folder = Path(tempfile.mkdtemp()) / "run"
        behind = []
        for _ in range(int(rng.integers(1, 3))):
            last = killed_at(folder, float(rng.uniform(0, length)))
            behind += [last] if last else []
        kills += len(behind)
        found = finished(folder)[-1]
        same = found == want
        wrong += not same
        print(f"run {seed}: killed behind {', '.join(behind) or 'its end'}; "
              f"{'identical' if same else found}; {kills} kills", flush=True)  # fmt: skip
        shutil.rmtree(folder.parent)
        seed += 1
    print(f"{kills} kills in {seed - options.first} runs, {wrong} with another end")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
