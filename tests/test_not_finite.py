"""NaN is refused where it would be published, decoded or shown."""

import pytest
import torch

from pipeline.runtime.errors import UserError
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model, save_model
from tests.errors import one_line
from tests.pretrained_files import PUBLISHED


def broken(network: torch.nn.Module, name: str, value: float) -> torch.nn.Module:
    """The network with the value in place of a tensor's first weight."""
    with torch.no_grad():
        dict(network.named_parameters())[name].flatten()[0] = value
    return network.eval()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_model_is_published_with_finite_weights_only(tmp_path, value):
    good = MaskGitTransformer(PUBLISHED)
    save_model(tmp_path / "model", "transformer", PUBLISHED, good.state_dict())
    before = (tmp_path / "model/model.safetensors").read_bytes()
    bad = broken(good, "blocks.0.mlp_in.weight", value)
    with pytest.raises(UserError, match=r"blocks\.0\.mlp_in\.weight.*not published") as error:
        save_model(tmp_path / "model", "transformer", PUBLISHED, bad.state_dict())
    one_line(error)
    assert (tmp_path / "model/model.safetensors").read_bytes() == before
    load_model(tmp_path / "model", "transformer")
