"""A CPU's arithmetic, whatever the number of its threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.project import ROOT


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


PROGRAM = """
import torch
from tests.test_kernels import at_paper_size

found = []
for threads in (1, 2, 4):
    torch.set_num_threads(threads)
    found.append(at_paper_size())
print(all(torch.equal(a, b) for other in found for a, b in zip(found[0], other, strict=True)))
"""
# What docs/cluster.md has for Intel's processors, whose kernels split sums among threads.
INTEL = {"MKL_CBWR": "AVX512,STRICT", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
CPU_INFO = Path("/proc/cpuinfo")
OF_INTEL = CPU_INFO.exists() and "GenuineIntel" in CPU_INFO.read_text()


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="other kernels than MKL's")
@pytest.mark.skipif(
    OF_INTEL and not torch.cpu._is_avx512_bf16_supported(), reason="what docs/cluster.md asks for"
)
def test_a_number_of_threads_changes_no_bit_of_what_a_network_predicts():
    """A worker has as many as `ray.cpus_per_worker`, a process alone all of the machine's."""
    said = subprocess.run(
        (sys.executable, "-c", PROGRAM),
        cwd=ROOT,
        env=os.environ | (INTEL if OF_INTEL else {}),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == "True\n"


def test_the_environment_for_intel_is_that_of_the_docs():
    text = (ROOT / "docs/cluster.md").read_text()
    assert "export " + " ".join(f"{k}={v}" for k, v in INTEL.items()) in text
