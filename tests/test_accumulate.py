"""A batch that goes through the network in parts, and a measurement that workers share."""

from contextlib import contextmanager

import pytest
import torch

from pipeline.autoregressive import AutoregressiveTransformer, token_nll
from pipeline.data.ranks import ALONE, Ranks, sum_in_order
from pipeline.masking import masked_nll
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.transformer import TransformerTask
from pipeline.transformer import MaskGitTransformer
from tests.tiny_networks import inputs, spread
from tests.transformer_task import CLASSES

CPU = torch.device("cpu")


@pytest.mark.parametrize("parts", [2, 4, 8])
@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (TransformerTask, {}),
        (TransformerTask, {"loss_on": "all"}),
        (AutoregressiveTask, {}),
    ],
)
def test_its_loss_and_gradient_are_those_of_the_whole(tiny, tokens_dir, task, changes, parts):
    """To 1e-6, with the dropout that draws for each part off."""

    def step(accumulate: int):
        params = tiny(accumulate=accumulate, grad_clip=None, **changes)
        trained = task(params, tokens_dir, CLASSES, seed=3, device=CPU)
        loss = trained.step(0)["loss"]
        return [loss, *(p.grad for p in trained.model.parameters())]

    for mine, wanted in zip(step(parts), step(1), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-6)


def test_workers_exchange_gradients_with_the_last_part_alone(tiny, tokens_dir):
    alone = []

    class Parallel(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.inside = module, False

        @contextmanager
        def no_sync(self):
            self.inside = True
            yield
            self.inside = False

        def forward(self, *args):
            alone.append(self.inside)
            return self.module(*args)

    params = tiny(accumulate=4)
    task = TransformerTask(params, tokens_dir, CLASSES, seed=3, device=CPU, wrap=Parallel)
    task.step(0)
    assert alone == [True, True, True, False]


@pytest.mark.parametrize("workers", [2, 3, 7])
@pytest.mark.parametrize(
    ("network", "measure", "options"),
    [
        (MaskGitTransformer, masked_nll, {"schedule": "cosine", "seed": 1}),
        (AutoregressiveTransformer, token_nll, {}),
    ],
)
def test_a_likelihood_that_workers_share_is_that_of_one_to_the_last_bit(
    network, measure, options, workers
):
    tokens, _, labels = inputs(size=29)
    model, parts = spread(network), []

    class Unconnected(Ranks):
        def total(self, values):
            parts.append(values)
            return values

    def likelihood(ranks: Ranks) -> float:
        return measure(model, tokens, labels, batch_size=5, ranks=ranks, **options)

    for rank in range(workers):
        likelihood(Unconnected(rank, workers))
    assert all((torch.stack(parts) != 0).sum(dim=0) == 1)  # each batch by one worker
    assert sum_in_order(sum(parts)) / len(tokens) == likelihood(ALONE)
