"""pnilib: industrial anomaly detection with position and neighborhood information (PNI, ICCV 2023)."""

from pnilib.config import PNIConfig
from pnilib.data import load_dataset
from pnilib.errors import PNIError
from pnilib.evaluation import evaluate
from pnilib.pni import PNI

__all__ = ["PNI", "PNIConfig", "PNIError", "evaluate", "load_dataset"]
