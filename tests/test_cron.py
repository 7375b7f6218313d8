import pytest

from basekamp.cluster.cron import cron_expression
from basekamp.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 6 * * 1", "0 0 6 * * 1"),
        ("  0   6 * * 1 ", "0 0 6 * * 1"),
        ("30 0 6 * * 1", "30 0 6 * * 1"),
        ("*/15 0-6 1,15 JAN-mar ?", "0 */15 0-6 1,15 JAN-mar ?"),
        ("0 6 * * mon-fri", "0 0 6 * * mon-fri"),
        ("5/10 8-18/2 * * *", "0 5/10 8-18/2 * * *"),
        ("59 59 23 31 12 6", "59 59 23 31 12 6"),
    ],
)
def test_cron_expression_gives_six_fields(text: str, expected: str) -> None:
    assert cron_expression(text) == expected


@pytest.mark.parametrize("text", ["", "daily", "@daily", "0 6 * *", "0 0 6 * * 1 2030"])
def test_cron_expression_other_number_of_fields_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a schedule: give minute, hour, day, month and day of the week"):
        cron_expression(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("60 6 * * 1", "'60' in the schedule '60 6 \\* \\* 1' is no minute: use 0 to 59"),
        ("0 24 * * 1", "is no hour: use 0 to 23"),
        ("0 6 0 * 1", "is no day of the month: use 1 to 31"),
        ("0 6 * 13 1", "is no month: use 1 to 12"),
        ("0 6 * * 7", "'7' in .* is no day of the week: use 0 to 6"),
        ("0 6 * * monday", "is no day of the week"),
        ("mon 6 * * *", "is no minute"),
        ("0 6-2 * * 1", "is no hour"),
        ("*/0 6 * * 1", "is no minute"),
        ("1,,2 6 * * 1", "is no minute"),
        ("-1 6 * * 1", "is no minute"),
        ("1.5 6 * * 1", "is no minute"),
        ("0 6 L * *", "is no day of the month"),
        ("99 0 6 * * 1", "is no second"),
    ],
)
def test_cron_expression_field_out_of_bounds_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cron_expression(text)
