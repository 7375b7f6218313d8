"""How a training ran, as rows of a table that HTML, Markdown and the terminal share: only what is known."""

from basekamp.language import gettext
from basekamp.report.numbers import change, number
from basekamp.training.results import Performance, Seconds

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
BINARY_PREFIXES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))


def performance_rows(performance: Performance | None) -> list[tuple[str, str]]:
    """Each quantity and its value for reading; none for a record of an older release."""
    if performance is None:
        return []
    one = ""
    if performance.processes > 1:
        is_cpu = performance.device == "cpu"
        one = gettext(", one of {n} processes" if is_cpu else ", one of {n} GPUs", n=performance.processes)
    told = {
        gettext("device"): performance.device,
        gettext("samples per second"): _number(performance.samples_per_second),
        gettext("time"): _time(performance.seconds),
        gettext("memory peak") + one: size(performance.memory_peak_bytes),
        gettext("GPU utilisation") + one: _percent(performance.gpu_utilisation),
        gettext("energy") + one: _si(performance.energy_joules, "J"),
        "FLOP/s": _flops(performance),
    }
    return [(name, value) for name, value in told.items() if value]


def _time(seconds: Seconds) -> str:
    """The total and the share of each phase; what belongs to none of them is starting up and ending."""
    total, phases = seconds.total, seconds.model_dump(exclude={"total"}, exclude_none=True)
    told = f"{change(total)} s"
    if not phases or not total:
        return told
    phases["other"] = max(0.0, total - sum(phases.values()))
    names = {"checkpoint": "checkpoints"}
    shares = (f"{gettext(names.get(name, name))} {_share(part / total)}" for name, part in phases.items())
    return f"{told}: " + ", ".join(shares)


def _flops(performance: Performance) -> str:
    if performance.flops_per_second is None:
        return ""
    told = _si(performance.flops_per_second, "FLOP/s")
    if performance.peak_share is None:
        return told
    share = gettext(
        "{share} of this card's {precision} peak"
        if performance.processes == 1
        else "{share} of these cards' {precision} peak",
        share=_share(performance.peak_share),
        precision=performance.peak_precision,
    )
    return f"{told}, {share}"


def _number(value: float | None) -> str:
    return "" if value is None else number(round(value) if value >= 100 else value)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{change(value)} %"


def _share(share: float) -> str:
    """A share in whole per cent, to two digits below one."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 1 or percent == 0 else f"{percent:.2g} %"


def _si(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    size, prefix = next((pair for pair in PREFIXES if abs(value) >= pair[0]), PREFIXES[-1])
    return f"{change(value / size)} {prefix}{unit}"


def size(value: int | None) -> str:
    """A number of bytes, to three digits; nothing for None."""
    if value is None:
        return ""
    step, unit = next(pair for pair in BINARY_PREFIXES if value >= pair[0] or pair[0] == 1)
    return f"{change(value / step if step > 1 else value)} {unit}"
