"""One call for each thing that people do with `vpt`: tune, predict, evaluate, explain, embed.

The commands of the same names call these functions. `import vpt` offers them as `vpt.tune` and so on.
"""

from vpt.api.analyzing import embed, embed_to_file, explain
from vpt.api.models import PredictOptions, TuneOptions
from vpt.api.predicting import evaluate, predict, predict_to_file
from vpt.api.training import tune

__all__ = [
    "PredictOptions",
    "TuneOptions",
    "embed",
    "embed_to_file",
    "evaluate",
    "explain",
    "predict",
    "predict_to_file",
    "tune",
]
