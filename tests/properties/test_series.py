"""For each period and step, every instant of the period lies in exactly one step."""

from hypothesis import given
from hypothesis import strategies as st

from src.analytics.series import Steps

INSTANTS = st.integers(-(10**15), 10**15)


@st.composite
def periods(draw):
    start, length = draw(INSTANTS), draw(st.integers(1, 10**12))
    most = draw(st.integers(1, 50))
    return Steps(start, start + length, max(1, length // most))


@given(periods(), st.data())
def test_each_instant_of_the_period_lies_in_its_own_step(steps, data):
    instant = data.draw(
        st.one_of(
            st.integers(steps.start_us - steps.step_us, steps.stop_us + steps.step_us),
            st.sampled_from([*steps.times(), steps.start_us, steps.stop_us]).flatmap(
                lambda edge: st.integers(edge - 1, edge + 1)
            ),
        )
    )
    found = [
        time
        for time, window in zip(steps.times(), steps.windows(), strict=True)
        if window.start_us < instant <= window.end_us
    ]
    own = instant // steps.step_us * steps.step_us
    assert found == ([own] if steps.start_us <= instant < steps.stop_us else [])


@given(periods())
def test_the_length_is_the_number_of_steps(steps):
    assert len(steps) == len(steps.times()) == len(list(steps.windows()))
