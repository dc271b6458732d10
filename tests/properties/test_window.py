"""Whatever the window: every instant of it is covered exactly once, and no other."""

from hypothesis import given
from hypothesis import strategies as st
from src.analytics.fold import ROLLUP_STEPS_US, SKETCH_STEPS_US

from src.analytics.window import DAY_US, HOUR_US, MINUTE_US, Window

YEARS = 60_000_000_000_000_000


@st.composite
def near_an_edge(draw):
    """An instant, often right at the edge of a bucket."""
    step = draw(st.sampled_from([1, MINUTE_US, 10 * MINUTE_US, HOUR_US, 6 * HOUR_US, DAY_US]))
    return draw(st.integers(-YEARS, YEARS)) // step * step + draw(st.integers(-2, 2))


@st.composite
def windows(draw):
    start = draw(near_an_edge())
    length = draw(
        st.one_of(
            st.integers(0, 3 * DAY_US),
            st.sampled_from([1, MINUTE_US - 1, MINUTE_US, 2 * MINUTE_US, HOUR_US, DAY_US, 40 * DAY_US]),
        )
    )
    return Window(start, start + length)


ladders = st.sampled_from([ROLLUP_STEPS_US, SKETCH_STEPS_US])


def buckets_with(instant, spans):
    return sum(span.first <= instant // span.step_us < span.stop for span in spans)


@given(windows(), ladders, st.data())
def test_each_instant_is_covered_once_if_it_is_in_the_window(window, steps, data):
    spans = list(window.cover(steps))
    edges = [edge for span in spans for edge in (span.first * span.step_us, span.stop * span.step_us)]
    instant = data.draw(
        st.one_of(
            st.integers(window.start_us - 2 * DAY_US, window.end_us + 2 * DAY_US),
            st.sampled_from([window.start_us, window.end_us, *edges]).flatmap(
                lambda edge: st.integers(edge - 1, edge + 1)
            ),
        )
    )
    assert buckets_with(instant, spans) == (window.start_us < instant <= window.end_us)


@given(windows(), ladders)
def test_spans_follow_one_another_without_a_gap(window, steps):
    edge = window.start_us + 1
    for step, first, stop in window.cover(steps):
        assert first * step == edge
        assert first < stop
        edge = stop * step
    assert edge == window.end_us + 1


@given(windows(), ladders, st.data())
def test_with_an_open_end_only_the_future_is_covered_besides(window, steps, data):
    spans = list(window.cover(steps, open_ended=True))
    instant = data.draw(st.integers(window.start_us - DAY_US, window.end_us + 1))
    if instant <= window.end_us:
        assert buckets_with(instant, spans) == (window.start_us < instant)
    assert all(span.first * span.step_us <= window.end_us for span in spans)


@given(windows(), ladders)
def test_single_instants_are_fewer_than_the_shortest_bucket_at_each_edge(window, steps):
    singles = [span for span in window.cover(steps) if span.step_us == 1]
    assert len(singles) <= 2
    assert sum(span.stop - span.first for span in singles) < 2 * steps[-1]
