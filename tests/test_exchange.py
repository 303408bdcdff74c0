"""Gradients that are sent while `backward` goes on, as on GPUs; here on CPUs, by gloo."""

import copy
import gc
import pickle
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.runtime.exchange import Exchange
from pipeline.runtime.ranks import Ranks
from tests.several_ranks import with_ranks
from tests.test_pretended_training import Twins
from tests.test_ranks import TASKS, flat, spiking, trained

LAYERS = 4


@pytest.fixture
def tiny_buckets(monkeypatch):
    """Of a layer's weight of 3 × 3 numbers and its bias."""
    monkeypatch.setattr("pipeline.runtime.exchange.BUCKET", 48)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(3, 3) for _ in range(LAYERS)))


def test_a_layers_gradients_are_sent_before_the_next_layers_are_computed(tiny_buckets):
    network, sent = layers(), []

    def start(values):
        there = [number for number, layer in enumerate(network) if layer.weight.grad is not None]
        sent.append((there[0], values.tolist()))
        return SimpleNamespace(wait=lambda: None)

    exchange = Exchange(network.parameters(), start)
    for _ in range(3):
        sent.clear()
        network.zero_grad()
        network(torch.ones(2, 3)).sum().backward()
        own = [torch.cat([layer.bias.grad, layer.weight.grad.flatten()]) for layer in network]
        assert sent == [(number, own[number].tolist()) for number in reversed(range(LAYERS))]
        exchange.average(network.parameters(), workers=1)
        assert len(sent) == LAYERS


class Parts(nn.Module):
    """A network whose middle is not always used, in front of a layer in bfloat16."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = layers()[:3]
        self.last.bfloat16()
        self.never = nn.Parameter(torch.zeros(3))

    def forward(self, x, middle: bool = True):
        x = self.first(x).tanh()
        return self.last((self.middle(x) if middle else x).bfloat16()).float().pow(2).mean()


def without_the_middle(network, x):
    network(x, middle=False).backward()


def twice(network, x):
    for part in x.split(2):
        network(part).backward()


def half_twice(network, x):
    without_the_middle(network, 2 * x)
    network(x).backward()


def dropped(network, x):
    network(2 * x).backward()
    network.zero_grad()
    network(x).backward()


def dropped_in_part(network, x):
    network(2 * x).backward()
    network.zero_grad()
    without_the_middle(network, x)


def zeroed(network, x):
    network(2 * x).backward()
    network.zero_grad(set_to_none=False)
    without_the_middle(network, x)


def clipped(network, x):
    network(x).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1e-3)


def differentiated(network, x):
    """As for an adaptive weight and R1: gradients that no parameter gets."""
    x.requires_grad_()
    loss = network(x)
    torch.autograd.grad(loss, network.last.weight, retain_graph=True)
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    (loss + gradient.pow(2).sum()).backward()


def thawed(network, x):
    """A parameter that no step before had a gradient for."""
    (network(x) + (network.never * x).mean()).backward()


def frozen(network, x):
    network.requires_grad_(False)
    later = network(x.requires_grad_())
    network.requires_grad_(True)
    network(x).backward()
    later.backward()


def in_another_order(network, x):
    """On each worker."""
    parts = [lambda: network(x), lambda: (network.never * x).mean()]
    first, second = reversed(parts) if torch.distributed.get_rank() else parts
    (first() + second()).backward()


def usual(network, x):
    network(x).backward()


BACKWARDS = [usual, usual, without_the_middle, twice, half_twice, dropped, dropped_in_part, zeroed]
BACKWARDS += [clipped, differentiated, usual, thawed, frozen, usual]
OTHERS = [thawed, in_another_order, without_the_middle, in_another_order]


def differing(buckets: int, backwards: list, ranks: Ranks) -> list[str]:
    """After which ways to call `backward` gradients are not the bits that one message gives."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.runtime.exchange.BUCKET", buckets)
        plain, network = Parts(), Parts()
        for step, backward in enumerate(backwards):
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(10 * step + ranks.rank))
            for model, afterwards in ((plain, ("cpu",)), (network, ())):
                patch.setattr("pipeline.runtime.ranks.AFTERWARDS", afterwards)
                model.zero_grad()
                backward(model, x.clone())
                own = [p.grad.clone() for p in model.parameters() if p.grad is not None]
                ranks.average_gradients(model)
            gradients = [[p.grad for p in model.parameters()] for model in (plain, network)]
            assert not all(map(torch.equal, own, [g for g in gradients[0] if g is not None]))
            if not all(a is b or torch.equal(a, b) for a, b in zip(*gradients, strict=True)):
                found.append(f"{step}: {backward.__name__}")
    return found


