"""One call for each thing that people do with `vpt`: tune, predict, evaluate, explain, embed.

The commands of the same names call these functions. `import vpt` offers them as `vpt.tune` and so on.
"""

from vpt.api.analyzing import embed, explain
from vpt.api.models import PredictOptions, TuneOptions
from vpt.api.predicting import evaluate, predict
from vpt.api.training import tune

__all__ = ["PredictOptions", "TuneOptions", "embed", "evaluate", "explain", "predict", "tune"]
