"""How many examples the property tests draw.

The suite draws the same examples in each run of CI. The nightly run draws others each time, and more of them:
`.ci/nightly` says how.
"""

import os

from hypothesis import settings

FACTOR = int(os.environ.get("EXAMPLES_FACTOR", "1"))


def examples(count: int) -> int:
    """Return how many examples to draw where the suite draws `count`."""
    return count * FACTOR


def register_profiles() -> None:
    """Make the profile `random` known to Hypothesis: other examples in each run."""
    settings.register_profile(
        "random", max_examples=examples(100), deadline=None, derandomize=False, print_blob=True
    )