@pytest.mark.parametrize("backwards", [BACKWARDS, OTHERS])
@pytest.mark.parametrize("buckets", [1, 48, 1 << 20])
def test_gradients_are_those_of_one_message(buckets, backwards, tmp_path):
    """To the bit, as a sum of two has no order."""
    function = partial(differing, buckets, backwards)
    assert with_ranks(function, tmp_path / "ranks") == [[], []]


def both_ways(train, ranks: Ranks) -> list[dict]:
    """`train` with gradients in one message, and in small buckets; everything goes by gloo."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.runtime.ranks.open_board", lambda rank, workers: None)
        patch.setattr("pipeline.runtime.exchange.BUCKET", 1 << 10)
        for afterwards in (("cpu",), ()):
            patch.setattr("pipeline.runtime.ranks.AFTERWARDS", afterwards)
            found.append(flat(train(ranks)))
    return found


TRAININGS = {
    "tokenizer": partial(trained, TASKS["stylegan, adaptive"], 4),
    # One step is left out; the second worker's graph then has a node more than the first's.
    "classifier": spiking,
}


@pytest.mark.parametrize("name", TRAININGS)
def test_trainings_end_with_the_bits_of_one_message(name, tmp_path):
    for one, buckets in with_ranks(partial(both_ways, TRAININGS[name]), tmp_path / "ranks"):
        assert one.keys() == buckets.keys()
        assert all(torch.equal(one[key], buckets[key]) for key in one)


class Counting(Twins):
    """Notes how many messages there have been before and after each average of gradients."""

    def __init__(self):
        super().__init__(0, 2)
        self.__dict__.update(started=0, noted=[])

    def start_total(self, values):
        self.__dict__["started"] += 1
        return super().start_total(values)

    def average_gradients(self, module):
        before = self.started
        super().average_gradients(module)
        self.noted.append((module, before, self.started))


@pytest.mark.parametrize("name", TASKS)
def test_a_trainings_backward_sends_everything_once(name, monkeypatch):
    """But for the first of each network, which sends everything after it."""
    monkeypatch.setattr("pipeline.runtime.ranks.AFTERWARDS", ())
    monkeypatch.setattr("pipeline.runtime.exchange.BUCKET", 1 << 10)
    ranks, messages, done = Counting(), {}, 0
    task = TASKS[name](ranks)
    for step in range(4):
        task.step(step)
    for module, before, after in ranks.noted:
        if module in messages:
            assert before == after == done + messages[module]
        else:
            assert before == done
            messages[module] = after - before
        done = after
    assert len(ranks.noted) == (4 if name == "classifier" else 7)
    assert min(messages.values()) >= 3


def test_an_exchange_stays_with_its_network():
    """No copy, pickle or checkpoint has its hooks, and both are collected."""
    network, ranks = layers(), Counting()
    network(torch.ones(2, 3)).sum().backward()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.runtime.ranks.AFTERWARDS", ())
        ranks.average_gradients(network)
        started = ranks.started
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            other(torch.ones(2, 3)).sum().backward()
            assert ranks.started == started
        assert network.state_dict().keys() == layers().state_dict().keys()
        network(torch.ones(2, 3)).sum().backward()
        assert ranks.started > started
    ranks.noted.clear()
    weight = weakref.ref(network[0].weight)
    del network
    gc.collect()
    assert weight() is None
