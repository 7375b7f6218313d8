"""What is measured of a training: seconds, rows, FLOP/s against a known card's peak, and what NVML tells."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
import torch
from torch import nn

from basekamp.data.dataset import load_dataset
from basekamp.models.build import count_flops
from basekamp.training import meter, nvml
from basekamp.training.cards import KNOWN, peak_flops, precision_of
from basekamp.training.course import Member
from basekamp.training.loop import StackLoop
from basekamp.training.meter import Meter
from basekamp.training.nvml import CardReader
from basekamp.training.results import Training
from basekamp.training.saver import Saver
from tests.test_checkpoint import stopping_after
from tests.test_loop import loop_of, settings_of
from tests.trainings import CPU, train

pytestmark = pytest.mark.usefixtures("home")

H100 = "NVIDIA H100 80GB HBM3"
PHASES = ("data", "compute", "validation", "checkpoint")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands still until it is told how many seconds pass."""
    now = [100.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(meter, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return wait


def performance_of(measured: Meter, cards: tuple[str, ...] = (), **how: object):
    return measured.performance(cards, **{"processes": 1, "flops_per_row": 1e12, "precision": "fp32", **how})


def rows_trained(dataset: Path, training: Training) -> int:
    return load_dataset(dataset).schema.rows["train"] * sum(each.n_epochs for each in training.replicates)


def test_phase_within_another_stops_its_clock(clock):
    measured = Meter()
    clock(1)
    with measured.spending("compute"):
        clock(2)
        with measured.spending("checkpoint"):
            clock(4)
        clock(8)
        with measured.spending("data"):
            clock(16)
    with measured.spending("validation"):
        clock(32)
    told = performance_of(measured).seconds
    assert told.model_dump() == {"total": 63, "data": 16, "compute": 10, "validation": 32, "checkpoint": 4}


def test_phase_that_an_error_leaves_has_ended(clock):
    measured = Meter()
    with pytest.raises(ValueError), measured.spending("compute"):
        measured.turn_to("data")
        raise ValueError
    clock(1)
    assert performance_of(measured).seconds.model_dump(include={*PHASES}) == dict.fromkeys(PHASES, 0)


def test_measures_of_two_processes_are_added_up_and_of_peaks_the_higher_is_kept(clock, monkeypatch):
    first, second = Meter(), Meter()
    monkeypatch.setattr(meter, "peak_memory_bytes", lambda _: 700)
    for measured, seconds in ((first, 2), (second, 3)):
        with measured.spending("compute"):
            clock(seconds)
            measured.rows += 10
    state = first.state()
    monkeypatch.setattr(meter, "peak_memory_bytes", lambda _: 500)
    second.load_state(state)
    told = performance_of(second)
    assert (told.seconds.compute, told.samples_per_second, told.memory_peak_bytes) == (5, 4, 700)
    assert told.seconds.total == 5 + 5  # both began at once


def test_seconds_of_a_training_add_up_to_at_most_the_total_and_to_most_of_it(digits, tmp_path):
    train(digits, tmp_path / "first", model="cnn", width=4)  # the first of a process imports much
    told = train(digits, tmp_path / "second", model="cnn", width=16, n_epochs=6).performance.seconds
    parts = [getattr(told, phase) for phase in PHASES]
    assert min(parts[:3]) > 0
    assert 0.5 * told.total < sum(parts) <= told.total + 1e-3
    assert told.compute > told.validation


@pytest.mark.parametrize("settings", [{}, {"model": "mlp", "lr": 0.05, "patience": 1, "n_epochs": 30}])
def test_samples_are_the_rows_of_all_epochs_of_all_seeds_that_still_trained(tables, tmp_path, settings):
    data = tables["classification"]
    training = train(data, tmp_path, seeds=3, batch_size=32, **settings)
    told = training.performance
    assert told.samples_per_second * told.seconds.compute == pytest.approx(rows_trained(data, training), rel=0.02)
    assert told.device == "cpu" and told.processes == 1 and told.memory_peak_bytes > 1e7
    assert told.gpu_utilisation is told.energy_joules is told.peak_share is told.peak_precision is None


def test_model_that_takes_no_step_has_no_rate(tables, tmp_path):
    told = train(tables["classification"], tmp_path, model="majority").performance
    assert told.samples_per_second is told.flops_per_second is None
    assert told.seconds.compute == 0 < told.seconds.validation


def test_boosting_tells_total_rate_and_memory_alone(tables, tmp_path):
    data = tables["classification"]
    training = train(data, tmp_path, seeds=2, model="boosting", n_trees=4)
    told = training.performance.model_dump(exclude_none=True)
    assert told.keys() == {"device", "processes", "seconds", "samples_per_second", "memory_peak_bytes"}
    assert told["seconds"].keys() == {"total"}
    assert told["seconds"]["total"] == pytest.approx(sum(each.seconds for each in training.replicates), abs=0.01)
    rows = rows_trained(data, training)
    assert told["samples_per_second"] * told["seconds"]["total"] == pytest.approx(rows, rel=0.02)


@pytest.mark.parametrize("streams", [False, True])
def test_seconds_of_each_phase_are_those_that_passed_in_it(digits, monkeypatch, clock, streams):
    loop = loop_of(digits, [Member(0, settings_of(n_epochs=2))], streams=streams)
    n_steps = 2 * len(loop.epochs.sizes)
    for place, name, seconds in ((loop.data.feed, "take", 1), (loop.optimizer, "step", 10), (loop, "_judge", 1000)):
        monkeypatch.setattr(place, name, passing(clock, seconds, getattr(place, name)))
    loop.after_step = lambda: clock(0.5)
    loop.run()
    told = loop.meter.seconds
    assert (told["data"], told["compute"]) == (n_steps, 10.5 * n_steps)
    assert told["validation"] == 3 * 1000 + 3 * 0.5  # once more, of the untrained network
    assert told["checkpoint"] == told["other"] == 0


def test_seconds_that_steps_stand_still_for_a_checkpoint_are_its_own(digits, tmp_path, monkeypatch, clock):
    states: list[int] = []
    monkeypatch.setattr(StackLoop, "state", passing(clock, 7, StackLoop.state, states.append))
    told = train(digits, tmp_path, checkpoint_seconds=0.0).performance.seconds
    assert told.checkpoint == 7 * (len(states) - 1) > 0  # the last is taken when all steps are done
    assert told.compute == told.validation == told.data == 0


def passing(clock, seconds: float, act: Callable[..., object], tell: Callable[[int], None] = lambda _: None):
    """The same act, in which that many seconds pass."""

    def acted(*arguments: object, **named: object) -> object:
        clock(seconds)
        tell(1)
        return act(*arguments, **named)

    return acted


@pytest.mark.parametrize("steps", [5, 10])
def test_resumed_training_sums_up_both_processes(tables, tmp_path, monkeypatch, steps):
    data, settings = tables["regression"], {"model": "mlp", "width": 8, "batch_size": 32, "seeds": 2, "metric": "rmse"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Saver, "after_step", stopping_after(steps))
        patch.setattr(StackLoop, "_take", slowly(StackLoop._take))
        train(data, tmp_path, **settings)
    training = train(data, tmp_path, **settings)
    told = training.performance
    assert told.samples_per_second * told.seconds.compute == pytest.approx(rows_trained(data, training), rel=0.02)
    assert told.seconds.compute >= (steps - 2) * 0.05


def slowly(take: Callable[..., None]) -> Callable[..., None]:
    def taken(*arguments: object) -> None:
        time.sleep(0.05)
        take(*arguments)

    return taken


def test_training_of_an_older_release_is_read(tables, tmp_path):
    train(tables["classification"], tmp_path)
    file = tmp_path / "training.json"
    old = json.loads(file.read_text())
    del old["performance"]
    file.write_text(json.dumps(old))
    training = Training.read(tmp_path)
    assert training.performance is None
    assert training.metadata() == {"device": training.device}


def test_metadata_is_flat_and_holds_what_is_known(tables, tmp_path):
    training = train(tables["classification"], tmp_path)
    told = training.metadata()
    assert told["device"] == training.device
    assert told["samples_per_second"] == training.performance.samples_per_second
    assert told["compute_seconds"] == training.performance.seconds.compute
    assert all(isinstance(value, str | int | float) for value in told.values())
    assert "energy_joules" not in told


CONVOLUTION = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
NETWORKS = {
    "linear": (nn.Linear(7, 5), (7,), 4 * 7 * 5),  # nobody asks for the gradient of the first layer's input
    "two layers": (nn.Sequential(nn.Linear(7, 11), nn.ReLU(), nn.Linear(11, 5)), (7,), 4 * 7 * 11 + 6 * 11 * 5),
    "convolution": (CONVOLUTION, (2, 6, 6), 4 * (4 * 4) * 3 * (2 * 3 * 3) + 6 * 48 * 5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_flops_of_a_row_are_those_counted_by_hand(name):
    network, shape, expected = NETWORKS[name]
    assert count_flops(network, torch.randn(2, *shape)) == count_flops(network, torch.randn(8, *shape)) == expected


def test_counting_flops_draws_no_random_number_and_lets_a_failing_network_be():
    linear = nn.Linear(3, 2)
    before = torch.get_rng_state()
    assert count_flops(nn.Sequential(nn.Dropout(0.5), linear), torch.ones(2, 3)) == 4 * 3 * 2
    assert count_flops(linear, torch.ones(2, 4)) is None
    assert count_flops(nn.Flatten(), torch.ones(2, 4)) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_flops_of_a_training_are_those_of_its_rows(digits, tmp_path):
    told = train(digits, tmp_path, seeds=2).performance
    assert told.flops_per_second == pytest.approx(told.samples_per_second * 4 * 64 * 10)


@pytest.mark.parametrize(
    ("cards", "precision", "tflops"),
    [
        ((H100,), "bf16", 989.5),
        ((H100,), "fp32", 67.0),
        ((H100, H100), "bf16", 1979.0),
        ((H100, "NVIDIA H100 PCIe"), "tf32", 494.5 + 378.0),
        (("NVIDIA A100-SXM4-80GB",), "tf32", 156.0),
        (("Tesla T4",), "bf16", None),  # it has no units for it
        (("NVIDIA H100 80GB",), "bf16", None),
        ((f"{H100} MIG 1g.10gb",), "bf16", None),
        ((H100, "NVIDIA H100 96GB HBM3"), "bf16", None),
        ((H100.lower(),), "bf16", None),
        ((), "fp32", None),
    ],
)
def test_peak_is_that_of_the_very_cards_or_none(cards, precision, tflops):
    assert peak_flops(cards, precision) == (None if tflops is None else pytest.approx(tflops * 1e12))


def test_peaks_rise_with_fewer_bits():
    for name, peaks in KNOWN.items():
        told = [peak for peak in (peaks.fp32, peaks.tf32, peaks.bf16, peaks.fp16) if peak is not None]
        assert told == sorted(told), name


@pytest.mark.parametrize(
    ("network", "card", "is_mixed", "expected"),
    [
        (nn.Linear(2, 2), H100, True, "bf16"),
        (nn.Linear(2, 2), H100, False, "fp32"),
        (CONVOLUTION, H100, False, "tf32"),  # cuDNN may use it unless it is told not to
        (CONVOLUTION, "Tesla T4", False, "fp32"),
    ],
)
def test_precision_is_the_fastest_that_is_used(network, card, is_mixed, expected):
    assert precision_of(network, (card,), is_mixed=is_mixed) == expected


@pytest.mark.parametrize(
    ("network", "allowed", "refused"),
    [
        (nn.Linear(2, 2), torch.backends.cuda.matmul, torch.backends.cudnn.conv),
        (CONVOLUTION, torch.backends.cudnn.conv, torch.backends.cuda.matmul),
    ],
)
def test_precision_follows_what_is_allowed(network, allowed, refused):
    before = [(setting, setting.fp32_precision) for setting in (allowed, refused)]
    try:
        allowed.fp32_precision, refused.fp32_precision = "tf32", "ieee"
        assert precision_of(network, (H100,), is_mixed=False) == "tf32"
        allowed.fp32_precision = "ieee"
        assert precision_of(network, (H100,), is_mixed=False) == "fp32"
    finally:
        for setting, precision in before:
            setting.fp32_precision = precision


def test_share_of_a_known_card_is_flops_by_its_peak(clock):
    measured = Meter()
    with measured.spending("compute"):
        clock(4)
        measured.rows += 200
    told = performance_of(measured, (H100, H100), processes=2, precision="bf16")
    assert told.flops_per_second == 50e12  # 50 rows a second of 1e12 each
    assert told.peak_share == pytest.approx(50 / (2 * 989.5))
    assert (told.device, told.peak_precision, told.processes) == (H100, "bf16", 2)


@pytest.mark.parametrize(("card", "peak"), [(H100, 67e12), ("NVIDIA H100 80GB", None)])
def test_training_on_a_card_tells_its_share_where_the_card_is_known(digits, tmp_path, monkeypatch, card, peak):
    monkeypatch.setattr("basekamp.training.train.card_names", lambda device: (card,))
    told = train(digits, tmp_path).performance
    assert told.device == card
    assert told.flops_per_second > 0
    assert told.peak_share == (peak and pytest.approx(told.flops_per_second / peak))
    assert told.peak_precision == (peak and "fp32")


class Card:
    """A card as NVML tells of it; what is in `silent` it does not tell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, silent: tuple[str, ...] = ()) -> None:
        self.energies, self.asked = iter(range(5_000, 10**9, 250)), []
        self.last = 0
        told = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByUUID": self.asked.append,
            "nvmlDeviceGetTotalEnergyConsumption": self.energy,
            "nvmlDeviceGetUtilizationRates": lambda card: SimpleNamespace(gpu=next(self.utilisations)),
        }
        self.utilisations = iter([10, 40] + [40, 10] * 10**6)
        for name, answer in told.items():
            monkeypatch.setattr(pynvml, name, refuse if name in silent else answer)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1a2b-3c4d"))
        monkeypatch.setattr(nvml, "SECONDS_BETWEEN_READINGS", 0.01)

    def energy(self, card: object) -> int:
        self.last = next(self.energies)
        return self.last


def refuse(*_: object) -> None:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def read_for(seconds: float, device: str = "cuda") -> CardReader:
    reader = CardReader(torch.device(device))
    reader.start()
    time.sleep(seconds)
    reader.stop()
    return reader


def test_card_is_found_by_its_uuid_and_read_until_the_end(monkeypatch):
    card = Card(monkeypatch)
    reader = read_for(0.2)
    assert card.asked == ["GPU-1a2b-3c4d"]
    total, number = reader.utilisations
    assert number > 2 and reader.utilisation == total / number
    assert 20 <= reader.utilisation <= 30
    assert reader.energy_joules == (card.last - 5_000) / 1000 == 0.25 * number


def test_card_that_is_read_for_an_instant_is_read_once(monkeypatch):
    Card(monkeypatch)
    monkeypatch.setattr(nvml, "SECONDS_BETWEEN_READINGS", 60.0)
    reader = read_for(0.0)
    assert (reader.utilisation, reader.energy_joules) == (10, 0.25)


@pytest.mark.parametrize(
    ("silent", "has_utilisation", "has_energy"),
    [
        ("nvmlInit", False, False),
        ("nvmlDeviceGetHandleByUUID", False, False),
        ("nvmlDeviceGetUtilizationRates", False, True),
        ("nvmlDeviceGetTotalEnergyConsumption", True, False),
    ],
)
def test_what_the_card_does_not_tell_is_absent(monkeypatch, silent, has_utilisation, has_energy):
    Card(monkeypatch, (silent,))
    reader = read_for(0.05)
    assert (reader.utilisation is not None, reader.energy_joules is not None) == (has_utilisation, has_energy)


def test_nothing_is_read_without_the_library_or_without_a_card(monkeypatch):
    card = Card(monkeypatch)
    assert read_for(0.0, "cpu").state() == {"utilisations": [0.0, 0], "joules": None}
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_for(0.0).state() == {"utilisations": [0.0, 0], "joules": None}
    assert card.asked == []


def test_readings_of_two_processes_are_added_up(monkeypatch):
    Card(monkeypatch)
    first, second = read_for(0.03), read_for(0.03)
    energies, numbers = [first.energy_joules, second.energy_joules], [first.utilisations, second.utilisations]
    second.load_state(first.state())
    assert second.energy_joules == pytest.approx(sum(energies))
    assert second.utilisations == tuple(map(sum, zip(*numbers, strict=True)))


def test_energy_is_absent_where_one_of_two_processes_could_not_read_it(monkeypatch):
    Card(monkeypatch)
    told, silent = read_for(0.03), read_for(0.0, "cpu")
    told.load_state(silent.state())
    assert told.energy_joules is None and told.utilisation is not None


def test_meter_reads_the_card_while_it_is_a_context(monkeypatch):
    Card(monkeypatch)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1 << 30)
    with Meter(torch.device("cuda")) as measured:
        time.sleep(0.05)
    told = performance_of(measured)
    assert told.gpu_utilisation == measured.card.utilisation and told.energy_joules == measured.card.energy_joules
    assert told.memory_peak_bytes == 1 << 30
    resumed = Meter(torch.device("cuda"))
    resumed.load_state(measured.state())
    assert performance_of(resumed).gpu_utilisation == told.gpu_utilisation


def test_peak_memory_of_this_process_is_that_of_proc():
    peak = meter.peak_memory_bytes(CPU)
    held = bytearray(300 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert meter.peak_memory_bytes(CPU) >= peak
    assert meter.peak_memory_bytes(CPU) > 300 << 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_training_on_a_gpu_tells_what_the_card_did(digits, tmp_path):
    settings = {"model": "cnn", "width": 64, "n_epochs": 30, "patience": 0, "gpus": "1", "profile": True}
    training = train(digits, tmp_path, **settings)
    told, card = training.performance, torch.cuda.get_device_name()
    assert told.device == training.device == card
    assert told.samples_per_second * told.seconds.compute == pytest.approx(rows_trained(digits, training), rel=0.02)
    assert 0 < told.memory_peak_bytes <= torch.cuda.max_memory_allocated()
    assert (told.peak_share is not None) == (card in KNOWN)
    assert told.peak_precision in ("bf16", None)
    assert (tmp_path / "trace.json.gz").stat().st_size > 0
    if "MIG" not in card:
        assert 0 <= told.gpu_utilisation <= 100
