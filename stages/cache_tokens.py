"""Encodes every image into token grids with the tokenizer, and writes the token cache."""

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, TOKENS
from pipeline.data.images.shards import ImageShards
from pipeline.data.tokens import TokenCache
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import publish_folder, write_json
from pipeline.runtime.stage import Stage
from pipeline.training.tokens import cache_tokens, cached_code_usage


def main(params: Params) -> str:
    workers = workers_of(params.ray)
    with Stage("cache_tokens", params) as stage:
        folder = stage.folder() / "tokens"
        crops = {"train": params.tokens.crops_per_image, "val": 0}
        shards = {
            split: cache_tokens(split, number, params, folder, workers)
            for split, number in crops.items()
        }
        classes = len(ImageShards(IMAGES, "val").class_names)
        write_json(folder / "manifest.json", {"classes": classes, "shards": shards})

        train, val = TokenCache(folder, "train"), TokenCache(folder, "val")
        usage, perplexity = cached_code_usage(train, params.tokenizer.codebook_size)
        metrics = {"train_grids": len(train) * train.views, "val_grids": len(val)}
        metrics |= {"code_usage": usage, "code_perplexity": perplexity}
        stage.run.log_group("tokens", metrics)
        # Last: if the stage failed afterwards, DVC would delete the published outputs.
        publish_folder(folder, TOKENS)
    return f"cache_tokens: {metrics['train_grids']} training grids in {TOKENS}"
