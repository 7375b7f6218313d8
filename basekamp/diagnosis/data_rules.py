"""What the data set itself tells."""

from basekamp.data.two_samples import is_apart
from basekamp.diagnosis.finding import Case, Finding
from basekamp.language import gettext


def class_imbalance(case: Case) -> Finding | None:
    """A class that hardly occurs."""
    shares = case.data.class_shares if case.data else {}
    if len(shares) < 2:
        return None
    rarest = min(shares, key=lambda name: shares[name])
    fair = shares[rarest] * len(shares)
    if fair > 0.25:  # a class of a quarter of its fair share is what a mean over rows forgets
        return None
    return Finding(
        "class-imbalance",
        "warning",
        gettext(
            "Class {name} is {share} of the training rows, {fair} of its fair share: accuracy hardly sees it.",
            name=repr(rarest),
            share=f"{shares[rarest]:.2%}",
            fair=f"{fair:.2f}",
        ),
        {"share": shares[rarest], "of_fair_share": fair},
        gettext(
            "Judge by balanced_accuracy in an experiment of its own; label smoothing keeps the rare class in sight."
        ),
        {"label_smoothing": 0.1},
    )


def shift(case: Case) -> Finding | None:
    """Training and validation rows that can be told apart."""
    shift = case.data.shift if case.data else None
    if shift is None or not is_apart(shift.auc, shift.noise):
        return None
    return Finding(
        "train-validation-shift",
        "critical",
        gettext(
            "A classifier tells training from validation rows (AUC {auc}); {column} differs most (stability index "
            "{index}).",
            auc=f"{shift.auc:.2f}",
            column=shift.column,
            index=f"{shift.stability_index:.2f}",
        ),
        {"auc": shift.auc, "stability_index": shift.stability_index},
        gettext(
            "Without {column} the splits are alike (data: drop), or the split is to be drawn anew.", column=shift.column
        ),
    )


def duplicates(case: Case) -> Finding | None:
    """Rows that stand in several splits."""
    if case.data is None:
        return None
    held = sum(count for name, count in case.record.data.rows.items() if name != "train")
    share = case.data.repeated / held if held else 0.0
    if share < 0.01:
        return None
    return Finding(
        "duplicates-across-splits",
        "critical" if share > 0.05 else "warning",
        gettext(
            "{n} of {all} validation and test rows ({share}) are training rows as well: what is measured there was "
            "learned by heart.",
            n=case.data.repeated,
            all=held,
            share=f"{share:.1%}",
        ),
        {"repeated": case.data.repeated, "share": share},
        gettext("Rows that belong together stay on one side with data: split: group."),
        rows=tuple(case.data.repeated_rows),
        counted_in=case.data.counted_in,
    )


def leak(case: Case) -> Finding | None:
    """A column that gives the target away."""
    leak = case.data.leak if case.data else None
    if leak is None or not leak.is_clear:
        return None
    return Finding(
        "leaking-feature",
        "critical",
        gettext(
            "{column} alone tells the target (score {score}, the next column {others}): will it be known when the "
            "model is used?",
            column=leak.column,
            score=f"{leak.score:.3f}",
            others=f"{leak.others:.3f}",
        ),
        {"score": leak.score, "others": leak.others},
        gettext("Without {column} (data: drop) the result is lower, and true.", column=leak.column),
    )


def too_little_data(case: Case) -> Finding | None:
    """Rows whose doubling would still help much."""
    data = case.data
    if data is None or data.half is None or data.whole is None:
        return None
    gain = data.whole - data.half
    if gain < 0.03 or data.whole > 0.97:
        return None
    return Finding(
        "too-little-data",
        "warning",
        gettext(
            "A linear model that learned from half of the {n} rows reaches {half}, from all {whole}: as many rows "
            "again would bring about as much.",
            n=f"{data.n_rows:,}",
            half=f"{data.half:.3f}",
            whole=f"{data.whole:.3f}",
        ),
        {"gain_of_doubling": gain, "rows": data.n_rows},
        gettext("More rows help more than any setting; until then hold the model back."),
        {"weight_decay": max(10 * case.setting("weight_decay", 1e-4), 1e-3)},
    )
