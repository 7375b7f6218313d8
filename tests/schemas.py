"""Schemas of data sets that exist nowhere, and rows for them."""

import torch

from basekamp.data.dataset import Cleaning, Schema

COMMON = {"fingerprint": "f", "target": "t", "rows": {}, "floor": {}, "cleaning": Cleaning()}


def image_schema(*shape: int, classes: int = 3) -> Schema:
    channels = shape[0]
    return Schema(
        **COMMON,
        source="images.npz",
        task="classification",
        kind="image",
        classes=tuple(map(str, range(classes))),
        input_shape=shape,
        pixel_mean=(100.0,) * channels,
        pixel_std=(50.0,) * channels,
    )


def table_schema(n_numeric: int, *cardinalities: int, classes: int = 0) -> Schema:
    return Schema(
        **COMMON,
        source="table.csv",
        task="classification" if classes else "regression",
        kind="tabular",
        classes=tuple(map(str, range(classes))),
        input_shape=(n_numeric + len(cardinalities),),
        n_numeric=n_numeric,
        cardinalities=cardinalities,
    )


def table_rows(n: int, n_numeric: int, cardinalities: tuple[int, ...]) -> torch.Tensor:
    codes = [torch.randint(size, (n, 1)).float() for size in cardinalities]
    return torch.cat([torch.randn(n, n_numeric), *codes], dim=1)
