"""What the cards we know can reach: the peaks of NVIDIA's data sheets, by the exact name that CUDA gives.

A card that is not in the table has no peak: never another's. TFLOP/s, dense (half of what a data sheet gives "with
sparsity"), at the boost clock. bf16 and fp16 multiply on tensor cores and add up in fp32, as PyTorch does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


@dataclass(frozen=True)
class Peaks:
    """TFLOP/s in each precision; None where the card has no units for it."""

    fp32: float
    tf32: float | None
    bf16: float | None
    fp16: float


# Source: NVIDIA Tesla V100 GPU Accelerator, data sheet, 2020.
_V100_SXM2 = Peaks(fp32=15.7, tf32=None, bf16=None, fp16=125.0)
_V100_PCIE = Peaks(fp32=14.0, tf32=None, bf16=None, fp16=112.0)
# Source: NVIDIA T4 70W low profile PCIe GPU accelerator, data sheet, 2019.
_T4 = Peaks(fp32=8.1, tf32=None, bf16=None, fp16=65.0)
# Source: NVIDIA A100 Tensor Core GPU, data sheet, 2021; all four forms alike.
_A100 = Peaks(fp32=19.5, tf32=156.0, bf16=312.0, fp16=312.0)
# Source: NVIDIA A10 Tensor Core GPU, data sheet, 2021.
_A10 = Peaks(fp32=31.2, tf32=62.5, bf16=125.0, fp16=125.0)
# Source: NVIDIA Ampere GA102 GPU Architecture, white paper, appendix A, 2021.
_RTX_3090 = Peaks(fp32=35.6, tf32=35.6, bf16=71.0, fp16=71.0)
# Source: NVIDIA Ada GPU Architecture, white paper, appendix A, 2023.
_RTX_4090 = Peaks(fp32=82.6, tf32=82.6, bf16=165.2, fp16=165.2)
# Source: NVIDIA L4 Tensor Core GPU, data sheet, 2023; its tensor peaks are given with sparsity alone.
_L4 = Peaks(fp32=30.3, tf32=60.0, bf16=121.0, fp16=121.0)
# Source: NVIDIA L40S, data sheet, 2023.
_L40S = Peaks(fp32=91.6, tf32=183.0, bf16=362.05, fp16=362.05)
# Source: NVIDIA H100 Tensor Core GPU, data sheet, 2023 (PCIe) and 2024; NVIDIA H200 Tensor Core GPU, data sheet, 2024.
_H100_SXM = Peaks(fp32=67.0, tf32=494.5, bf16=989.5, fp16=989.5)
_H100_PCIE = Peaks(fp32=51.0, tf32=378.0, bf16=756.5, fp16=756.5)
_HOPPER_NVL = Peaks(fp32=60.0, tf32=417.5, bf16=835.5, fp16=835.5)

KNOWN = {
    "Tesla V100-SXM2-16GB": _V100_SXM2,
    "Tesla V100-SXM2-32GB": _V100_SXM2,
    "Tesla V100-PCIE-16GB": _V100_PCIE,
    "Tesla V100-PCIE-32GB": _V100_PCIE,
    "Tesla T4": _T4,
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA A10": _A10,
    "NVIDIA GeForce RTX 3090": _RTX_3090,
    "NVIDIA GeForce RTX 4090": _RTX_4090,
    "NVIDIA L4": _L4,
    "NVIDIA L40S": _L40S,
    "NVIDIA H100 80GB HBM3": _H100_SXM,
    "NVIDIA H100 PCIe": _H100_PCIE,
    "NVIDIA H100 NVL": _HOPPER_NVL,
    "NVIDIA H200": _H100_SXM,
    "NVIDIA H200 NVL": _HOPPER_NVL,
}


def card_names(device: torch.device) -> tuple[str, ...]:
    """What CUDA calls this process's card; none on the CPU."""
    return (torch.cuda.get_device_name(device),) if device.type == "cuda" else ()


def peak_flops(cards: Sequence[str], precision: Precision) -> float | None:
    """FLOP/s that these cards reach together at best; None where one is not known, or cannot compute so."""
    peaks: list[float | None] = [getattr(KNOWN.get(card), precision, None) for card in cards]
    known = [1e12 * peak for peak in peaks if peak is not None]
    return sum(known) if cards and len(known) == len(cards) else None


def precision_of(network: nn.Module, cards: Sequence[str], *, is_mixed: bool) -> Precision:
    """The fastest arithmetic that PyTorch uses for a network: what its speed is to be measured against.

    bf16 in mixed precision; else tf32 where cards have it and PyTorch may use it, by default for convolutions alone.
    """
    if is_mixed:
        return "bf16"
    convolves = any(isinstance(module, _ConvNd) for module in network.modules())
    # cuDNN's and cuBLAS's settings; reading the older `allow_tf32` may raise where a newer name was set.
    allowed = [torch.backends.cuda.matmul.fp32_precision]
    allowed += [torch.backends.cudnn.conv.fp32_precision] if convolves else []  # type: ignore[attr-defined]
    return "tf32" if "tf32" in allowed and peak_flops(cards, "tf32") else "fp32"
