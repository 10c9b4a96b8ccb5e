"""Tests of both packages.

Tests and their processes share the cores: threads of one would wait for those of another. numpy and
torch read these variables when they are imported, so this is the first module of the tests.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
