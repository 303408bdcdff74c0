"""A CPU's arithmetic, whatever the number of its threads."""

import pytest
import torch
import torch.nn.functional as F


def at_paper_size() -> list[torch.Tensor]:
    """What the networks' kernels give: of a layer of the transformer, of a block of the tokenizer
    and of an extractor's last layer. (MKL sums products of 5 to 11 rows in float32 otherwise with
    two threads: of extractors in a last batch of so few images, that is.)"""
    draws = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draws)

    found = []
    for rows, inputs, outputs in (
        (1, 768, 3072),
        (257, 3072, 768),
        (514, 768, 2025),
        (64, 2048, 1008),
    ):
        x, weight = noise(rows, inputs), noise(outputs, inputs)
        found += [F.linear(x, weight), F.linear(x.bfloat16(), weight.bfloat16())]
    q = noise(1, 8, 257, 96)
    maps = F.conv2d(noise(2, 128, 32, 32), noise(128, 128, 3, 3), padding=1)
    found += [F.scaled_dot_product_attention(q, q, q), maps, F.group_norm(maps, 32)]
    return [*found, maps.flatten(1).log_softmax(-1)]


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="other kernels than MKL's")
def test_a_number_of_threads_changes_no_bit_of_what_a_network_predicts():
    """A worker has as many as `ray.cpus_per_worker`, a process alone all of the machine's."""
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(at_paper_size())
    torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))
