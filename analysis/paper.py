"""The numbers of the paper that ours are set beside (MaskGIT, Chang et al., CVPR 2022)."""

from typing import NamedTuple


class PaperSchedule(NamedTuple):
    """One row of the paper's Table 3; FID and IS use Inception features."""

    iterations: int
    fid: float
    is_: float
    nll: float


# Table 3, "Ablation results on the mask scheduling functions", ImageNet 256×256, in its order.
# Its cosine row has FID 6.06 where Table 1 has 6.18 for the same model; both are kept as printed.
TABLE_3: dict[str, PaperSchedule] = {
    "exponential": PaperSchedule(8, 7.89, 156.3, 4.83),
    "cubic": PaperSchedule(9, 7.26, 165.2, 4.63),
    "square": PaperSchedule(10, 6.35, 179.9, 4.38),
    "cosine": PaperSchedule(10, 6.06, 181.5, 4.22),
    "linear": PaperSchedule(16, 7.51, 113.2, 3.75),
    "square_root": PaperSchedule(32, 12.33, 99.0, 3.34),
    "logarithmic": PaperSchedule(60, 29.17, 47.9, 3.08),
}
BEST_SCHEDULE = "cosine"  # by FID and by IS

# What the paper measured, by the kind of metric. Its FID and IS are over Inception features.
LABELS: dict[str, str] = {
    "fid": "FID (paper, Inception)",
    "is": "IS (paper, Inception)",
    "nll": "NLL (paper)",
    "precision": "precision (paper, VGG)",
    "recall": "recall (paper, VGG)",
    "cas_top1": "CAS top-1 (paper, ResNet-50)",
    "cas_top5": "CAS top-5 (paper, ResNet-50)",
    "cas_real_top1": "CAS top-1 of real data (paper, ResNet-50)",
    "cas_real_top5": "CAS top-5 of real data (paper, ResNet-50)",
}

# Table 1, MaskGIT on class-conditional ImageNet 256×256. CAS is printed there in percent (63.14,
# 84.45; real training data 76.6, 93.1); here every accuracy is a fraction.
TABLE_1: dict[str, float] = {
    "fid": 6.18,
    "is": 182.1,
    "precision": 0.80,
    "recall": 0.51,
    "cas_top1": 0.6314,
    "cas_top5": 0.8445,
    "cas_real_top1": 0.766,
    "cas_real_top5": 0.931,
}
