"""The code of a registered model ("model from code"): MLflow runs this file when it loads or serves
the model, whose files are safetensors and JSON.

    rows      class: its name, or its number as text
    params    seed, and how it decodes: iterations, schedule, temperature
    answer    a row for each: class, and png, the picture's file in base64
"""

import base64
import io
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from pipeline.api.model import MaskGIT
from pipeline.runtime.errors import UserError

WEIGHTS = "weights"  # the artifact: a folder that `save_pretrained` wrote


class Sampler(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        self.model = MaskGIT.from_pretrained(context.artifacts[WEIGHTS])

    # Without a type of the rows, which MLflow would take for the signature.
    def predict(self, context, model_input, params: dict[str, Any] | None = None) -> pd.DataFrame:
        classes = [str(name) for name in pd.DataFrame(model_input)["class"]]
        try:
            images = self.model.sample(classes, **(params or {}))
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        pictures = [_base64(picture) for picture in self.model.to_pil(images)]
        return pd.DataFrame({"class": classes, "png": pictures})


def _base64(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


set_model(Sampler())
