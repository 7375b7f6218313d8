"""An epoch of ours, with all that it does, against a plain loop written as tightly as can be, and against peers.

Fashion-MNIST, 55,000 images, AdamW, batches of 128 and 1,024; every epoch is validated on 5,000 images. Ours reads
uint8 images and normalises them in the step, keeps the best weights, watches for NaN and SIGTERM, saves checkpoints
every 30 s and tells its progress; the plain loop has float32 images, normalised beforehand, and does none of this.

    pip install -e '.[benchmarks]' && python -m benchmarks.bench_loop
"""

import argparse
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from basekamp.hyperparameters import Hyperparameters
from basekamp.training.train import train_model
from benchmarks import networks
from benchmarks.fashion_mnist import fashion_mnist
from benchmarks.measure import in_turns, machine, ratios, seconds, summary, table, write

LR = 1e-3
EPOCHS = {"mlp": 10, "cnn": 3}
"""By network: enough that what comes before the first epoch hardly counts."""
NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": networks.mlp, "cnn": networks.cnn}
BATCHES = (128, 1024)
PACKAGES = ("torch", "lightning", "skorch", "transformers", "accelerate", "numpy")


class Rows:
    """Both splits as float32, normalised, in memory; what every loop but ours begins from."""

    def __init__(self, device: torch.device) -> None:
        data = fashion_mnist()
        self.device, mean, std = device, data.schema.pixel_mean[0], data.schema.pixel_std[0]
        self.x, self.y, self.x_validation, self.y_validation = (
            (torch.tensor(np.asarray(values), device=device).float() - mean) / std
            if part == "x"
            else torch.tensor(np.asarray(values), device=device)
            for name in ("train", "validation")
            for part, values in zip(("x", "y"), data.split(name)[:2], strict=True)
        )

    def build(self, network: str) -> nn.Module:
        """The network, channels last where it has convolutions."""
        model = NETWORKS[network]((1, 28, 28), 10).to(self.device)
        return model.to(memory_format=torch.channels_last) if network == "cnn" else model


def plain(rows: Rows, network: str, batch: int) -> None:
    """The limit: resident tensors, one permutation an epoch, a fused optimizer, nothing fetched inside an epoch."""
    model = rows.build(network)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    for _ in range(EPOCHS[network]):
        model.train()
        total = torch.zeros((), device=rows.device)
        for some in torch.randperm(len(rows.x), device=rows.device).split(batch):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(rows.x[some]), rows.y[some])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        float(total)
        accuracy(model, rows)


def accuracy(model: nn.Module, rows: Rows) -> float:
    """The validation that every loop does after an epoch."""
    model.eval()
    with torch.no_grad():
        answers = torch.cat([model(x).argmax(dim=1) for x in rows.x_validation.split(1024)])
    return float((answers == rows.y_validation).float().mean())


def data_loader(rows: Rows, network: str, batch: int) -> None:
    """What most tutorials write: a DataLoader over a TensorDataset."""
    from torch.utils.data import DataLoader, TensorDataset

    model = rows.build(network)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    loader = DataLoader(TensorDataset(rows.x, rows.y), batch_size=batch, shuffle=True)
    for _ in range(EPOCHS[network]):
        model.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
        accuracy(model, rows)


def lightning(rows: Rows, network: str, batch: int) -> None:
    """PyTorch Lightning, without logger, bar and checkpoints."""
    from lightning.pytorch import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = rows.build(network)

        def training_step(self, pair: tuple[Tensor, Tensor], _: int) -> Tensor:
            return functional.cross_entropy(self.model(pair[0]), pair[1])

        def validation_step(self, pair: tuple[Tensor, Tensor], _: int) -> None:
            self.log("accuracy", (self.model(pair[0]).argmax(dim=1) == pair[1]).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=LR, fused=True)

    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            max_epochs=EPOCHS[network],
            accelerator="gpu" if rows.device.type == "cuda" else "cpu",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        ).fit(
            Module(),
            DataLoader(TensorDataset(rows.x, rows.y), batch_size=batch, shuffle=True),
            DataLoader(TensorDataset(rows.x_validation, rows.y_validation), batch_size=1024),
        )


