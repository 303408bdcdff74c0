"""Values that are derived from params, compared with literal numbers. No stage depends on this
code in dvc.yaml, so a change of it must fail here."""

from pathlib import Path

from pipeline.classifier import ClassifierConfig
from pipeline.config.replicates import label_smoothing, main_replicates, replicates
from pipeline.decoding.settings import DecodingSettings
from pipeline.tokenizer import TokenizerConfig
from pipeline.transformer import TransformerConfig
from pipeline.weights.configs import classifier_config, tokenizer_config, transformer_config


def test_grid_and_tokens_of_an_image(make_params):
    params = make_params(data={"image_size": 96}, tokenizer={"multipliers": [1, 1, 2, 4]})
    assert (params.tokenizer.downsampling, params.grid, params.num_tokens) == (8, 12, 144)


def test_settings_of_decoding(make_params):
    temperature = {"iterations": 49, "choice_temperature": 2.5, "guidance_scale": 0.5}
    params = make_params(
        decoding=temperature | {"bf16": True, "rounding": "ceil"},
        training={"mask_schedule": "square", "label_drop": 0.1},
        autoregressive={"bf16": False},
    )
    assert params.decoding_settings() == DecodingSettings(49, "square", 2.5, 0.5, True, "ceil")
    few = params.decoding_settings(iterations=3)
    assert few == DecodingSettings(3, "square", 2.5, 0.5, True, "ceil")
    baseline = params.decoding_settings(autoregressive=True)
    assert baseline == DecodingSettings(49, "square", 2.5, 0.5, False, "ceil")


def test_classifiers_have_crops_of_their_own(make_params):
    params = make_params(
        data={"crop_scale": [0.9, 1.0], "flip": True}, classifier={"crop_scale": [0.08, 0.5]}
    )
    assert params.classifier_images.crop_scale == [0.08, 0.5]
    assert params.stored_side == 198  # 2 × 28/√0.08
    same = params.classifier_images.model_copy(update={"crop_scale": params.data.crop_scale})
    assert same == params.data


def test_configurations_of_networks(make_params):
    codes = {"embedding_dim": 40, "codebook_size": 300}
    params = make_params(
        data={"image_size": 32, "channels": 3},
        classifier={"width": 24},
        tokenizer={"filters": 64, "multipliers": [1, 2, 4], "res_blocks": 2} | codes,
        transformer={"layers": 5, "hidden": 120, "heads": 4, "mlp": 250, "dropout": 0.2},
    )
    assert classifier_config(params, 7) == ClassifierConfig("small", 3, 7, 24)
    assert tokenizer_config(params) == TokenizerConfig(3, 64, (1, 2, 4), 2, 40, 300)
    assert transformer_config(params, 7) == TransformerConfig(64, 300, 7, 5, 120, 4, 250, 0.2)


def test_replicates_and_where_their_models_and_samples_lie(make_params):
    params = make_params(
        evaluation={"seeds": [4, 2]},
        training={"label_smoothing": 0.1, "other_label_smoothings": [0.0, 0.25]},
    )
    for network in ("transformer", "autoregressive"):
        every = replicates(params, network)
        names = [
            f"{of}/seed{s}" for of in ("main", "smoothing_0.0", "smoothing_0.25") for s in (4, 2)
        ]
        assert [r.name for r in every] == names
        assert [r.folder for r in every] == [Path("models", network, name) for name in names]
        assert [label_smoothing(params, r) for r in every] == [0.1, 0.1, 0.0, 0.0, 0.25, 0.25]
        assert main_replicates(params, network) == every[:2] and all(r.main for r in every[:2])
        assert not any(r.main for r in every[2:])
        assert [r.samples for r in every[:2]] == [
            Path(f"data/samples/{network}/seed{s}") for s in (4, 2)
        ]


def test_released_weights_are_one_model_sampled_with_every_seed(make_params):
    params = make_params(evaluation={"seeds": [4, 2]}, transformer={"pretrained": "weights"})
    released = replicates(params, "transformer")
    assert [r.folder for r in released] == [Path("models/transformer/main/seed4")] * 2
    assert [(r.seed, r.name) for r in released] == [(4, "main/seed4"), (2, "main/seed2")]
    assert len(replicates(params, "autoregressive")) == 4  # which has no grid
