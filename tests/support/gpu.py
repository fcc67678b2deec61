"""The GPU of the machine, which the tests' own process must not see: they are of a CPU, whatever the machine has.

To be imported before torch is.
"""

import os

SEEING = dict(os.environ)  # the environment of a process that may see it
os.environ["CUDA_VISIBLE_DEVICES"] = ""
