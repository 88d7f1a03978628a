"""pnilib: industrial anomaly detection with position and neighborhood information (PNI, ICCV 2023)."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pnilib.config import PNIConfig
    from pnilib.data.dataset import load_dataset
    from pnilib.detector.pni import PNI
    from pnilib.errors import PNIError
    from pnilib.evaluation import evaluate
    from pnilib.store.version import __version__

__all__ = ["PNI", "PNIConfig", "PNIError", "__version__", "evaluate", "load_dataset"]
# torch takes seconds to import, and `import pnilib` none: each name when it is asked for
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["PNIConfig"],
        "data.dataset": ["load_dataset"],
        "detector.pni": ["PNI"],
        "errors": ["PNIError"],
        "evaluation": ["evaluate"],
        "store.version": ["__version__"],
    },
)
