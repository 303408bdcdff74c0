"""What is derived from params, literally: no stage lists this code among what it depends on, so it
must not change in silence."""

from pipeline.classifier import ClassifierConfig
from pipeline.decoding import DecodingSettings
from pipeline.tokenizer import TokenizerConfig
from pipeline.transformer import TransformerConfig
from pipeline.weights.configs import classifier_config, tokenizer_config, transformer_config


def test_grid_and_tokens_of_an_image(make_params):
    params = make_params(data={"image_size": 96}, tokenizer={"multipliers": [1, 1, 2, 4]})
    assert (params.tokenizer.downsampling, params.grid, params.num_tokens) == (8, 12, 144)


def test_settings_of_decoding(make_params):
    params = make_params(
        decoding={"iterations": 9, "choice_temperature": 2.5, "guidance_scale": 0.5, "bf16": True},
        training={"mask_schedule": "square", "label_drop": 0.1},
        autoregressive={"bf16": False},
    )
    assert params.decoding_settings() == DecodingSettings(9, "square", 2.5, 0.5, bf16=True)
    few = params.decoding_settings(iterations=3)
    assert few == DecodingSettings(3, "square", 2.5, 0.5, bf16=True)
    baseline = params.decoding_settings(autoregressive=True)
    assert baseline == DecodingSettings(9, "square", 2.5, 0.5, bf16=False)


def test_configurations_of_networks(make_params):
    params = make_params(
        data={"image_size": 32, "channels": 3},
        classifier={"width": 24},
        tokenizer={
            "filters": 64,
            "multipliers": [1, 2, 4],
            "res_blocks": 2,
            "embedding_dim": 40,
            "codebook_size": 300,
        },
        transformer={"layers": 5, "hidden": 120, "heads": 4, "mlp": 250, "dropout": 0.2},
    )
    assert classifier_config(params, 7) == ClassifierConfig("small", 3, 7, 24)
    assert tokenizer_config(params) == TokenizerConfig(3, 64, (1, 2, 4), 2, 40, 300)
    assert transformer_config(params, 7) == TransformerConfig(64, 300, 7, 5, 120, 4, 250, 0.2)
