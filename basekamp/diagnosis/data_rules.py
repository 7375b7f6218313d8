"""What the data set itself tells."""

from basekamp.diagnosis.finding import Case, Finding


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
        f"Class {rarest!r} is {shares[rarest]:.2%} of the training rows, {fair:.2f} of its fair share: accuracy hardly "
        "sees it.",
        {"share": shares[rarest], "of_fair_share": fair},
        "Judge by balanced_accuracy in an experiment of its own; label smoothing keeps the rare class in sight.",
        {"label_smoothing": 0.1},
    )


def shift(case: Case) -> Finding | None:
    """Training and validation rows that can be told apart."""
    shift = case.data.shift if case.data else None
    if shift is None or shift.auc < max(0.6, 0.5 + 5 * shift.noise):
        return None
    return Finding(
        "train-validation-shift",
        "critical",
        f"A classifier tells training from validation rows (AUC {shift.auc:.2f}); {shift.column} differs most "
        f"(stability index {shift.stability_index:.2f}).",
        {"auc": shift.auc, "stability_index": shift.stability_index},
        f"Without {shift.column} the splits are alike (data: drop), or the split is to be drawn anew.",
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
        f"{case.data.repeated} of {held} validation and test rows ({share:.1%}) are training rows as well: what is "
        "measured there was learned by heart.",
        {"repeated": case.data.repeated, "share": share},
        "Rows that belong together stay on one side with data: split: group.",
        rows=tuple(case.data.repeated_rows),
    )


def leak(case: Case) -> Finding | None:
    """A column that gives the target away."""
    leak = case.data.leak if case.data else None
    if leak is None or leak.score < 0.95 or leak.score - leak.others < 0.15:
        return None
    return Finding(
        "leaking-feature",
        "critical",
        f"{leak.column} alone tells the target (score {leak.score:.3f}, the next column {leak.others:.3f}): will it be "
        "known when the model is used?",
        {"score": leak.score, "others": leak.others},
        f"Without {leak.column} (data: drop) the result is lower, and true.",
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
        f"A linear model that learned from half of the {data.n_rows:,} rows reaches {data.half:.3f}, from all "
        f"{data.whole:.3f}: as many rows again would bring about as much.",
        {"gain_of_doubling": gain, "rows": data.n_rows},
        "More rows help more than any setting; until then hold the model back.",
        {"weight_decay": max(10 * case.setting("weight_decay", 1e-4), 1e-3)},
    )
