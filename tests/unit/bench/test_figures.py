"""The benchmark's arithmetic and its tables."""

import pytest

from bench.figures import (
    BEGIN,
    END,
    TIMES,
    Turn,
    figures_rows,
    format_ratio,
    markdown,
    median_turn,
    percentile,
    times_as_fast,
    with_section,
)


def measured_turn(rate, **figures):
    return Turn(
        **{"rate": rate, "p50_ms": 1.0, "p99_ms": 2.0, "cpu_seconds": 0.1, "round_trips": 2.0, **figures}
    )


def test_each_figure_of_several_turns_has_its_own_median():
    turns = [measured_turn(100, p99_ms=9.0), measured_turn(300, p99_ms=3.0), measured_turn(200, p99_ms=1.0)]
    assert median_turn(turns) == measured_turn(200, p99_ms=3.0)


def test_the_median_of_an_even_number_lies_between_the_middle_two():
    assert median_turn([measured_turn(100), measured_turn(200)]).rate == 150


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 99, 7.0),
        ([3.0, 1.0, 2.0, 4.0], 50, 2.0),
        (range(1, 101), 99, 99),
        (range(1, 1001), 99, 990),
        ([1.0, 2.0], 100, 2.0),
        ([1.0, 2.0], 0, 1.0),
    ],
)
def test_a_percentile_is_the_nearest_rank(values, percent, expected):
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(
    ("times", "text"), [(4.1, "4.1"), (0.2, "0.2"), (0.048, "0.048"), (11.2, "11"), (1234.5, "1234")]
)
def test_a_ratio_has_two_digits_or_all_before_the_point(times, text):
    assert format_ratio(times) == text + TIMES


def test_the_ratio_is_the_median_of_the_ratios_of_all_rounds():
    ours, theirs = (
        [measured_turn(400), measured_turn(100), measured_turn(420)],
        [measured_turn(100), measured_turn(25), measured_turn(70)],
    )
    assert times_as_fast(ours, theirs) == 4


def test_every_peer_is_compared_with_this_service():
    rows = figures_rows(
        "ingest",
        {"us": [measured_turn(4000)], "peer": [measured_turn(1000)], "bare": [measured_turn(8000)]},
        ours="us",
    )
    assert [(row[0], row[1], row[2], row[3]) for row in rows] == [
        ("ingest", "us", "4,000", ""),
        ("", "peer", "1,000", f"4{TIMES}"),
        ("", "bare", "8,000", f"0.5{TIMES}"),
    ]


def test_a_table_is_padded_and_numbers_are_aligned_right():
    assert markdown(["work", "a second"], [["ingest", "4,000"], ["x", "12"]]).splitlines() == [
        "| work   | a second |",
        "| ------ | -------: |",
        "| ingest |    4,000 |",
        "| x      |       12 |",
    ]


def test_only_the_marked_section_of_a_page_is_replaced():
    page = f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nThe rest.\n"
    assert with_section(page, "new") == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nThe rest.\n"
    assert with_section(with_section(page, "new"), "new") == with_section(page, "new")


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_page_without_its_two_marks_is_not_changed(page):
    with pytest.raises(ValueError, match="once each"):
        with_section(page, "new")
