"""The code of a registered model ("model from code"). MLflow runs this file to load or serve the
model, whose weights are safetensors files.

    input     rows with one column: `class`, a class name or a class number as text
    params    seed, iterations, schedule, temperature
    output    rows with two columns: `class`, and `png`, a PNG file in base64
"""

import base64
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from pipeline.api.model import MaskGIT
from pipeline.data.images.pixels import encode_png
from pipeline.runtime.errors import UserError

WEIGHTS = "weights"  # name of the artifact, a folder that `save_pretrained` wrote


class Sampler(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        self.model = MaskGIT.from_pretrained(context.artifacts[WEIGHTS])

    # `model_input` has no type hint: MLflow would infer the signature from the hint.
    def predict(self, context, model_input, params: dict[str, Any] | None = None) -> pd.DataFrame:
        classes = [str(name) for name in pd.DataFrame(model_input)["class"]]
        try:
            images = self.model.sample(classes, **(params or {}))
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        pictures = [encode_png(picture) for picture in self.model.to_pil(images)]
        encoded = [base64.b64encode(png).decode() for png in pictures]
        return pd.DataFrame({"class": classes, "png": encoded})


set_model(Sampler())
