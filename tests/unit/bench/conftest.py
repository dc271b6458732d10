"""Skips the tests of the benchmark on other systems than Linux, where the benchmark does not run."""

import sys

collect_ignore = [] if sys.platform == "linux" else ["test_databases.py", "test_load.py", "test_works.py"]
