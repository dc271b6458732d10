"""The number of examples in property tests.

CI uses the same examples in each run. The nightly run, `.ci/nightly`, uses random examples, and more of them.
"""

import os

from hypothesis import settings

FACTOR = int(os.environ.get("EXAMPLES_FACTOR", "1"))


def examples(count: int) -> int:
    """Return the number of examples for a test that uses `count` of them in the suite."""
    return count * FACTOR


def register_profiles() -> None:
    """Make the profile `random` known to Hypothesis: other examples in each run."""
    settings.register_profile(
        "random", max_examples=examples(100), deadline=None, derandomize=False, print_blob=True
    )
