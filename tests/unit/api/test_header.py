from src.api.header import header


def test_a_header_is_found_by_name_and_several_values_are_joined():
    scope = {
        "headers": [(b"host", b"a"), (b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2, \xe9")]
    }
    assert header(scope, b"host") == "a"
    assert header(scope, b"x-forwarded-for") == "1.1.1.1,2.2.2.2, \xe9"
    assert header(scope, b"cookie") is None
