"""The paper's numbers, to compare with ours (MaskGIT, Chang et al., CVPR 2022).

Every row of the paper's tables is here. The paper prints accuracies in percent; here every accuracy
is a fraction. NaN marks values that the paper does not give ("n/a", or an empty cell).
"""

import math
from typing import NamedTuple


class Model(NamedTuple):
    """One row of Table 1: FID and IS use Inception features, precision and recall VGG features."""

    fid: float
    is_: float
    precision: float
    recall: float
    parameters: float
    steps: int
    cas_top1: float = math.nan
    cas_top5: float = math.nan


# Table 1, class-conditional ImageNet, by image side. VQGAN is the published
# model, VQGAN∗ the paper's own baseline: MaskGIT's tokenizer and hyperparameters, autoregressive.
TABLE_1: dict[int, dict[str, Model]] = {
    256: {
        "MaskGIT": Model(6.18, 182.1, 0.80, 0.51, 227e6, 8, 0.6314, 0.8445),
        "VQGAN∗": Model(18.65, 80.4, 0.78, 0.26, 227e6, 256, 0.5310, 0.7618),
        "DCTransformer": Model(36.51, math.nan, 0.36, 0.67, 738e6, 1024),
        "BigGAN-deep": Model(6.95, 198.2, 0.87, 0.28, 160e6, 1, 0.4399, 0.6789),
        "Improved DDPM": Model(12.26, math.nan, 0.70, 0.62, 280e6, 250),
        "ADM": Model(10.94, 101.0, 0.69, 0.63, 554e6, 250),
        "VQVAE-2": Model(31.11, 45, 0.36, 0.57, 13.5e9, 5120, 0.5483, 0.7759),
        "VQGAN": Model(15.78, 78.3, math.nan, math.nan, 1.4e9, 256),
    },
    512: {
        "MaskGIT": Model(7.32, 156.0, 0.78, 0.50, 227e6, 12, 0.6343, 0.8479),
        "VQGAN∗": Model(26.52, 66.8, 0.73, 0.31, 227e6, 1024, 0.5129, 0.7424),
        "BigGAN-deep": Model(8.43, 232.5, 0.88, 0.29, 160e6, 1, 0.4402, 0.6822),
        "ADM": Model(23.24, 58.06, 0.73, 0.60, 559e6, 250),
    },
}

TABLE_1_REAL = (0.766, 0.931)  # CAS of classifiers that were trained on real images: top-1, top-5


class Score(NamedTuple):
    """FID and IS, measured with Inception features."""

    fid: float
    is_: float


# Table 2, at 512×512 (MaskGIT, HiFill, CoModGAN) or the other models' sizes. Inpainting: validation
# images of Places2; outpainting: images from the authors of InfinityGAN and In&Out.
TABLE_2: dict[str, dict[str, Score]] = {
    "inpaint_center": {
        "MaskGIT": Score(7.92, 22.95),
        "CoModGAN": Score(7.13, 21.82),
        "DeepFill": Score(11.51, 22.55),
        "ICT": Score(13.63, 17.70),
        "HiFill": Score(16.60, 19.93),
    },
    "outpaint_right": {
        "MaskGIT": Score(6.78, 11.69),
        "Boundless (TF)": Score(7.80, 5.99),
        "InfinityGAN": Score(10.60, 5.57),
        "In&Out": Score(23.57, 7.18),
        "Boundless": Score(35.02, 6.15),
    },
}


class Schedule(NamedTuple):
    """One row of Table 3; FID and IS use Inception features."""

    iterations: int
    fid: float
    is_: float
    nll: float


# Table 3, "Ablation results on the mask scheduling functions", ImageNet 256×256, in its order. The
# cosine row has FID 6.06, Table 1 has 6.18 for the same model; both values are as printed.
TABLE_3: dict[str, Schedule] = {
    "exponential": Schedule(8, 7.89, 156.3, 4.83),
    "cubic": Schedule(9, 7.26, 165.2, 4.63),
    "square": Schedule(10, 6.35, 179.9, 4.38),
    "cosine": Schedule(10, 6.06, 181.5, 4.22),
    "linear": Schedule(16, 7.51, 113.2, 3.75),
    "square_root": Schedule(32, 12.33, 99.0, 3.34),
    "logarithmic": Schedule(60, 29.17, 47.9, 3.08),
}
BEST_SCHEDULE = "cosine"  # by FID and by IS

# Table 4, ImageNet, by image side: classifier-based rejection sampling at `ACCEPTANCE`; ADM uses
# classifier guidance (1.0) instead of rejection.
ACCEPTANCE = 0.05
TABLE_4: dict[int, dict[str, Score]] = {
    256: {"MaskGIT": Score(4.02, 355.6), "VQGAN": Score(5.88, 304.8), "ADM": Score(4.59, 186.70)},
    512: {"MaskGIT": Score(4.46, 342.0), "ADM": Score(7.72, 172.71)},
}


class Diversity(NamedTuple):
    """One row of Table 5: precision, recall (Inception features) and CAS without RandAugment."""

    precision: float
    recall: float
    cas_top1: float
    cas_top5: float


# Table 5, ImageNet 256×256.
TABLE_5: dict[str, Diversity] = {
    "MaskGIT": Diversity(0.78, 0.50, 0.5820, 0.7965),
    "VQGAN∗": Diversity(0.61, 0.47, 0.4750, 0.6890),
    "BigGAN-deep": Diversity(0.82, 0.27, 0.4265, 0.6592),
}
TABLE_5_REAL = (0.731, 0.915)

MAX_SPEEDUP = 64  # over autoregressive decoding (abstract, Figure 4)
KNEE = 0.9  # mask ratio up to which reconstructions stay close to the original (appendix A)
CHOICE_TEMPERATURE = 4.5  # in the released code; the paper gives no value

# Headings of the paper's columns. The paper's FID and IS are over Inception features.
FID, IS, NLL = "FID (paper, Inception)", "IS (paper, Inception)", "NLL (paper)"


def side(image_size: int) -> int:
    """Which of the paper's image sides, 256 or 512, to compare with images of side `image_size`."""
    return 512 if image_size >= 512 else 256
