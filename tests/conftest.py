"""Shapes and types of the whole package are checked while the tests run; one thread a test process."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads, by notebooks' kernels too

from jaxtyping import install_import_hook

install_import_hook("pnilib", "strict_types.check")