def skorch(rows: Rows, network: str, batch: int) -> None:
    """Skorch's NeuralNetClassifier, with its validation accuracy."""
    from skorch import NeuralNetClassifier
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split

    NeuralNetClassifier(
        rows.build(network),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__fused=True,
        lr=LR,
        max_epochs=EPOCHS[network],
        batch_size=batch,
        iterator_train__shuffle=True,
        train_split=predefined_split(Dataset(rows.x_validation, rows.y_validation)),
        device=str(rows.device),
        verbose=0,
    ).fit(rows.x, rows.y)


def hf_trainer(rows: Rows, network: str, batch: int) -> None:
    """The Trainer of transformers, without logging and checkpoints."""
    from torch.utils.data import Dataset
    from transformers import Trainer, TrainingArguments

    class Pairs(Dataset[dict[str, Tensor]]):
        def __init__(self, x: Tensor, y: Tensor) -> None:
            self.x, self.y = x, y

        def __len__(self) -> int:
            return len(self.x)

        def __getitem__(self, i: int) -> dict[str, Tensor]:
            return {"x": self.x[i], "labels": self.y[i]}

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = rows.build(network)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.model(x)
            return {"loss": functional.cross_entropy(logits, labels), "logits": logits}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=EPOCHS[network],
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=1024,
            learning_rate=LR,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=rows.device.type == "cpu",
        )
        evaluation = Pairs(rows.x_validation, rows.y_validation)
        Trainer(Wrapped(), arguments, train_dataset=Pairs(rows.x, rows.y), eval_dataset=evaluation).train()


def ours(network: str, batch: int, *, gpus: str) -> None:
    """The whole of `train_model`: what `train-model` runs, the writing of the model file included."""
    settings = Hyperparameters(
        model=f"benchmarks.networks:{network}",
        n_epochs=EPOCHS[network],
        batch_size=batch,
        lr=LR,
        schedule="constant",
        patience=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        train_model(fashion_mnist().directory, Path(folder), settings, metric="accuracy", seeds=1, gpus=gpus)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gpus", default="0")
    arguments = parser.parse_args()
    _be_quiet()
    rows = Rows(torch.device("cuda" if arguments.gpus != "0" else "cpu"))
    results: dict[str, Any] = {"machine": machine(*PACKAGES), "epochs": EPOCHS, "seconds": {}, "to_plain": {}}
    lines = [["network", "batch", *("plain loop", "ours", "DataLoader", "Lightning", "skorch", "HF Trainer")]]
    for network in NETWORKS:
        for batch in BATCHES:
            print(f"{network}, batch {batch}", flush=True)
            peers = {"DataLoader": data_loader, "Lightning": lightning, "skorch": skorch, "HF Trainer": hf_trainer}
            loops = {
                "plain": lambda n=network, b=batch: plain(rows, n, b),
                "ours": lambda n=network, b=batch: ours(n, b, gpus=arguments.gpus),
                **{name: lambda p=peer, n=network, b=batch: p(rows, n, b) for name, peer in peers.items()},
            }
            candidates = {name: partial(_epoch_seconds, loop, network) for name, loop in loops.items()}
            measured = in_turns(candidates, repeats=arguments.repeats)
            key = f"{network}, batch {batch}"
            results["seconds"][key] = {name: summary(values) for name, values in measured.items()}
            results["to_plain"][key] = told = ratios(measured, to="plain")
            plain_seconds = results["seconds"][key]["plain"]["median"]
            others = [f"{told[name]['median']:.2f} ×" for name in candidates if name != "plain"]
            lines.append([network, str(batch), f"{plain_seconds:.2f} s", *others])
    print(table(lines))
    write("bench_loop" if arguments.gpus == "0" else "bench_loop_gpu", results)


def _epoch_seconds(loop: Callable[[], None], network: str) -> float:
    """How long a loop takes for an epoch, all that it does before and after included; what it prints is left out."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return seconds(loop) / EPOCHS[network]


def _be_quiet() -> None:
    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "transformers", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


if __name__ == "__main__":
    main()
