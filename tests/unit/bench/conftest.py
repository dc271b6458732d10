"""The benchmark runs on Linux only; its arithmetic is right everywhere."""

import sys

collect_ignore = [] if sys.platform == "linux" else ["test_databases.py", "test_load.py", "test_works.py"]
