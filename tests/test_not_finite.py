"""NaN is refused where it would be published, decoded or shown."""

import pytest
import torch

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.data.images.pixels import as_uint8
from pipeline.decoding import DecodingSettings, decode, generate
from pipeline.runtime.errors import UserError
from pipeline.tokenizer import Tokenizer, tokens_to_images
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model, save_model
from tests.errors import one_line
from tests.pretrained_files import PUBLISHED, TOKENIZER
from tests.tiny_networks import seeded

SETTINGS = DecodingSettings(iterations=3, schedule="cosine", choice_temperature=4.5)


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


@pytest.mark.parametrize("network", [MaskGitTransformer, AutoregressiveTransformer])
@pytest.mark.parametrize("name", ["vocabulary_bias", "blocks.0.mlp_in.weight"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_no_sample(network, value, name):
    labels = torch.tensor([0, 1])

    def draw(model):
        if network is MaskGitTransformer:
            return generate(model, labels, SETTINGS, seed=0)
        return generate_autoregressive(model, labels, seed=0)

    draw(network(PUBLISHED).eval())
    with pytest.raises(UserError, match=r"NaN or infinite.*train it again") as error:
        draw(broken(network(PUBLISHED), name, value))
    one_line(error)


@pytest.mark.parametrize("bad_step", range(3))
def test_one_bad_step_is_enough(bad_step):
    calls = []

    def predict(tokens, mask):
        calls.append(mask)
        logits = torch.zeros(2, 9, 5)
        if len(calls) == bad_step + 1:
            where = mask[1].nonzero()[0, 0]
            logits[1, where, 2] = torch.nan
        return logits

    tokens, unknown = torch.zeros(2, 9, dtype=torch.long), torch.ones(2, 9, dtype=torch.bool)
    with pytest.raises(UserError, match="NaN or infinite"):
        decode(predict, tokens, unknown, SETTINGS, seeded(0))


def test_logits_of_tokens_that_are_known_do_not_matter():
    """Nothing is drawn from them; a caller may leave them as they are."""

    def predict(tokens, mask):
        return torch.zeros(1, 9, 5).masked_fill(~mask[..., None], torch.nan)

    tokens = torch.arange(9)[None]
    unknown = torch.arange(9)[None] > 4
    steps = decode(predict, tokens, unknown, SETTINGS, seeded(0))
    assert steps[-1].sampled[0, :5].tolist() == list(range(5))


def test_pixels_that_are_nan_are_no_picture():
    with pytest.raises(UserError, match=r"pixels are NaN.*tokenizer") as error:
        as_uint8(torch.tensor([[0.5, torch.nan]]))
    one_line(error)
    assert as_uint8(torch.tensor([0.0, 1.0, 7.0, -1.0])).tolist() == [0, 255, 255, 0]
    bad = broken(Tokenizer(TOKENIZER), "decoder.out.weight", torch.nan)
    with pytest.raises(UserError, match="pixels are NaN"):
        tokens_to_images(bad, torch.zeros(1, 4, dtype=torch.long))
